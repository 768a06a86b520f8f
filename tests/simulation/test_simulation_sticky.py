"""Simulated sequences stay on the workers of their first run, under every policy."""

from __future__ import annotations

from collections import defaultdict

import pytest

from planner.plan.types import PlanSpec, Route, SourcePlan, Stage
from planner.policy.registry import POLICIES
from planner.scenario.decode import DecodeSpec
from planner.simulation.simulator import simulate
from planner.trace.records import BlockRecord, SampleRecord
from tests.instances import make_instance, make_profile, with_sequences

SAMPLES = 30


def _route(*stages: tuple[str, int, int]) -> Route:
    built = tuple(Stage(worker=worker, first_block=first, last_block=last) for worker, first, last in stages)
    return Route(share=0.5, model="m", stages=built)


OWN = SourcePlan(
    accuracy=1.0,
    delay_s=0.1,
    surrogate_delay_s=0.1,
    routes=(_route(("a", 0, 0), ("c", 1, 2)), _route(("b", 0, 2))),
)
PLAN = PlanSpec(
    status="optimal", method="test", goal="delay", objective=1.0, bound=1.0, gap=0.0, solve_s=0.0,
    provenance="measured", sources={"urgent": OWN, "other": OWN}, workers={}, networks={},
)  # fmt: skip


@pytest.mark.parametrize("policy", POLICIES)
def test_each_block_of_a_sequence_runs_on_one_worker(policy: str) -> None:
    decode = DecodeSpec(prompt=12, max_new=8, chunk=4)
    profile = with_sequences(make_profile(block_s=[0.003, 0.003, 0.003]))
    known = make_instance(
        profiles=[profile],
        workers={"a": 1.0, "b": 1.5, "c": 2.0},
        sources={
            name: {"rate_per_s": 6.0, "samples": SAMPLES, "priority": priority, "worker": worker, "decode": decode}
            for name, worker, priority in (("urgent", "a", 8.0), ("other", "b", 1.0))
        },
    )
    records, _ = simulate(known, policy=policy, plan=PLAN, seed=1)
    ends = [record for record in records if isinstance(record, SampleRecord)]
    assert len(ends) == 2 * SAMPLES
    assert {(end.status, end.tokens) for end in ends} == {("completed", decode.max_new)}
    workers: dict[tuple[str, int, int], list[str]] = defaultdict(list)
    for record in records:
        if isinstance(record, BlockRecord):
            workers[record.source, record.sample, record.block].append(record.worker)
    runs = len(decode.runs)
    assert {len(of_block) for of_block in workers.values()} == {runs}
    assert {len(set(of_block)) for of_block in workers.values()} == {1}
    assert len(workers) == 2 * SAMPLES * 3
    if policy in {"planned", "adaptive", "ddi", "pa-mdi", "ms-mdi"}:
        ways = {tuple(workers[source, sample, block][0] for block in range(3)) for source, sample, _ in workers}
        assert len(ways) > 1
