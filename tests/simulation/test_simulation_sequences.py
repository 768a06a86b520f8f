"""Simulated sequences: a prompt, then steps one after the other on the route that has their state."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from math import inf
from typing import Any

import numpy as np
import pytest

from planner.plan.evaluate import evaluate
from planner.plan.types import PlanSpec, Route, Stage
from planner.scenario.decode import DecodeSpec
from planner.scenario.instance import Instance
from planner.scenario.types import EventSpec
from planner.simulation.simulator import simulate
from planner.trace.metrics import SourceMetrics, summarise
from planner.trace.records import BlockRecord, SampleRecord, TransferRecord
from tests.instances import make_instance, make_profile, with_sequences


def route(*stages: tuple[str, int, int]) -> Route:
    own = tuple(Stage(worker=worker, first_block=first, last_block=last) for worker, first, last in stages)
    return Route(model="m", stages=own)


def make_plan(known: Instance, routes: dict[str, list[Route]]) -> PlanSpec:
    found = evaluate(known, routes)
    return PlanSpec(
        status="feasible", method="test", goal="delay", objective=found.objective, bound=0.0, gap=1.0, solve_s=0.0,
        provenance="measured", sources=found.sources, workers=found.workers, networks=found.networks,
    )  # fmt: skip


def instance(rate_per_s: float = 0.5, samples: int = 400, *, others: bool = False, **decode: Any) -> Instance:
    """A source of sequences on two workers, and perhaps a more important one of short samples."""
    profile = with_sequences(make_profile(block_s=[0.003, 0.003], stage_overhead_s=0.0005))
    spec = DecodeSpec(**{"prompt": 40, "max_new": 20, **decode})
    sources: dict[str, Any] = {"a": {"rate_per_s": rate_per_s, "samples": samples, "decode": spec}}
    if others:
        sources["b"] = {"rate_per_s": 20.0, "samples": 20 * int(samples / rate_per_s), "priority": 9.0}
    return make_instance(profiles=[profile], workers={"slow": 1.0, "fast": 2.0}, sources=sources)


def plan(known: Instance) -> PlanSpec:
    routes = {"a": [route(("fast", 0, 0), ("slow", 1, 1))], "b": [route(("fast", 0, 1))]}
    return make_plan(known, {name: routes[name] for name in known.sources})


def measured(known: Instance) -> SourceMetrics:
    records, _ = simulate(known, policy="planned", plan=plan(known), seed=3)
    return summarise(records, dict.fromkeys(known.sources, 1.0), known.workers).sources["a"]


def test_an_unloaded_sequence_takes_the_times_of_its_runs() -> None:
    known = instance(rate_per_s=1e-6, samples=3, chunk=16)
    found, expected = measured(known), evaluate(known, {"a": plan(known).sources["a"].routes}).sources["a"]

    # by hand, without the planner's own sums
    def block_s(new: int, context: int) -> float:
        return 2e-3 + 1e-6 * context if new == 1 else 1e-3 + 2e-4 * new + 1e-7 * new * context

    def run_s(new: int, past: int) -> float:
        size = 16 + 500 * new + 8 * (new + past)
        work_s = (block_s(new, new + past) + 0.0005) * (1 / 2 + 1)
        return work_s + 2 * (size / 1e7 + 0.001)  # to the fast worker, and back to the slow one, where results stay

    ttft_s = run_s(16, 0) + run_s(16, 16) + run_s(8, 32)
    tpot_s = sum(run_s(1, 40 + done) for done in range(19)) / 19
    assert found.ttft_s == pytest.approx(ttft_s, rel=1e-3)
    assert found.tpot_s == pytest.approx(tpot_s, rel=1e-3)
    assert expected.ttft_s == pytest.approx(ttft_s, rel=1e-3)
    assert expected.tpot_s == pytest.approx(tpot_s, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("others", [False, True])
def test_a_loaded_source_is_evaluated_as_it_is_simulated(*, others: bool) -> None:
    known = instance(rate_per_s=5.0, samples=1500, others=others)
    expected = evaluate(known, {name: plan(known).sources[name].routes for name in known.sources})
    own, found = expected.sources["a"], measured(known)
    unloaded = measured(instance(rate_per_s=1e-6, samples=1))
    assert (found.mean_delay_s or 0.0) > 1.1 * (unloaded.mean_delay_s or 0.0)
    assert found.ttft_s == pytest.approx(own.ttft_s, rel=0.15)
    assert found.tpot_s == pytest.approx(own.tpot_s, rel=0.15)
    assert found.tokens_per_s == pytest.approx(5.0 * 20, rel=0.1)


def test_runs_of_a_sequence_follow_one_another_on_one_route() -> None:
    known = instance(rate_per_s=5.0, samples=50, chunk=16)
    records, _ = simulate(known, policy="planned", plan=plan(known), seed=1)
    ends = [record for record in records if isinstance(record, SampleRecord)]
    assert sorted(record.sample for record in ends) == list(range(50))
    assert {record.tokens for record in ends} == {20}
    blocks: dict[int, list[BlockRecord]] = defaultdict(list)
    for record in records:
        if isinstance(record, BlockRecord):
            blocks[record.sample].append(record)
    for own in blocks.values():
        own.sort(key=lambda record: record.start_s)
        assert [(record.worker, record.block) for record in own] == [("fast", 0), ("slow", 1)] * (3 + 19)
        assert all(later.start_s >= earlier.end_s for earlier, later in pairwise(own))
    sizes = {record.size_bytes for record in records if isinstance(record, TransferRecord) and record.cut == 0}
    assert 16 + 500 * 16 + 8 * 16 in sizes
    assert 16 + 500 + 8 * 41 in sizes


def test_chunks_of_a_prompt_let_urgent_samples_pass() -> None:
    def urgent_s(chunk: int | None, *, alone: bool = False) -> float:
        known = instance(rate_per_s=4.0, samples=200, others=True, prompt=400, max_new=2, chunk=chunk)
        known = known.only_sources(["b"]) if alone else known
        records, _ = simulate(known, policy="planned", plan=plan(known), seed=2)
        found = summarise(records, dict.fromkeys(known.sources, 1.0), known.workers).sources["b"].mean_delay_s
        assert found is not None
        return found

    alone_s = urgent_s(None, alone=True)
    assert urgent_s(40) - alone_s < 0.5 * (urgent_s(None) - alone_s)


@pytest.mark.parametrize("how", [{}, {"prompt": 1, "chunk": 7}, {"prompt": 1, "chunk": 1}, {"prompt": 40, "chunk": 16}])
def test_a_sequence_starts_again_when_a_worker_leaves(how: dict[str, Any]) -> None:
    known = instance(rate_per_s=10.0, samples=20, **how)
    leaves = (EventSpec(at_s=0.5, action="leave", worker="fast"), EventSpec(at_s=0.9, action="join", worker="fast"))
    known = known.with_scenario(events=leaves)
    records, _ = simulate(known, policy="planned", plan=plan(known), seed=1)
    ends = [record for record in records if isinstance(record, SampleRecord)]
    assert sorted(record.sample for record in ends) == list(range(20))
    completed = [record for record in ends if record.status == "completed"]
    assert {record.tokens for record in completed} == {20}
    assert len(completed) > 10


def test_a_long_prompt_is_no_slowness() -> None:
    known = instance(rate_per_s=2.0, samples=50, prompt=400, max_new=5)
    asked: list[object] = []

    def replan(absent: object, slowness: object) -> None:
        asked.append((absent, slowness))

    simulate(known, policy="planned", plan=plan(known), seed=1, replan=replan)
    assert not asked


@pytest.mark.parametrize("concurrent", [1, 2])
def test_sequences_wait_for_a_place_as_they_are_evaluated(concurrent: int) -> None:
    known = instance(rate_per_s=2.5 * concurrent, samples=400, concurrent=concurrent)
    records, _ = simulate(known, policy="planned", plan=plan(known), seed=3)
    begins: dict[int, float] = {}
    ends: dict[int, float] = {}
    for record in records:
        if isinstance(record, BlockRecord):
            begins.setdefault(record.sample, record.start_s)
        elif isinstance(record, SampleRecord):
            ends[record.sample] = record.finished_s
    changes = sorted([(at_s, 1) for at_s in begins.values()] + [(at_s, -1) for at_s in ends.values()])
    under_way = np.cumsum([change for _, change in changes])
    assert under_way.max() == concurrent
    assert len(ends) == 400
    expected = evaluate(known, {"a": plan(known).sources["a"].routes}).sources["a"]
    found = summarise(records, dict.fromkeys(known.sources, 1.0), known.workers).sources["a"]
    unlimited = evaluate(instance(rate_per_s=2.5 * concurrent, concurrent=64), {"a": plan(known).sources["a"].routes})
    unlimited_s = unlimited.sources["a"].ttft_s
    assert expected.ttft_s is not None
    assert unlimited_s is not None
    assert expected.ttft_s > 1.2 * unlimited_s
    assert found.ttft_s == pytest.approx(expected.ttft_s, rel=0.25)
    assert found.mean_delay_s == pytest.approx(expected.delay_s, rel=0.25)


def test_a_plan_whose_sequences_find_no_place_has_no_finite_delay() -> None:
    known = instance(rate_per_s=8.0, concurrent=1)
    assert evaluate(known, {"a": plan(known).sources["a"].routes}).sources["a"].delay_s == inf


def test_sequences_that_wait_fail_when_their_source_leaves() -> None:
    leaves = EventSpec(at_s=1.0, action="leave", worker="slow")
    known = instance(rate_per_s=10.0, samples=30, concurrent=1).with_scenario(events=(leaves,))
    records, _ = simulate(known, policy="planned", plan=plan(known), seed=1)
    ends = [record for record in records if isinstance(record, SampleRecord)]
    assert sorted(record.sample for record in ends) == list(range(30))
    assert {record.reason for record in ends if record.status == "failed"} == {"slow left", "slow was absent"}


@pytest.mark.parametrize(("prompt", "most"), [(400, 0.25), (800, 0.7)])
def test_steps_beside_long_prompts_of_less_urgent_sources_are_evaluated_on_the_safe_side(
    prompt: int, most: float
) -> None:
    """A prompt that runs whole holds up a sequence once, not each of the steps that it would make meanwhile."""
    profile = with_sequences(make_profile(block_s=[0.003, 0.003], stage_overhead_s=0.0005))
    sources = {
        "a": {"priority": 8.0, "decode": DecodeSpec(prompt=10, max_new=40, concurrent=64)},
        "low": {"priority": 1.0, "decode": DecodeSpec(prompt=prompt, max_new=1, concurrent=64)},
    }
    known = make_instance(
        profiles=[profile],
        workers={"slow": 1.0, "fast": 2.0},
        sources={name: {**keys, "rate_per_s": 2.0, "samples": 150} for name, keys in sources.items()},
    )
    routes = {name: [route(("fast", 0, 0), ("slow", 1, 1))] for name in sources}
    records, _ = simulate(known, policy="planned", plan=make_plan(known, routes), seed=3)
    found = summarise(records, dict.fromkeys(sources, 1.0), known.workers).sources["a"].tpot_s
    expected = evaluate(known, routes).sources["a"].tpot_s
    assert found is not None
    assert expected is not None
    assert -0.1 < expected / found - 1 < most
