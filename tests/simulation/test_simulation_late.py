"""Late samples: which are dropped, when, and how they are counted."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.errors import UsageError
from planner.plan.types import PlanSpec, Route, SourcePlan, Stage
from planner.policy.registry import POLICIES
from planner.scenario.instance import Instance
from planner.scenario.types import PolicySpec
from planner.simulation.simulator import simulate
from planner.trace.metrics import RunMetrics, summarise
from planner.trace.records import BlockRecord, Record, SampleRecord
from planner.worker.events import Effect, Event
from planner.worker.worker import Worker
from tests.instances import make_instance
from tests.simulation.churn import cases
from tests.simulation.test_simulation_invariants import run, starting

BUSY = {"rate_per_s": 60.0, "samples": 300}
"""Of samples of 20 ms on a worker of speed 1."""


def planned(instance: Instance, *stages: tuple[str, int, int]) -> PlanSpec:
    route = Route(model="m", stages=tuple(Stage(worker=w, first_block=f, last_block=a) for w, f, a in stages))
    own = SourcePlan(accuracy=1.0, delay_s=0.1, surrogate_delay_s=0.1, routes=(route,))
    return PlanSpec(
        status="feasible", method="test", goal="delay", objective=1.0, bound=0.0, gap=1.0, solve_s=0.0,
        provenance="measured", sources=dict.fromkeys(instance.sources, own), workers={}, networks={},
    )  # fmt: skip


def metrics_of(instance: Instance, records: list[Record]) -> RunMetrics:
    priorities = {name: spec.priority for name, spec in instance.scenario.sources.items()}
    return summarise(records, priorities, instance.workers, deadlines=instance.deadlines)


def ended(records: list[Record]) -> list[SampleRecord]:
    return [record for record in records if isinstance(record, SampleRecord)]


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=6, deadline=None)
@given(case=cases(), seed=st.integers(0, 5))
def test_no_block_starts_too_late(policy: str, case: tuple[Instance, PlanSpec], seed: int) -> None:
    def look(worker: Worker, _event: Event, effects: list[Effect]) -> None:
        if (chosen := starting(worker, effects)) is not None:
            spec = worker._view.instance.scenario.sources[chosen.task.key.source]
            waited_s = worker._view.now_s - chosen.task.created_s
            if spec.late == "drop" and spec.deadline_s is not None:
                assert waited_s <= spec.deadline_s
            if spec.queue_timeout_s is not None and chosen.next_block == 0:
                assert waited_s <= spec.queue_timeout_s + 1e-9

    _, records = run(case, policy, seed, look)
    for record in ended(records):
        spec = case[0].scenario.sources[record.source]
        if record.status == "dropped":
            assert record.reason
            assert spec.late == "drop" or spec.queue_timeout_s is not None
            assert (record.late_s is None) == (spec.deadline_s is None)


@pytest.mark.parametrize("where", [(("slow", 0, 1),), (("fast", 0, 1),), (("slow", 0, 0), ("fast", 1, 1))])
def test_under_overload_dropping_saves_others(where: tuple[tuple[str, int, int], ...]) -> None:
    """Finished first come, first served, nearly all are late; without the hopeless ones, half of them are in time."""
    missed = {}
    for late in ("finish", "drop"):
        source = {**BUSY, "deadline_s": 0.1, "late": late}
        by_priority = PolicySpec(order="priority")  # by value, the hopeless ones do not go first in any case
        instance = make_instance(workers={"slow": 0.8, "fast": 0.8}, sources={"s": source}, policy=by_priority)
        records, _ = simulate(instance, policy="planned", plan=planned(instance, *where))
        own = metrics_of(instance, records).sources["s"]
        missed[late] = own.miss_share or 0.0
        assert own.offered == own.completed + own.dropped == 300
        assert own.missed == own.dropped + sum(
            record.status == "completed" and record.delay_s > 0.1 for record in ended(records)
        )
        assert (own.dropped > 0) == (late == "drop")
        assert own.max_late_s is not None
    assert missed["drop"] < 0.7 * missed["finish"]


def test_a_sample_waits_for_its_first_block_at_most_so_long() -> None:
    instance = make_instance(workers={"slow": 0.8}, sources={"s": {**BUSY, "queue_timeout_s": 0.05}})
    records, _ = simulate(instance, policy="local")
    created_s = {record.sample: record.created_s for record in ended(records)}
    starts = [record for record in records if isinstance(record, BlockRecord) and record.block == 0]
    assert max(record.start_s - created_s[record.sample] for record in starts) <= 0.05 + 1e-9
    dropped = [record for record in ended(records) if record.status == "dropped"]
    assert len(dropped) + len(starts) == 300
    assert all(record.delay_s == pytest.approx(0.05) for record in dropped)
    assert metrics_of(instance, records).sources["s"].miss_share is None


@pytest.mark.parametrize("keys", [{"queue_timeout_s": 0.05}, {"deadline_s": 0.06, "late": "drop"}])
def test_samples_are_dropped_from_the_reservoir(keys: dict[str, Any]) -> None:
    instance = make_instance(workers={"slow": 0.8}, sources={"s": {**BUSY, **keys, "in_flight": 1}})
    records, _ = simulate(instance, policy="local")
    dropped = [record for record in ended(records) if record.status == "dropped"]
    assert dropped
    assert all(record.delay_s <= 0.06 + 1e-9 for record in dropped)


@pytest.mark.parametrize("late", ["finish", "drop"])
def test_a_way_that_does_not_exist_is_an_error_and_no_reason_to_drop(late: str) -> None:
    source = {"rate_per_s": 5.0, "samples": 3, "deadline_s": 1.0, "late": late}
    apart = make_instance(workers={"here": 1.0, "there": 1.0}, networks={}, sources={"s": source})
    with pytest.raises(UsageError, match="no network joins"):
        simulate(apart, policy="mdi")


def test_a_dropped_sample_would_have_been_as_late_as_told() -> None:
    """All at once at one worker: each sample waits for those before it."""
    source = {"arrivals": "batch", "samples": 10, "rate_per_s": None, "deadline_s": 0.05}
    late = make_instance(workers={"slow": 1.0}, sources={"s": {**source, "late": "finish"}})
    drop = make_instance(workers={"slow": 1.0}, sources={"s": {**source, "late": "drop"}})
    finished = {record.sample: record.delay_s - 0.05 for record in ended(simulate(late, policy="local")[0])}
    found = {record.sample: record for record in ended(simulate(drop, policy="local")[0])}
    assert [sample for sample, record in sorted(found.items()) if record.status == "completed"] == [0, 1]
    for sample in range(2, 10):
        assert 0 <= (found[sample].late_s or 0.0) <= finished[sample] + 1e-9
    assert found[2].late_s == pytest.approx(finished[2])
