"""The hand-shake of PA-MDI, rule by rule, and two real workers that talk until a task is done."""

from __future__ import annotations

from heapq import heappop, heappush
from itertools import count

import pytest

from planner.plan.types import Stage
from planner.policy.pa_mdi import PaMdi
from planner.policy.types import SampleKey, Task
from planner.worker.events import (
    AnswerMessage,
    Arrived,
    BlockEnded,
    Complete,
    Effect,
    Event,
    Left,
    Received,
    RequestMessage,
    RunBlock,
    Send,
    SetTimer,
    TaskMessage,
    Tell,
    TimedOut,
    Timer,
)
from planner.worker.patience import Patience
from planner.worker.worker import Worker
from tests.instances import make_instance, make_profile

BLOCK_S = 0.01
LATENCY_S = 0.001
INSTANCE = make_instance(
    profiles=[make_profile(block_s=[BLOCK_S] * 2, cut_bytes=[1000, 500, 40])],
    workers={"slow": 1.0, "fast": 4.0, "other": 2.0},
    sources={
        "urgent": {"rate_per_s": 5.0, "priority": 8.0},
        "casual": {"rate_per_s": 5.0, "priority": 1.0},
    },
)
STAGES = (Stage(worker="slow", first_block=0, last_block=1),)


def worker(name: str) -> Worker:
    return Worker(name, INSTANCE, PaMdi(), Patience(first_s=float("inf")))


def key(source: str, sample: int = 0) -> SampleKey:
    return SampleKey(source, sample, 0)


def request(source: str, priority: float, created_s: float = 0.0, sample: int = 0) -> RequestMessage:
    return RequestMessage(Task(key(source, sample), "m", 0, priority, created_s, 0, STAGES), 0)


def answers(effects: list[Effect]) -> dict[tuple[str, str], float | None]:
    """Whom was answered what, by asker and source."""
    return {
        (effect.to, effect.message.key.source): effect.message.completion_s
        for effect in effects
        if isinstance(effect, Tell) and isinstance(effect.message, AnswerMessage)
    }


def test_who_holds_a_task_asks_all_neighbours_and_waits() -> None:
    effects = worker("slow").step(0.0, Arrived("urgent", 0))
    asked = [effect.to for effect in effects if isinstance(effect, Tell) and isinstance(effect.message, RequestMessage)]
    assert asked == ["fast", "other"]
    assert not any(isinstance(effect, RunBlock) for effect in effects)
    (timer,) = (effect for effect in effects if isinstance(effect, SetTimer))
    assert timer.timer == Timer("answers", key("urgent"))
    assert timer.at_s == pytest.approx(2 * LATENCY_S + 4 * LATENCY_S)  # a window and two round trips


def asked_by(name: str, *, size_bytes: int = 500, result_bytes: int = 40) -> list[str]:
    """Whom a worker asks for the last block of a sample that is at home at "slow"."""
    profile = make_profile(block_s=[BLOCK_S] * 2, cut_bytes=[1000, size_bytes, result_bytes])
    instance = make_instance(profiles=[profile], workers={"slow": 1.0, "fast": 4.0, "other": 2.0})
    task = Task(key("camera"), "m", 0, 1.0, 0.0, 1, STAGES)
    effects = Worker(name, instance, PaMdi()).step(0.0, Received("slow", TaskMessage(task)))
    return [effect.to for effect in effects if isinstance(effect, Tell)]


def test_only_those_are_asked_that_would_be_sooner_if_they_were_idle() -> None:
    assert asked_by("fast") == []
    assert asked_by("other") == ["fast"]
    assert asked_by("other", size_bytes=100_000) == []


def test_the_way_home_of_the_result_counts_with_the_last_block() -> None:
    assert asked_by("slow", result_bytes=1000) == ["fast", "other"]
    assert asked_by("slow", result_bytes=200_000) == []
    assert asked_by("other", result_bytes=200_000) == ["slow", "fast"]  # at home there is no way home


def test_the_task_goes_where_transfer_and_completion_are_least() -> None:
    holder = worker("slow")
    holder.step(0.0, Arrived("urgent", 0))
    assert holder.step(0.002, Received("other", AnswerMessage(key("urgent"), BLOCK_S / 2, 0))) == []
    effects = holder.step(0.003, Received("fast", AnswerMessage(key("urgent"), BLOCK_S / 4, 0)))
    (send,) = (effect for effect in effects if isinstance(effect, Send))
    assert send.to == "fast"
    assert isinstance(send.message, TaskMessage)
    assert (send.message.key, send.message.last_block) == (key("urgent"), 0)


@pytest.mark.parametrize("refusal", [None, 10.0])
def test_without_a_better_offer_it_is_computed_here(refusal: float | None) -> None:
    holder = worker("slow")
    holder.step(0.0, Arrived("urgent", 0))
    holder.step(0.002, Received("other", AnswerMessage(key("urgent"), refusal, 0)))
    effects = holder.step(0.003, Received("fast", AnswerMessage(key("urgent"), None, 0)))
    assert RunBlock(key("urgent"), "m", 0, begins_stage=True) in effects


