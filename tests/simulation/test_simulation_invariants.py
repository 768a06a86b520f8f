"""What holds in every run, whatever comes and goes; what workers hold is recomputed from outside."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.plan.types import PlanSpec
from planner.policy.registry import POLICIES
from planner.policy.types import Task, Waiting
from planner.policy.urgency import aged_priority
from planner.scenario.instance import Instance
from planner.scenario.types import EventSpec
from planner.simulation.simulator import Simulator
from planner.trace.records import BlockRecord, Record, SampleRecord
from planner.worker.events import Effect, Event, RunBlock
from planner.worker.worker import Worker
from tests.instances import make_instance
from tests.simulation.churn import BLOCKS, cases
from tests.simulation.observed import ObservedSimulator

NEVER_ENDED = "never ended"

Look = Callable[[Worker, Event, list[Effect]], None]


def run(
    case: tuple[Instance, PlanSpec], policy: str, seed: int, look: Look | None = None
) -> tuple[Simulator, list[Record]]:
    """Simulate, showing each worker after each of its steps."""
    instance, plan = case
    records: list[Record] = []

    def observe(name: str, _now_s: float, event: Event, effects: list[Effect]) -> None:
        if look is not None:
            look(simulator._workers[name], event, effects)

    simulator = ObservedSimulator(instance, policy=policy, plan=plan, seed=seed, sink=records.append, observe=observe)
    simulator.run()
    return simulator, records


def queued(worker: Worker) -> list[Waiting]:
    """All tasks that wait at a worker."""
    return [waiting for heap in worker._queues._heaps.values() for _, waiting in heap]


def starting(worker: Worker, effects: list[Effect]) -> Waiting | None:
    """The task of which a block starts with these effects."""
    if not any(isinstance(effect, RunBlock) for effect in effects):
        return None
    assert worker._running is not None
    return worker._running


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=12, deadline=None)
@given(case=cases(), seed=st.integers(0, 5))
def test_every_sample_ends_once_and_no_worker_runs_two_blocks(
    policy: str, case: tuple[Instance, PlanSpec], seed: int
) -> None:
    instance, _ = case
    _, records = run(case, policy, seed)
    samples = [record for record in records if isinstance(record, SampleRecord)]
    ended = Counter((record.source, record.sample) for record in samples)
    assert set(ended) == {(source, k) for source in instance.sources for k in range(instance.samples(source))}
    assert set(ended.values()) == {1}
    assert all(record.reason for record in samples if record.status == "failed")
    busy = defaultdict(list)
    ran: dict[tuple[str, int], set[int]] = defaultdict(set)
    for record in records:
        if isinstance(record, BlockRecord):
            busy[record.worker].append((record.start_s, record.end_s))
            ran[record.source, record.sample].add(record.block)
    for spans in busy.values():
        spans.sort()
        assert all(before[1] <= after[0] for before, after in pairwise(spans))
    for record in samples:
        if record.status == "completed":
            assert record.origin is not None
            cuts = {leave.name: leave.cut for leave in instance.any_profile(record.origin.model).exits}
            # Another attempt may have come further, or may end the sample first.
            cut = BLOCKS if record.origin.exit is None else cuts[record.origin.exit]
            assert ran[record.source, record.sample] >= set(range(cut))


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=12, deadline=None)
@given(case=cases(network_loss=False), seed=st.integers(0, 5))
def test_nothing_is_left_behind_while_the_networks_stay(
    policy: str, case: tuple[Instance, PlanSpec], seed: int
) -> None:
    """Samples fail with the worker that they belong to alone; in the end no worker holds or expects anything."""
    simulator, records = run(case, policy, seed)
    assert not [record for record in records if isinstance(record, SampleRecord) and NEVER_ENDED in record.reason]
    for worker in simulator._workers.values():
        assert worker._running is None
        assert not queued(worker)
        assert not worker.pending
        assert not worker._view.backlog_s
        assert not worker._handshake._open
        assert not worker._handshake._requests
        assert worker._handshake._reserved is None


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=10, deadline=None)
@given(case=cases(), seed=st.integers(0, 5))
def test_a_worker_knows_its_backlog_and_does_not_idle(policy: str, case: tuple[Instance, PlanSpec], seed: int) -> None:
    def look(worker: Worker, _event: Event, _effects: list[Effect]) -> None:
        costs, name = worker._view.costs, worker.name
        expected: dict[float, float] = defaultdict(float)
        for waiting in queued(worker):
            task = waiting.task
            time_s = costs.compute_s if waiting.begun else costs.stage_s
            point = task.operating_point
            expected[task.priority] += time_s(task.model, name, waiting.next_block, waiting.last_block, point)
        if worker._running is not None:
            running = worker._running
            task = running.task
            block, point = running.next_block, task.operating_point
            if block < running.last_block:
                whole_s = costs.compute_s(task.model, name, block, running.last_block, point)
                expected[task.priority] += whole_s - costs.compute_s(task.model, name, block, block)
        else:
            assert not queued(worker)
        known = worker._view.backlog_s
        assert {priority: known.get(priority, 0.0) for priority in expected} == pytest.approx(expected, abs=1e-6)
        assert known.keys() <= expected.keys()

    run(case, policy, seed, look)


@pytest.mark.parametrize("policy", ["planned", "pa-mdi"])
@settings(max_examples=25, deadline=None)
@given(case=cases(), seed=st.integers(0, 5))
def test_no_block_starts_while_more_urgent_work_waits(policy: str, case: tuple[Instance, PlanSpec], seed: int) -> None:
    """Or, where samples have deadlines and plans serve by value, work without one."""
    by_value = policy == "planned" and case[0].scenario.policy.order == "value"

    def compared(task: Task) -> bool:
        return not by_value or case[0].deadlines[task.key.source] is None

    def look(worker: Worker, _event: Event, effects: list[Effect]) -> None:
        if (chosen := starting(worker, effects)) is not None and compared(chosen.task):
            others = [waiting.task for waiting in queued(worker) if compared(waiting.task)]
            assert all(task.priority <= chosen.task.priority for task in others)

    run(case, policy, seed, look)


@settings(max_examples=25, deadline=None)
@given(case=cases(), seed=st.integers(0, 5))
def test_no_block_starts_under_adaptive_while_work_of_higher_aged_priority_waits(
    case: tuple[Instance, PlanSpec], seed: int
) -> None:
    """Or, for the least makespan, work of a source that is further behind; of work without a deadline."""
    instance, plan = case

    def compared(task: Task) -> bool:
        return plan.goal == "makespan" or instance.deadlines[task.key.source] is None

    def urgency(task: Task, now_s: float) -> float:
        if plan.goal == "makespan":
            return -task.key.sample / instance.samples(task.key.source)
        return aged_priority(task, now_s, instance.scenario.policy.adaptive.ageing_s)

    def look(worker: Worker, _event: Event, effects: list[Effect]) -> None:
        if (chosen := starting(worker, effects)) is not None:
            now_s = worker._view.now_s
            served = urgency(chosen.task, now_s)
            others = [waiting.task for waiting in queued(worker) if compared(waiting.task)]
            assert not compared(chosen.task) or all(urgency(task, now_s) <= served for task in others)

    run(case, "adaptive", seed, look)


@settings(max_examples=40, deadline=None)
@given(case=cases(), seed=st.integers(0, 5))
def test_ms_mdi_serves_by_equation_2(case: tuple[Instance, PlanSpec], seed: int) -> None:
    """The largest of local queues and back-pressures q_n − q_{n+1}, n+1 the next worker of the ring with work to do."""
    instance, _ = case

    def look(worker: Worker, _event: Event, effects: list[Effect]) -> None:
        chosen = starting(worker, effects)
        if chosen is None or chosen.begun:
            return
        waits = [chosen, *queued(worker)]
        local = Counter(w.task.key.source for w in waits if is_whole(w, instance))
        ring = Counter(w.task.key.source for w in waits if not is_whole(w, instance))
        terms = {("local", source): count for source, count in local.items()}
        for source, count in ring.items():
            heads = [w for w in waits if w.task.key.source == source and not is_whole(w, instance)]
            # The first of a queue stands for it: γ may have moved the cuts between its samples.
            head = chosen if chosen in heads else min(heads, key=lambda w: w.since_s)
            after = head.task.stages[1].worker if len(head.task.stages) > 1 else None
            terms["ring", source] = count - queue_length(worker, after, source, ring)
        kind = "local" if is_whole(chosen, instance) else "ring"
        assert terms[kind, chosen.task.key.source] == max(terms.values())

    def queue_length(worker: Worker, other: str | None, source: str, ring: Counter[str]) -> int:
        if other is None:
            return 0
        if other == worker.name:
            return ring[source]
        status = worker._view.statuses.get(other)
        return dict(status.queued).get(source, 0) if status is not None else 0

    run(case, "ms-mdi", seed, look)


def is_whole(waiting: Waiting, instance: Instance) -> bool:
    """Whether a task is a whole sample at its source: it waits in the local queue."""
    task = waiting.task
    return task.next_block == 0 and waiting.last_block == instance.length(task.model) - 1


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=4, deadline=None)
@given(case=cases(), seed=st.integers(0, 5))
def test_a_seed_tells_the_whole_story(policy: str, case: tuple[Instance, PlanSpec], seed: int) -> None:
    assert run(case, policy, seed)[1] == run(case, policy, seed)[1]


def noted(workers: list[str], events: list[EventSpec], rate_per_s: float = 20.0) -> Instance:
    """One source at the first of some workers, with these events."""
    instance = make_instance(
        workers=dict.fromkeys(workers, 1.0), sources={"camera": {"rate_per_s": rate_per_s, "samples": 60}}
    )
    scenario = instance.scenario.model_copy(update={"events": tuple(events)})
    return instance.model_copy(update={"scenario": scenario})


def event(at_s: float, action: str, **keys: Any) -> EventSpec:
    return EventSpec.model_validate({"at_s": at_s, "action": action, **keys})


def test_a_worker_that_came_back_knows_who_is_there() -> None:
    """What it was about to be told before it left is not told to it afterwards."""
    instance = noted(
        ["a", "b"],
        [
            event(0.95, "leave", worker="b"),
            event(1.0, "leave", worker="a"),
            event(1.01, "join", worker="b"),
            event(1.02, "join", worker="a"),
        ],
    )
    simulator = Simulator(instance, policy="ddi", plan=None, seed=0, sink=lambda _record: None)
    simulator.run()
    assert not simulator._workers["a"]._view.absent


def test_a_priority_outlasts_the_absence_of_its_home() -> None:
    events = [event(0.5, "priority", source="camera", priority=7.0)]
    events += [event(1.0, "leave", worker="a"), event(1.2, "join", worker="a")]
    events += [event(1.3, "leave", worker="a"), event(1.4, "priority", source="camera", priority=9.0)]
    events += [event(1.5, "join", worker="a")]
    for last, priority in ((3, 7.0), (6, 9.0)):
        simulator = Simulator(noted(["a"], events[:last]), policy="local", plan=None, seed=0, sink=lambda _record: None)
        simulator.run()
        assert simulator._workers["a"]._view.priorities == {"camera": priority}


def test_a_slow_worker_that_comes_back_is_still_slow() -> None:
    events = [event(0.0, "slow", worker="a", factor=3.0), event(1.0, "leave", worker="a")]
    events += [event(1.1, "join", worker="a"), event(2.0, "recover", worker="a")]
    records: list[Record] = []
    Simulator(noted(["a"], events), policy="local", plan=None, seed=0, sink=records.append).run()
    blocks = [record for record in records if isinstance(record, BlockRecord)]
    before = [record.end_s - record.start_s for record in blocks if record.start_s < 2.0]
    after = [record.end_s - record.start_s for record in blocks if record.start_s > 2.0]
    assert before == pytest.approx([3 * after[0]] * len(before))
