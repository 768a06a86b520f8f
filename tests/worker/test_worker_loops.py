"""The next run of a sequence, begun by the worker of the last block: when it is, and what home makes of it."""

from __future__ import annotations

from typing import Any

import pytest

from planner.plan.types import Route, Stage
from planner.policy.registry import make_policy
from planner.policy.types import RUN_STRIDE, Decoding, Progress, SampleKey, Task
from planner.profiling.sequences import TOKEN_BYTES
from planner.worker.events import (
    Arrived,
    BlockEnded,
    Complete,
    Fail,
    FailureMessage,
    FeedBack,
    ForgetMessage,
    Joined,
    Left,
    Received,
    Replanned,
    ResultMessage,
    RunBlock,
    Send,
    TaskMessage,
)
from planner.worker.worker import Worker
from tests.simulation.test_simulation_loops import instance, plan

KNOWN = instance(1.0, 5)
PLAN = plan(KNOWN, 2, "last")
AGAIN = PLAN.sources["a"].routes[0].stages
DECODING = Decoding(number=0, runs=0, context=40, left=3, stop=(7,))
FIRST = SampleKey("a", RUN_STRIDE, 0)
SECOND = SampleKey("a", 2 * RUN_STRIDE, 0)


def worker(name: str, loop: Any = "last") -> Worker:
    return Worker(name, KNOWN, make_policy("planned", KNOWN, plan(KNOWN, 2, loop)))


def at_last(own: Worker, *, decoding: Decoding = DECODING, again: tuple[Stage, ...] = AGAIN) -> None:
    """Let the last worker begin the last blocks of a run."""
    task = Task(FIRST, "m", 0, 1.0, 0.0, 1, AGAIN[1:], sequence=9, decoding=decoding, again=again)
    (run,) = own.step(0.1, Received("first", TaskMessage(task)))
    assert isinstance(run, RunBlock)
    assert run.decoding == decoding
    own.step(0.2, BlockEnded(FIRST, 1, 0.001))


def ended(own: Worker, token: int | None) -> tuple[list[FeedBack], ResultMessage, list[Task]]:
    effects = own.step(0.3, BlockEnded(FIRST, 2, 0.001, token=token))
    sends = [effect for effect in effects if isinstance(effect, Send)]
    (result,) = (it.message for it in sends if isinstance(it.message, ResultMessage))
    assert {it.size_bytes for it in sends if it.message is result} == {TOKEN_BYTES}
    tasks = [it.message.task for it in sends if isinstance(it.message, TaskMessage)]
    return [effect for effect in effects if isinstance(effect, FeedBack)], result, tasks


@pytest.mark.parametrize("token", [5, None])
def test_the_last_worker_begins_the_next_run(token: int | None) -> None:
    own = worker("last")
    at_last(own)
    (fed_back,), result, (task,) = ended(own, token)
    assert (result.key, result.goes_on, result.token) == (FIRST, True, True)
    assert (fed_back.key, fed_back.of, fed_back.sequence) == (SECOND, FIRST, 9)
    assert fed_back.decoding == task.decoding == Decoding(1, 1, 41, 2, stop=(7,))
    assert (task.key, task.next_block, task.stages, task.again) == (SECOND, 0, AGAIN, AGAIN)


@pytest.mark.parametrize("why", ["stop", "length", "home", "left", "forgotten", "replanned", "elsewhere"])
def test_it_leaves_the_next_run_to_home(why: str) -> None:
    own = worker("last")
    at_last(
        own,
        decoding=DECODING._replace(left=0) if why == "length" else DECODING,
        again=() if why == "home" else AGAIN,
    )
    if why == "left":
        own.step(0.25, Left("first"))
    elif why == "forgotten":
        own.step(0.25, Received("home", ForgetMessage("a", 9)))
    elif why == "replanned":
        own.step(0.25, Replanned(plan(KNOWN, 3, "last")))
    elif why == "elsewhere":
        own.step(0.25, Replanned(plan(KNOWN, 2, "home")))
    fed_back, result, tasks = ended(own, 7 if why == "stop" else 5)
    assert (fed_back, result.goes_on, tasks) == ([], False, [])


def test_a_plan_that_keeps_the_route_lets_it_go_on() -> None:
    own = worker("last")
    at_last(own)
    own.step(0.25, Replanned(PLAN))
    assert ended(own, 5)[1].goes_on


def at_home(loop: Any = "last") -> Worker:
    own = worker("home", loop)
    arrived = Arrived("a", FIRST.sample, sequence=9, decoding=DECODING, progress=Progress(0, 40, 3))
    (task,) = (it.message.task for it in own.step(0.0, arrived) if isinstance(it, Send))  # type: ignore[union-attr]
    assert task.again == (AGAIN if loop == "last" else ())
    return own


def result(key: SampleKey = FIRST, *, goes_on: bool = True) -> Received:
    return Received("last", ResultMessage(key, 3, None, token=True, goes_on=goes_on))


def test_home_has_the_next_run_as_one_in_flight() -> None:
    own = at_home()
    effects = own.step(0.4, result())
    complete, *_ = effects
    assert isinstance(complete, Complete)
    assert (complete.key, complete.goes_on) == (FIRST, True)
    assert own.pending == {SECOND: 0.4}
    fails = [effect for effect in own.step(0.5, Left("first")) if isinstance(effect, Fail)]
    assert [fail.key for fail in fails] == [SECOND._replace(attempt=1)]  # the sequence is to start again, elsewhere
    assert own.pending == {}
    assert at_home("home").pending == {FIRST: 0.0}


def test_home_recovers_a_run_of_which_it_hears_too_late() -> None:
    own = at_home()
    own.step(0.1, Left("first"))
    own.step(0.2, Joined("first"))
    own.step(0.3, Left("first"))
    effects = own.step(0.4, result())
    assert own.pending == {SECOND._replace(attempt=1): 0.4}
    assert any(isinstance(effect, Complete) and effect.goes_on for effect in effects)


@pytest.mark.parametrize("broken", [None, ("last", "first")])
def test_a_failure_that_comes_before_the_run_is_known_counts(broken: tuple[str, str] | None) -> None:
    own = at_home()
    assert own.step(0.3, Received("first", FailureMessage(SECOND, "no state", broken))) == []
    effects = own.step(0.4, result())
    fails = [effect for effect in effects if isinstance(effect, Fail)]
    if broken is None:
        assert [(fail.key, fail.reason) for fail in fails] == [(SECOND, "no state")]
        assert own.pending == {}
    else:
        assert fails == []
        assert own.pending == {SECOND._replace(attempt=1): 0.4}
    assert own.step(0.5, result(SECOND, goes_on=False))[-1].kind in {"complete", "discard"}


def test_another_plan_sends_the_next_run_from_home_another_way() -> None:
    own = at_home()
    own.step(0.2, Replanned(plan(KNOWN, 3, "last")))
    own.step(0.4, result(goes_on=False))
    following = Arrived("a", SECOND.sample, sequence=9, decoding=DECODING.after(), progress=Progress(40, 1, 2))
    sent = [it.message.task for it in own.step(0.5, following) if isinstance(it, Send)]  # type: ignore[union-attr]
    route: Route = plan(KNOWN, 3, "last").sources["a"].routes[0]
    assert [task.again for task in sent] in ([route.stages], [AGAIN], [])