def test_what_does_not_answer_in_time_or_has_left_is_not_waited_for() -> None:
    late, left = worker("slow"), worker("slow")
    for holder in (late, left):
        holder.step(0.0, Arrived("urgent", 0))
        holder.step(0.002, Received("other", AnswerMessage(key("urgent"), None, 0)))
    run = RunBlock(key("urgent"), "m", 0, begins_stage=True)
    assert run in late.step(0.006, TimedOut(Timer("answers", key("urgent"))))
    assert run in left.step(0.003, Left("fast"))
    assert late.step(0.007, Received("fast", AnswerMessage(key("urgent"), 0.0, 0))) == []


def test_late_answers_and_timers_of_earlier_blocks_say_nothing_of_later_ones() -> None:
    holder = worker("slow")
    holder.step(0.0, Arrived("urgent", 0))
    assert holder.step(0.006, TimedOut(Timer("answers", key("urgent"))))  # computed here, for nobody answered
    effects = holder.step(0.007, BlockEnded(key("urgent"), 0, BLOCK_S))
    (timer,) = (effect for effect in effects if isinstance(effect, SetTimer))
    assert holder.step(0.008, Received("fast", AnswerMessage(key("urgent"), 0.0, 0))) == []
    assert holder.step(0.009, Received("other", AnswerMessage(key("urgent"), None, 1))) == []
    assert holder.step(0.010, TimedOut(timer.timer)) == []  # set for the first block
    effects = holder.step(timer.at_s, TimedOut(timer.timer))
    assert RunBlock(key("urgent"), "m", 1, begins_stage=True) in effects


def test_the_highest_priority_is_cleared_and_the_others_are_refused() -> None:
    asked = worker("fast")
    (window,) = asked.step(0.0, Received("slow", request("casual", 1.0)))
    assert isinstance(window, SetTimer)
    assert window.timer == Timer("window", key("casual"))
    assert window.at_s == pytest.approx(2 * LATENCY_S)
    assert asked.step(0.001, Received("other", request("urgent", 8.0))) == []
    effects = asked.step(0.002, TimedOut(window.timer))
    assert answers(effects) == {("slow", "casual"): None, ("other", "urgent"): pytest.approx(BLOCK_S / 4)}


def test_among_equals_the_oldest_is_cleared() -> None:
    asked = worker("fast")
    asked.step(1.0, Received("slow", request("urgent", 8.0, created_s=0.9)))
    asked.step(1.0, Received("other", request("urgent", 8.0, created_s=0.5, sample=1)))
    told = answers(asked.step(1.002, TimedOut(Timer("window", key("urgent")))))
    assert told[("slow", "urgent")] is None
    assert told[("other", "urgent")] is not None


def test_a_clearance_reserves_until_the_task_comes_or_its_time_is_over() -> None:
    for ending in ("comes", "is over"):
        asked = worker("fast")
        asked.step(0.0, Received("slow", request("urgent", 8.0)))
        effects = asked.step(0.002, TimedOut(Timer("window", key("urgent"))))
        (reservation,) = (effect for effect in effects if isinstance(effect, SetTimer))
        asked.step(0.003, Received("other", request("urgent", 8.0, sample=1)))
        refused = asked.step(0.005, TimedOut(Timer("window", key("urgent", 1))))
        assert answers(refused) == {("other", "urgent"): None}
        event: Event = TimedOut(reservation.timer)
        if ending == "comes":
            event = Received("slow", TaskMessage(request("urgent", 8.0).task, 0))
        asked.step(0.008 if ending == "comes" else reservation.at_s, event)
        asked.step(0.009, Received("other", request("urgent", 8.0, sample=2)))
        cleared = answers(asked.step(0.011, TimedOut(Timer("window", key("urgent", 2)))))
        assert cleared[("other", "urgent")] is not None


def test_nothing_is_cleared_while_more_urgent_work_waits() -> None:
    asked = worker("fast")
    for sample in range(2):
        asked.step(0.0, Received("slow", TaskMessage(request("urgent", 8.0, sample=sample).task, 0)))
    asked.step(0.001, Received("slow", request("casual", 1.0)))
    assert answers(asked.step(0.003, TimedOut(Timer("window", key("casual"))))) == {("slow", "casual"): None}


def test_real_workers_talk_until_the_sample_is_done() -> None:
    """Every effect becomes the event it asks for, in order of time, and the sample completes on the fast worker."""
    workers = {name: worker(name) for name in INSTANCE.workers}
    agenda: list[tuple[float, int, str, Event]] = [(0.0, 0, "slow", Arrived("urgent", 0))]
    order = count(1)
    ran: list[tuple[str, int]] = []
    done = False
    while agenda:
        now_s, _, name, event = heappop(agenda)
        for effect in workers[name].step(now_s, event):
            if isinstance(effect, Tell | Send):
                heappush(agenda, (now_s + LATENCY_S, next(order), effect.to, Received(name, effect.message)))
            elif isinstance(effect, RunBlock):
                ran.append((name, effect.block))
                end = BlockEnded(effect.key, effect.block, BLOCK_S)
                heappush(agenda, (now_s + BLOCK_S, next(order), name, end))
            elif isinstance(effect, SetTimer):
                heappush(agenda, (effect.at_s, next(order), name, TimedOut(effect.timer)))
            done = done or isinstance(effect, Complete)
    assert done
    assert ran == [("fast", 0), ("fast", 1)]
