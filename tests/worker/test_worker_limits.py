"""Samples with a priority and a limit of time of their own, at one worker."""

from __future__ import annotations

from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.plan.types import PlanSpec, Route, SourcePlan, Stage
from planner.policy.registry import make_policy
from planner.policy.types import SampleKey, Task
from planner.worker.event_checks import ProtocolError
from planner.worker.events import (
    Arrived,
    BlockEnded,
    Effect,
    Fail,
    Received,
    RunBlock,
    Send,
    SetTimer,
    TaskMessage,
    TimedOut,
)
from planner.worker.worker import Worker
from tests.instances import make_instance, make_profile

BLOCKS = 3
BLOCK_S = 0.01
INSTANCE = make_instance(
    profiles=[make_profile(block_s=[BLOCK_S] * BLOCKS)],
    workers={"home": 1.0, "far": 1.0},
    sources={"gate": {"rate_per_s": 5.0, "priority": 8.0}, "yard": {"rate_per_s": 5.0, "priority": 1.0}},
)


def plan(worker: str) -> PlanSpec:
    route = Route(model="m", stages=(Stage(worker=worker, first_block=0, last_block=BLOCKS - 1),))
    own = SourcePlan(accuracy=1.0, delay_s=0.1, surrogate_delay_s=0.1, routes=(route,))
    return PlanSpec(
        status="optimal", method="test", goal="delay", objective=1.0, bound=1.0, gap=0.0, solve_s=0.0,
        provenance="measured", sources={"gate": own, "yard": own}, workers={}, networks={},
    )  # fmt: skip


def worker(name: str = "home", at: str = "home", **limits: int) -> Worker:
    scenario = INSTANCE.scenario
    sources = {key: spec.model_copy(update=limits) for key, spec in scenario.sources.items()}
    instance = INSTANCE.model_copy(update={"scenario": scenario.model_copy(update={"sources": sources})})
    return Worker(name, instance, make_policy("planned", instance, plan(at)))


def of_kind(effects: list[Effect], kind: type) -> list[Effect]:
    return [effect for effect in effects if isinstance(effect, kind)]


def runs(effects: list[Effect]) -> list[tuple[str, int]]:
    return [(effect.key.source, effect.key.sample) for effect in effects if isinstance(effect, RunBlock)]


def end_block(own: Worker, now_s: float, block: int) -> list[Effect]:
    assert own.running is not None
    return own.step(now_s, BlockEnded(own.running, block, BLOCK_S))


def test_a_sample_with_another_priority_is_served_as_one_of_that_source() -> None:
    own = worker()
    assert runs(own.step(0.0, Arrived("yard", 0))) == [("yard", 0)]
    own.step(0.001, Arrived("yard", 1))
    own.step(0.002, Arrived("yard", 2, priority=8.0))
    assert runs(end_block(own, 0.01, 0)) == [("yard", 2)]  # it overtakes between two blocks


def test_a_sample_of_a_low_priority_waits_for_its_own_source() -> None:
    own = worker()
    own.step(0.0, Arrived("gate", 0, priority=1.0))
    own.step(0.001, Arrived("gate", 1))
    assert runs(end_block(own, 0.01, 0)) == [("gate", 1)]


def test_urgent_samples_leave_the_reservoir_first_and_equal_ones_in_order() -> None:
    own = worker(in_flight=1)
    own.step(0.0, Arrived("yard", 0))
    for sample, priority in ((1, None), (2, 8.0), (3, 1.0), (4, 8.0)):
        own.step(0.001 * sample, Arrived("yard", sample, priority=priority))
    order, now_s = [], 0.01
    while own.running is not None:
        order.append(own.running.sample)
        for block in range(BLOCKS):
            end_block(own, now_s, block)
            now_s += 0.01
    assert order == [0, 2, 4, 1, 3]


def test_a_task_keeps_priority_and_limit_on_its_way() -> None:
    own = worker(at="far")
    (sent,) = of_kind(own.step(1.0, Arrived("yard", 0, priority=8.0, within_s=0.5)), Send)
    assert isinstance(sent, Send)
    assert isinstance(sent.message, TaskMessage)
    assert (sent.priority, sent.message.task.priority, sent.message.task.latest_s) == (8.0, 8.0, 1.5)
    assert sent.message.task.at(1, ()).latest_s == 1.5


@given(after_s=st.floats(0, 0.1))
def test_no_block_starts_after_its_time(after_s: float) -> None:
    own = worker()
    own.step(0.0, Arrived("gate", 0))
    effects = own.step(0.001, Arrived("yard", 0, within_s=0.02))
    (timer,) = (effect for effect in effects if isinstance(effect, SetTimer) and effect.timer.purpose == "latest")
    assert timer.at_s == pytest.approx(0.021)
    end_s = max(timer.at_s, 0.01) + after_s
    (dropped,) = of_kind(own.step(end_s, TimedOut(timer.timer)), Fail)
    assert isinstance(dropped, Fail)
    assert dropped.dropped
    assert "is up" in dropped.reason
    for block in range(BLOCKS):
        assert ("yard", 0) not in runs(end_block(own, end_s + block, block))
    assert own.pending == {}


def test_a_running_sample_ends_at_its_next_block() -> None:
    own = worker()
    own.step(0.0, Arrived("yard", 0, within_s=0.015))
    assert runs(end_block(own, 0.01, 0)) == [("yard", 0)]
    effects = end_block(own, 0.02, 1)
    assert (runs(effects), len(of_kind(effects, Fail))) == ([], 1)


def test_a_worker_drops_a_task_whose_time_is_up_and_tells_its_home() -> None:
    far = worker("far", at="far")
    task = Task(SampleKey("yard", 0, 0), "m", 0, 1.0, 0.0, 0, plan("far").sources["yard"].routes[0].stages, 0.5)
    effects = far.step(0.6, Received("home", TaskMessage(task)))
    (sent,) = of_kind(effects, Send)
    assert isinstance(sent, Send)
    assert (runs(effects), sent.to, sent.message.kind) == ([], "home", "failure")


@pytest.mark.parametrize("event", [Arrived("gate", 0, priority=nan), Arrived("gate", 0, within_s=inf)])
def test_limits_that_are_no_numbers_are_refused(event: Arrived) -> None:
    with pytest.raises(ProtocolError, match="a sample of priority"):
        worker().step(0.0, event)
