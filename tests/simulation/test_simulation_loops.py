"""Sequences whose next run the worker of the last block begins: simulated as evaluated, and recovered as any other."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from planner.plan.evaluate import evaluate
from planner.plan.types import PlanSpec, Route, Stage
from planner.scenario.decode import DecodeSpec
from planner.scenario.instance import Instance
from planner.scenario.types import EventSpec, NetworkSpec
from planner.simulation.simulator import simulate
from planner.trace.metrics import SourceMetrics, summarise
from planner.trace.records import BlockRecord, Record, SampleRecord, TransferRecord
from tests.instances import make_instance, make_profile, with_sequences
from tests.simulation.test_simulation_sequences import make_plan

PLACES = ("home", "last")
ROUTES = {1: ["first"], 2: ["first", "last"], 3: ["first", "home", "last"]}
STEPS = 19


def instance(
    rate_per_s: float, samples: int, *, latency_s: float = 0.01, others: bool = False, **decode: Any
) -> Instance:
    """Sequences on workers that are not at home, and perhaps more important samples at one of these."""
    profile = with_sequences(make_profile(block_s=[0.003, 0.002, 0.003], stage_overhead_s=0.0005))
    spec = DecodeSpec(**{"prompt": 40, "max_new": STEPS + 1, **decode})
    sources: dict[str, Any] = {"a": {"rate_per_s": rate_per_s, "samples": samples, "decode": spec, "worker": "home"}}
    if others:
        sources["b"] = {
            "rate_per_s": 20.0,
            "samples": 20 * int(samples / rate_per_s),
            "priority": 9.0,
            "worker": "last",
        }
    return make_instance(
        profiles=[profile],
        workers={"home": 1.0, "first": 1.0, "last": 2.0},
        sources=sources,
        networks={
            "lan": NetworkSpec(
                kind="shared", members=("home", "first", "last"), bandwidth_bytes_per_s=1e6, latency_s=latency_s
            )
        },
    )


def plan(known: Instance, workers: int, loop: Any) -> PlanSpec:
    names = ROUTES[workers]
    cuts = {1: [0, 3], 2: [0, 1, 3], 3: [0, 1, 2, 3]}[workers]
    stages = tuple(
        Stage(worker=name, first_block=first, last_block=end - 1)
        for name, (first, end) in zip(names, pairwise(cuts), strict=True)
    )
    routes = {"a": [Route(model="m", stages=stages, loop=loop)]}
    if "b" in known.sources:
        routes["b"] = [Route(model="m", stages=(Stage(worker="last", first_block=0, last_block=2),))]
    return make_plan(known, routes)


def run(known: Instance, workers: int, loop: Any, seed: int = 3) -> tuple[list[Record], SourceMetrics]:
    records, _ = simulate(known, policy="planned", plan=plan(known, workers, loop), seed=seed)
    return records, summarise(records, dict.fromkeys(known.sources, 1.0), known.workers).sources["a"]


@pytest.mark.parametrize("loop", PLACES)
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_an_unloaded_sequence_takes_what_is_evaluated(workers: int, loop: str) -> None:
    known = instance(1e-6, 3, chunk=16)
    records, found = run(known, workers, loop)
    expected = evaluate(known, {"a": plan(known, workers, loop).sources["a"].routes})
    own = expected.sources["a"]
    assert found.ttft_s == pytest.approx(own.ttft_s, rel=1e-3)
    assert found.tpot_s == pytest.approx(own.tpot_s, rel=1e-3)
    assert found.mean_delay_s == pytest.approx(own.delay_s, rel=1e-3)
    carried_s = sum(it.end_s - it.start_s for it in records if isinstance(it, TransferRecord))
    assert expected.networks["lan"].utilisation == pytest.approx(1e-6 * carried_s / 3, rel=1e-3)
    home = [it for it in records if isinstance(it, TransferRecord) and it.receiver == "home" and it.cut == 3]
    assert {it.size_bytes for it in home} == {8}
    assert len(home) == 3 * (3 + STEPS)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_a_step_waits_for_no_way_home(workers: int) -> None:
    """By hand: two ways of 10 ms are left out on one worker; of two workers and more, one."""
    times = {loop: run(instance(1e-6, 2), workers, loop)[1] for loop in PLACES}
    saved_s = (times["home"].tpot_s or 0.0) - (times["last"].tpot_s or 0.0)
    size_s = (16 + 500 + 8 * 50) / 1e6
    assert saved_s == pytest.approx(2 * 0.01 + size_s if workers == 1 else 0.01, rel=0.02)
    assert times["home"].ttft_s == pytest.approx(times["last"].ttft_s, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("others", [False, True])
def test_a_loaded_source_is_evaluated_as_it_is_simulated(*, others: bool) -> None:
    known = instance(2.0, 600, latency_s=0.002, others=others, concurrent=16)
    own = evaluate(known, {name: it.routes for name, it in plan(known, 2, "last").sources.items()}).sources["a"]
    _, found = run(known, 2, "last")
    assert found.ttft_s == pytest.approx(own.ttft_s, rel=0.15)
    assert found.tpot_s == pytest.approx(own.tpot_s, rel=0.15)


@pytest.mark.parametrize("loop", PLACES)
@pytest.mark.parametrize("gone", ["first", "last"])
@pytest.mark.parametrize("seed", range(3))
def test_sequences_start_again_when_a_worker_leaves(gone: str, loop: str, seed: int) -> None:
    """No token is lost or counted twice, whoever begins the steps, and every sequence ends once."""
    known = instance(8.0, 30, concurrent=16)
    events = tuple(
        EventSpec(at_s=at_s, action=action, worker=gone)  # type: ignore[arg-type]
        for at_s, action in ((0.5, "leave"), (0.9, "join"), (1.7, "leave"), (2.2, "join"))
    )
    records, _ = run(known.with_scenario(events=events), 2, loop, seed)
    ends = [record for record in records if isinstance(record, SampleRecord)]
    assert sorted(record.sample for record in ends) == list(range(30))
    assert {(record.status, record.tokens) for record in ends} == {("completed", STEPS + 1)}
    blocks = [record for record in records if isinstance(record, BlockRecord)]
    assert {record.sample for record in blocks} == set(range(30))


@pytest.mark.parametrize("loop", PLACES)
def test_a_broken_network_on_the_way_ends_nothing(loop: str) -> None:
    known = instance(4.0, 12)
    events = (EventSpec(at_s=0.5, action="leave", network="lan"), EventSpec(at_s=1.5, action="join", network="lan"))
    records, _ = run(known.with_scenario(events=events), 2, loop)
    ends = [record for record in records if isinstance(record, SampleRecord)]
    assert [record.status for record in ends] == ["completed"] * 12
