"""An event that does not fit changes nothing, whatever state the worker is in and whatever the event."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import replace
from itertools import count
from math import inf, nan
from typing import Any, cast, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from planner.plan.types import PlanSpec
from planner.policy.registry import POLICIES, make_policy
from planner.policy.types import SampleKey, Status, Task
from planner.scenario.instance import Instance
from planner.worker.event_checks import ProtocolError
from planner.worker.events import (
    Arrived,
    BlockEnded,
    BlockFailed,
    Effect,
    Event,
    FailureMessage,
    ForgetMessage,
    Joined,
    Left,
    Received,
    Replanned,
    Reprioritised,
    RequestMessage,
    ResultMessage,
    SequenceEnded,
    StateMessage,
    StateRequest,
    StatusMessage,
    Step,
    TaskMessage,
    TimedOut,
    Timer,
    Transferred,
)
from planner.worker.patience import Patience
from planner.worker.worker import Worker
from tests.simulation.churn import BLOCKS, cases
from tests.simulation.observed import ObservedSimulator

PATIENCE = Patience(first_s=0.2, least_s=0.1)
NOBODY = "nobody"


def snapshot(value: Any, seen: dict[int, tuple[int, object]] | None = None) -> Hashable:
    """Return all that an object holds, however deep, in a comparable form; what never changes stands for itself."""
    seen = {} if seen is None else seen
    if value is None or isinstance(value, str | int | float | count | BaseModel | type) or callable(value):
        return id(value) if isinstance(value, BaseModel) else repr(value)
    if id(value) in seen:
        return seen[id(value)][0]
    seen[id(value)] = (len(seen), value)  # kept, so that nothing else gets its address
    if isinstance(value, Mapping):
        return tuple((snapshot(key, seen), snapshot(one, seen)) for key, one in value.items())
    if isinstance(value, set | frozenset):
        value = sorted(value)
    if isinstance(value, tuple | list | deque):
        return tuple(snapshot(one, seen) for one in value)
    own = vars(value) if hasattr(value, "__dict__") else {name: getattr(value, name) for name in value.__slots__}
    return (type(value).__name__, snapshot(own, seen))


def logs(case: tuple[Instance, PlanSpec], policy: str, seed: int) -> list[tuple[str, list[Step]]]:
    """Simulate, and return the steps of each worker; one that comes back is another worker."""
    instance, plan = case
    found: dict[tuple[str, int], list[Step]] = defaultdict(list)
    alive: list[Worker] = []

    def observe(name: str, now_s: float, event: Event, effects: list[Effect]) -> None:
        alive.append(simulator._workers[name])  # so that no other worker gets its address
        found[name, id(alive[-1])].append(Step(now_s, event, effects))

    simulator = ObservedSimulator(
        instance, policy=policy, plan=plan, seed=seed, patience=PATIENCE, sink=lambda _: None, observe=observe,
        replan=lambda _absent, _slowness: plan,
    )  # fmt: skip
    simulator.run()
    return [(name, steps) for (name, _), steps in found.items()]


def misfits(worker: Worker, instance: Instance, plan: PlanSpec) -> Iterator[tuple[float, Event]]:
    """Yield events of every kind that do not fit the state, with their times."""
    now_s = worker._view.now_s
    later_s = now_s + 0.5
    other = next((name for name in instance.workers if name != worker.name), worker.name)
    source = instance.sources[0]
    model = instance.scenario.sources[source].models[0]
    key = worker.running or SampleKey(source, 0, 0)
    block = worker._running.next_block if worker._running is not None else 0
    if now_s > 0:
        yield now_s / 2, Left(other)
    yield nan, Joined(other)
    yield later_s, cast("Event", "no event")
    for own in instance.sources:
        if instance.home(own) != worker.name:
            yield later_s, Arrived(own, 10**6)
            yield later_s, TimedOut(Timer("route", SampleKey(own, 0, 0)))
            yield later_s, TimedOut(Timer("result", SampleKey(own, 0, 0)))
    for pending in worker.pending:
        yield later_s, Arrived(pending.source, pending.sample)
    yield later_s, Arrived(NOBODY, 0)
    yield later_s, BlockEnded(key, block + 1, 0.01)
    yield later_s, BlockEnded(key._replace(attempt=key.attempt + 1), block, 0.01)
    last = worker._running.last_block if worker._running is not None else block
    yield later_s, BlockFailed(key, last + 1, "no such block")
    yield later_s, BlockEnded(key, last + 1, 0.01, before_s=(0.01,) * (last + 1 - block))
    if worker.running is None:
        yield later_s, BlockEnded(key, block, 0.01)
        yield later_s, BlockFailed(key, block, "none runs")
    else:
        yield later_s, BlockEnded(key, block, nan)
        yield later_s, BlockEnded(key, block, 0.01, before_s=(0.01,))
    yield later_s, TimedOut(Timer(cast("Any", "tea"), key))
    yield later_s, TimedOut(Timer("window", SampleKey(NOBODY, 0, 0)))
    yield later_s, Transferred(NOBODY, 1000, 0.1)
    yield later_s, Transferred(other, 0, 0.1)
    yield later_s, Transferred(other, 1000, inf)
    yield later_s, Left(NOBODY)
    yield later_s, Joined(NOBODY)
    yield later_s, Reprioritised(NOBODY, 2.0)
    yield later_s, Reprioritised(source, nan)
    yield later_s, SequenceEnded(NOBODY, 1)
    own_plan = plan.sources[source]
    yield later_s, Replanned(plan.model_copy(update={"sources": plan.sources | {NOBODY: own_plan}}))
    (route, *_) = own_plan.routes
    for wrong in (
        route.model_copy(update={"model": NOBODY}),
        route.model_copy(update={"stages": (route.stages[0].model_copy(update={"worker": NOBODY}),)}),
    ):
        sources = plan.sources | {source: own_plan.model_copy(update={"routes": (wrong,)})}
        yield later_s, Replanned(plan.model_copy(update={"sources": sources}))
    task = Task(SampleKey(source, 0, 0), model, 0, 1.0, 0.0, 0, route.stages)
    yield later_s, Received(NOBODY, StatusMessage(Status(backlog_s=((1.0, 5.0),))))
    yield later_s, Received(NOBODY, TaskMessage(task))
    for message in (
        ResultMessage(SampleKey(NOBODY, 0, 0), BLOCKS),
        FailureMessage(SampleKey(NOBODY, 0, 0), "broken", (worker.name, other)),
        TaskMessage(replace(task, model=NOBODY)),
        TaskMessage(replace(task, next_block=BLOCKS + 1)),
        TaskMessage(replace(task, operating_point=9)),
        TaskMessage(replace(task, stages=(route.stages[0].model_copy(update={"worker": NOBODY}),))),
        TaskMessage(task, BLOCKS),
        TaskMessage(replace(task, state_at=(route.stages[0].model_copy(update={"worker": NOBODY}),))),
        RequestMessage(replace(task, next_block=2), 1),
        StateRequest(key, NOBODY, 0, 0, 1, 1.0),
        StateRequest(key, model, 0, BLOCKS, 1, 1.0),
        StateMessage(key, model, BLOCKS, 1),
        ForgetMessage(NOBODY, 1),
    ):
        yield later_s, Received(other, message)


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=5)
@given(case=cases(), seed=st.integers(0, 5), data=st.data())
def test_a_worker_that_refused_events_is_as_one_that_never_saw_them(
    policy: str, case: tuple[Instance, PlanSpec], seed: int, data: st.DataObject
) -> None:
    instance, plan = case
    for name, steps in logs(case, policy, seed):
        worker = Worker(name, instance, make_policy(policy, instance, plan), PATIENCE)
        disturbed = data.draw(st.sets(st.integers(0, len(steps) - 1), min_size=1, max_size=4))
        for number, step in enumerate(steps):
            if number in disturbed:
                before = snapshot(worker)
                for now_s, event in misfits(worker, instance, plan):
                    with pytest.raises(ProtocolError):
                        worker.step(now_s, event)
                assert snapshot(worker) == before
            assert worker.step(step.now_s, step.event) == step.effects


@settings(max_examples=1)
@given(case=cases())
def test_every_kind_of_event_is_looked_at(case: tuple[Instance, PlanSpec]) -> None:
    instance, plan = case
    worker = Worker(instance.workers[0], instance, make_policy("planned", instance, plan))
    assert set(worker._gate._checks) == set(worker._handlers) == set(get_args(Event))
    assert {type(event) for _, event in misfits(worker, instance, plan)} >= set(get_args(Event))
