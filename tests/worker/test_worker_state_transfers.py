"""The state of a sequence comes from the workers of its old route, or does not; its task never waits for ever."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from planner.plan.types import Stage
from planner.policy.registry import make_policy
from planner.policy.types import Progress, SampleKey
from planner.worker.event_checks import ProtocolError
from planner.worker.events import (
    Arrived,
    BlockEnded,
    Complete,
    Effect,
    Event,
    Fail,
    Forget,
    ForgetMessage,
    Left,
    Received,
    Replanned,
    ResultMessage,
    RunBlock,
    Send,
    SequenceEnded,
    SetTimer,
    StateMessage,
    StateRequest,
    TaskMessage,
    Tell,
    TimedOut,
)
from planner.worker.state_transfers import WAIT_S
from planner.worker.stickiness import SequenceRoutes
from planner.worker.worker import Worker
from tests.worker.test_worker_stickiness import SHARED, _instance, _plan

OLD, NEW = [("a", 0, 0), ("b", 1, 2)], [("a", 0, 0), ("c", 1, 2)]
BOTH = tuple(Stage(worker=worker, first_block=first, last_block=last) for worker, first, last in OLD)


def worker(name: str, way: str = "move") -> Worker:
    instance = _instance()
    policy = instance.scenario.policy.model_copy(update={"sequences": way})
    instance = instance.with_scenario(policy=policy)
    return Worker(name, instance, make_policy("planned", instance, _plan(OLD)))


def of(effects: list[Effect], kind: type) -> list[Any]:
    return [effect for effect in effects if isinstance(effect, kind)]


def waiting() -> tuple[Worker, TaskMessage, list[Effect]]:
    """Return worker c, to which a task came whose state is at b; and what c did."""
    home = worker("a")
    home.step(0.0, Arrived("urgent", 0, sequence=7))
    home.step(0.1, BlockEnded(SampleKey("urgent", 0, 0), 0, 0.01))
    home.step(0.2, Received("b", _result(0)))
    home.step(0.3, Replanned(_plan(NEW), {"b": 9.0}))
    home.step(0.4, Arrived("urgent", 1, sequence=7, progress=Progress(4, 1, 10)))
    (sent,) = of(home.step(0.5, BlockEnded(SampleKey("urgent", 1, 0), 0, 0.01)), Send)
    assert (sent.to, sent.message.task.state_at) == ("c", BOTH)
    other = worker("c")
    return other, sent.message, other.step(0.6, Received("a", sent.message))


def _result(sample: int) -> ResultMessage:
    return ResultMessage(SampleKey("urgent", sample, 0), 3)


def answer(message: TaskMessage, **changed: Any) -> StateMessage:
    return StateMessage(**{"key": message.key, "model": "m", "block": 1, "sequence": 7, **changed})


def test_a_task_waits_for_the_state_of_all_its_blocks() -> None:
    other, message, effects = waiting()
    (asked,) = of(effects, Tell)
    assert asked == Tell("b", StateRequest(message.key, "m", 1, 2, 7, 8.0))
    assert not of(effects, RunBlock)
    assert not of(other.step(0.7, Received("b", answer(message, block=2))), RunBlock)
    (begun,) = of(other.step(0.8, Received("b", answer(message))), RunBlock)
    assert (begun.key, begun.block) == (message.key, 1)


def test_a_worker_sends_the_state_of_each_block_that_it_is_asked_for() -> None:
    request = StateRequest(SampleKey("urgent", 1, 0), "m", 1, 2, 7, 8.0)
    sent = of(worker("b").step(0.0, Received("c", request)), Send)
    assert [(each.to, each.message.block, each.cut, each.priority) for each in sent] == [
        ("c", 1, 1, 8.0),
        ("c", 2, 2, 8.0),
    ]


@pytest.mark.parametrize("ends", ["left", "time is up"])
def test_a_task_does_without_state_that_does_not_come(ends: str) -> None:
    other, message, effects = waiting()
    (timer,) = [each for each in of(effects, SetTimer) if each.timer.purpose == "state"]
    assert timer.at_s == pytest.approx(0.6 + WAIT_S)
    event: Event = Left("b") if ends == "left" else TimedOut(timer.timer)
    (begun,) = of(other.step(timer.at_s, event), RunBlock)
    assert begun.key == message.key
    late = Received("b", answer(message))
    assert not other.expects("b", answer(message))
    assert not of(other.step(timer.at_s + 1, late), RunBlock)


@pytest.mark.parametrize("changed", [{"sequence": 8}, {"key": SampleKey("urgent", 2, 0)}, {"block": 0}])
def test_only_what_was_asked_for_is_taken(changed: dict[str, Any]) -> None:
    other, message, _ = waiting()
    assert other.expects("b", answer(message))
    assert not other.expects("a", answer(message))
    assert not other.expects("b", answer(message, **changed))
    other.step(0.7, Received("b", answer(message, **changed)))
    assert other.expects("b", answer(message))


@pytest.mark.parametrize(
    "message",
    [
        StateMessage(SampleKey("urgent", 1, 0), "m", 3, 7),
        StateMessage(SampleKey("urgent", 1, 0), "other", 0, 7),
        StateMessage(SampleKey("nobody", 1, 0), "m", 0, 7),
        StateRequest(SampleKey("urgent", 1, 0), "m", 2, 1, 7, 1.0),
        StateRequest(SampleKey("urgent", 1, 0), "m", 0, 3, 7, 1.0),
        StateRequest(SampleKey("urgent", 1, 0), "m", 0, 1, 7, float("nan")),
    ],
)
def test_what_fits_no_model_changes_nothing(message: StateMessage | StateRequest) -> None:
    known = worker("b")
    with pytest.raises(ProtocolError):
        known.step(0.0, Received("c", message))
    assert known.queued == 0


def test_a_sequence_starts_again_at_once_where_its_state_has_left() -> None:
    home = worker("a")
    home.step(0.0, Arrived("urgent", 0, sequence=7))
    home.step(0.1, BlockEnded(SampleKey("urgent", 0, 0), 0, 0.01))
    home.step(0.2, Received("b", _result(0)))
    home.step(0.3, Left("b"))
    home.step(0.3, Replanned(_plan(NEW)))
    effects = home.step(0.4, Arrived("urgent", 1, sequence=7, progress=Progress(4, 1, 10)))
    assert len(of(effects, Fail)) == 1
    assert not of(effects, RunBlock)
    assert of(home.step(0.5, Arrived("urgent", 2, sequence=8)), RunBlock)


def test_state_is_fetched_once() -> None:
    home = worker("a")
    plans = [_plan(NEW), SHARED, _plan(NEW)]
    home.step(0.0, Arrived("urgent", 0, sequence=7))
    home.step(0.1, BlockEnded(SampleKey("urgent", 0, 0), 0, 0.01))
    home.step(0.2, Received("b", _result(0)))
    home.step(0.3, Replanned(plans[0]))
    fetched = []
    for sample in (1, 2, 3):
        now_s = float(sample)
        home.step(now_s, Arrived("urgent", sample, sequence=7, progress=Progress(4, 1, 10)))
        (sent,) = of(home.step(now_s + 0.1, BlockEnded(SampleKey("urgent", sample, 0), 0, 0.01)), Send)
        fetched.append(sent.message.task.state_at)
        assert of(home.step(now_s + 0.2, Received("c", _result(sample))), Complete)
    assert fetched == [BOTH, (), ()]


def test_a_sequence_that_has_ended_is_forgotten_where_its_tasks_were_sent() -> None:
    home, other = worker("a"), worker("b")
    home.step(0.0, Arrived("urgent", 0, sequence=7))
    (sent,) = of(home.step(0.1, BlockEnded(SampleKey("urgent", 0, 0), 0, 0.01)), Send)
    other.step(0.2, Received("a", sent.message))
    home.step(0.3, Received("b", _result(0)))
    effects = home.step(0.4, SequenceEnded("urgent", 7))
    assert effects == [Forget(7), Tell("b", ForgetMessage("urgent", 7))]
    assert other.step(0.5, Received("a", ForgetMessage("urgent", 7))) == [Forget(7)]
    assert home.step(0.6, SequenceEnded("urgent", 7)) == [Forget(7)]
    assert home._stickiness.route("urgent", 7) is None
    assert home._stickiness.last_route("urgent", 7) is None


def test_a_later_attempt_waits_for_what_the_earlier_one_has_asked_for() -> None:
    """A large state over a slow link may take longer than its home waits for a result."""
    other, message, _ = waiting()
    again = replace(message, task=replace(message.task, key=SampleKey("urgent", 1, 1)))
    assert other.step(0.7, Received("a", again)) == []
    other.step(0.8, Received("b", answer(message, block=2)))
    (begun,) = of(other.step(0.9, Received("b", answer(message))), RunBlock)
    assert begun.key == SampleKey("urgent", 1, 1)


def test_a_sequence_that_another_run_began_is_forgotten_where_its_state_is() -> None:
    instance, routes = _instance(), SequenceRoutes()
    first, later = (
        Worker("a", instance, make_policy("planned", instance, plan), routes=routes)
        for plan in (_plan(OLD), _plan(NEW))
    )
    first.step(0.0, Arrived("urgent", 0, sequence=7))
    assert later.step(0.1, SequenceEnded("urgent", 7)) == [Forget(7), Tell("b", ForgetMessage("urgent", 7))]
