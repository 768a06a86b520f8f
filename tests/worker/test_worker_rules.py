"""One test for each rule that the worker's module states."""

from __future__ import annotations

from math import inf

import pytest

from planner.plan.types import PlanSpec, Route, SourcePlan, Stage, WorkerUse
from planner.policy.registry import make_policy
from planner.policy.types import SampleKey
from planner.scenario.instance import Instance
from planner.trace.records import Origin
from planner.worker.event_checks import ProtocolError
from planner.worker.events import (
    Arrived,
    BlockEnded,
    BlockFailed,
    Complete,
    Discard,
    Effect,
    Fail,
    FailureMessage,
    Joined,
    Left,
    Received,
    ResultMessage,
    RunBlock,
    Send,
    SetTimer,
    TaskMessage,
    TimedOut,
    Timer,
)
from planner.worker.patience import Patience
from planner.worker.worker import Worker
from tests.instances import make_instance, make_profile

BLOCKS = 4
CUTS = [1000, 800, 600, 400, 40]


def instance() -> Instance:
    return make_instance(
        profiles=[make_profile(block_s=[0.01] * BLOCKS, cut_bytes=CUTS)],
        sources={
            "urgent": {"rate_per_s": 5.0, "priority": 8.0},
            "other": {"rate_per_s": 5.0, "priority": 1.0},
        },
    )


def plan(*stages: tuple[str, int, int]) -> PlanSpec:
    route = Route(model="m", stages=tuple(Stage(worker=w, first_block=a, last_block=b) for w, a, b in stages))
    own = SourcePlan(accuracy=1.0, delay_s=0.1, surrogate_delay_s=0.1, routes=(route,))
    return PlanSpec(
        status="optimal", method="test", goal="delay", objective=1.0, bound=1.0, gap=0.0, solve_s=0.0,
        provenance="measured", sources={"urgent": own, "other": own}, workers={}, networks={},
    )  # fmt: skip


SPLIT = plan(("slow", 0, 1), ("fast", 2, 3))
AT_HOME = plan(("slow", 0, 3))


def worker(
    name: str = "slow", policy: str = "planned", the_plan: PlanSpec = SPLIT, patience: Patience | None = None
) -> Worker:
    return Worker(name, instance(), make_policy(policy, instance(), the_plan), patience)


def only(effects: list[Effect], kind: type) -> Effect:
    found = [effect for effect in effects if isinstance(effect, kind)]
    assert len(found) == 1, effects
    return found[0]


WHOLE = Origin("m")
URGENT, OTHER = SampleKey("urgent", 0, 0), SampleKey("other", 0, 0)


def test_rule_1_one_block_at_a_time() -> None:
    busy = worker()
    run = only(busy.step(0.0, Arrived("other", 0)), RunBlock)
    assert run == RunBlock(OTHER, "m", 0, begins_stage=True, last_block=1)
    assert not [effect for effect in busy.step(0.1, Arrived("urgent", 0)) if isinstance(effect, RunBlock)]
    assert busy.queued == 1


def test_rule_2_a_sample_without_result_starts_again_and_is_given_up_in_the_end() -> None:
    source = worker(patience=Patience(first_s=1.0, max_attempts=3))
    assert only(source.step(0.0, Arrived("other", 0)), SetTimer) == SetTimer(Timer("result", OTHER), 1.0)
    again = only(source.step(1.0, TimedOut(Timer("result", OTHER))), SetTimer)
    assert again == SetTimer(Timer("result", SampleKey("other", 0, 1)), 3.0)
    third = only(source.step(3.0, TimedOut(Timer("result", SampleKey("other", 0, 1)))), SetTimer)
    assert third == SetTimer(Timer("result", SampleKey("other", 0, 2)), 7.0)
    given_up = only(source.step(7.0, TimedOut(Timer("result", SampleKey("other", 0, 2)))), Fail)
    assert isinstance(given_up, Fail)
    assert (given_up.created_s, given_up.reason) == (0.0, "no result after 3 time-outs")


def test_rule_2_an_old_timer_does_nothing() -> None:
    source = worker(patience=Patience(first_s=1.0))
    source.step(0.0, Arrived("other", 0))
    source.step(1.0, TimedOut(Timer("result", OTHER)))
    assert source.step(1.5, TimedOut(Timer("result", OTHER))) == []


def test_rule_3_any_attempt_completes_and_what_follows_is_a_duplicate() -> None:
    source = worker(patience=Patience(first_s=1.0))
    source.step(0.0, Arrived("other", 0))
    source.step(1.0, TimedOut(Timer("result", OTHER)))
    assert source.step(1.2, Received("fast", ResultMessage(OTHER, BLOCKS))) == [Complete(OTHER, 0.0)]
    second = SampleKey("other", 0, 1)
    assert source.step(1.3, Received("fast", ResultMessage(second, BLOCKS))) == [Discard(second)]
    assert source.step(1.4, Received("fast", FailureMessage(second, "too late"))) == []


def test_rule_4_a_task_of_another_worker_is_sent_on_and_forgotten() -> None:
    source = worker(the_plan=plan(("fast", 0, 3)))
    effects = source.step(0.0, Arrived("urgent", 0))
    sent = only(effects, Send)
    assert isinstance(sent, Send)
    assert (sent.to, sent.cut, sent.size_bytes, sent.priority) == ("fast", 0, CUTS[0], 8.0)
    assert isinstance(sent.message, TaskMessage)
    assert effects[-1] == Discard(URGENT)
    assert source.queued == 0


def test_rule_5_the_highest_priority_is_served_first_under_planned_and_the_first_come_under_local() -> None:
    for policy, expected in (("planned", "urgent"), ("local", "other")):
        source = worker(policy=policy, the_plan=AT_HOME)
        source.step(0.0, Arrived("other", 0))
        source.step(0.0, Arrived("other", 1))
        source.step(0.0, Arrived("urgent", 0))
        for block in range(BLOCKS):
            run = only(source.step(1.0 + block, BlockEnded(OTHER, block, 0.01)), RunBlock)
            assert isinstance(run, RunBlock)
            if run.key != OTHER:
                assert run.key.source == expected
                break


def test_rule_6_urgent_work_waits_for_one_block_at_most_and_the_task_goes_on_after_it() -> None:
    source = worker(the_plan=AT_HOME)
    source.step(0.0, Arrived("other", 0))
    source.step(0.0, Arrived("urgent", 0))
    run = only(source.step(0.01, BlockEnded(OTHER, 0, 0.01)), RunBlock)
    assert run == RunBlock(URGENT, "m", 0, begins_stage=True, last_block=BLOCKS - 1)
    for block in range(BLOCKS - 1):
        source.step(0.02, BlockEnded(URGENT, block, 0.01))
    effects = source.step(0.05, BlockEnded(URGENT, BLOCKS - 1, 0.01))
    assert only(effects, Complete) == Complete(URGENT, 0.0, WHOLE)
    assert only(effects, RunBlock) == RunBlock(OTHER, "m", 1, begins_stage=False, last_block=BLOCKS - 1)


def test_rule_6_among_equals_the_task_at_hand_goes_on() -> None:
    source = worker(the_plan=AT_HOME)
    source.step(0.0, Arrived("other", 0))
    source.step(0.0, Arrived("other", 1))
    run = only(source.step(0.01, BlockEnded(OTHER, 0, 0.01)), RunBlock)
    assert run == RunBlock(OTHER, "m", 1, begins_stage=False, last_block=BLOCKS - 1)


def test_rule_6_blocks_that_are_run_without_asking_count_like_others_and_an_urgent_task_comes_after_them() -> None:
    source, asked = worker(the_plan=AT_HOME), worker(the_plan=AT_HOME)
    for each in (source, asked):
        each.step(0.0, Arrived("other", 0))
    for block in range(2):
        asked.step(0.01, BlockEnded(OTHER, block, 0.01))
    for each in (source, asked):
        each.step(0.015, Arrived("urgent", 0))
    effects = source.step(0.03, BlockEnded(OTHER, 2, 0.01, before_s=(0.01, 0.01)))
    assert effects == asked.step(0.03, BlockEnded(OTHER, 2, 0.01))
    assert only(effects, RunBlock) == RunBlock(URGENT, "m", 0, begins_stage=True, last_block=BLOCKS - 1)
    assert source._state.backlog_s == asked._state.backlog_s


def test_rule_6_a_later_block_may_fail_that_was_run_without_asking() -> None:
    source = worker(the_plan=AT_HOME)
    source.step(0.0, Arrived("other", 0))
    effects = source.step(0.1, BlockFailed(OTHER, 2, "out of memory"))
    assert only(effects, Fail) == Fail(OTHER, 0.0, "slow, block 2: out of memory")
    assert not source._state.backlog_s


def test_rule_7_the_rest_is_placed_and_the_result_goes_home() -> None:
    source, helper = worker(), worker("fast")
    source.step(0.0, Arrived("urgent", 0))
    source.step(0.01, BlockEnded(URGENT, 0, 0.01))
    sent = only(source.step(0.02, BlockEnded(URGENT, 1, 0.01)), Send)
    assert isinstance(sent, Send)
    assert (sent.to, sent.cut, sent.size_bytes) == ("fast", 2, CUTS[2])
    run = only(helper.step(0.03, Received("slow", sent.message)), RunBlock)
    assert run == RunBlock(URGENT, "m", 2, begins_stage=True, last_block=3)
    helper.step(0.04, BlockEnded(URGENT, 2, 0.01))
    home = only(helper.step(0.05, BlockEnded(URGENT, 3, 0.01)), Send)
    assert home == Send("slow", ResultMessage(URGENT, BLOCKS, WHOLE), BLOCKS, CUTS[-1], 8.0)
    assert isinstance(home, Send)
    assert source.step(0.06, Received("fast", home.message)) == [Complete(URGENT, 0.0, WHOLE)]


def test_rule_8_samples_on_a_route_through_a_worker_that_left_start_again_without_it() -> None:
    source = worker()
    source.step(0.0, Arrived("urgent", 0))
    source.step(0.01, BlockEnded(URGENT, 0, 0.01))
    source.step(0.02, BlockEnded(URGENT, 1, 0.01))
    second = SampleKey("urgent", 0, 1)
    run = only(source.step(0.5, Left("fast")), RunBlock)
    assert run == RunBlock(second, "m", 0, begins_stage=True, last_block=BLOCKS - 1)
    for block in range(BLOCKS - 1):
        source.step(0.6, BlockEnded(second, block, 0.01))
    assert only(source.step(0.7, BlockEnded(second, BLOCKS - 1, 0.01)), Complete) == Complete(second, 0.0, WHOLE)


def test_a_worker_that_joins_again_is_used_again() -> None:
    source = worker(the_plan=plan(("fast", 0, 3)))
    source.step(0.0, Left("fast"))
    assert only(source.step(0.1, Arrived("urgent", 0)), RunBlock)
    source.step(0.2, Joined("fast"))
    assert only(source.step(0.3, Arrived("urgent", 1)), Send)


def test_a_block_that_raises_fails_its_sample_by_name_and_the_next_is_served() -> None:
    helper = worker("fast")
    source = worker()
    source.step(0.0, Arrived("other", 0))
    source.step(0.0, BlockEnded(OTHER, 0, 0.01))
    sent = only(source.step(0.0, BlockEnded(OTHER, 1, 0.01)), Send)
    assert isinstance(sent, Send)
    helper.step(0.1, Received("slow", sent.message))
    failure = only(helper.step(0.2, BlockFailed(OTHER, 2, "out of memory")), Send)
    assert isinstance(failure, Send)
    failed = only(source.step(0.3, Received("fast", failure.message)), Fail)
    assert failed == Fail(OTHER, 0.0, "fast, block 2: out of memory")
    assert only(helper.step(0.4, Received("slow", sent.message)), RunBlock)


@pytest.mark.parametrize(
    "event",
    [
        BlockEnded(URGENT, 0, 0.01),
        BlockEnded(OTHER, 1, 0.01),
        BlockEnded(OTHER, 0, 0.01, before_s=(0.01,)),
        BlockEnded(OTHER, 2, 0.01, before_s=(0.01, 0.01)),
        BlockFailed(OTHER, 2, "no such block"),
        Arrived("other", 0),
    ],
)
def test_an_event_that_does_not_fit_raises_and_changes_nothing(event: Arrived | BlockEnded | BlockFailed) -> None:
    source = worker()
    source.step(0.0, Arrived("other", 0))
    with pytest.raises(ProtocolError):
        source.step(0.1, event)
    assert only(source.step(0.2, BlockEnded(OTHER, 0, 0.01)), RunBlock) == RunBlock(OTHER, "m", 1, begins_stage=False)


def test_time_does_not_run_backwards_and_samples_arrive_at_home() -> None:
    source = worker()
    source.step(1.0, Arrived("other", 0))
    with pytest.raises(ProtocolError, match="backwards"):
        source.step(0.5, Arrived("other", 1))
    with pytest.raises(ProtocolError, match="not its home"):
        worker("fast").step(0.0, Arrived("other", 0))


def test_rule_2_no_more_samples_are_on_their_way_than_the_source_allows() -> None:
    bounded = instance()
    spec = bounded.scenario.sources["other"].model_copy(update={"in_flight": 2})
    sources = dict(bounded.scenario.sources) | {"other": spec}
    bounded = bounded.model_copy(update={"scenario": bounded.scenario.model_copy(update={"sources": sources})})
    home = Worker("slow", bounded, make_policy("planned", bounded, AT_HOME))
    for sample in range(4):
        home.step(0.0, Arrived("other", sample))
    home.step(0.0, Arrived("urgent", 0))
    assert home.queued == 2  # the second of the bounded source, and the first of the other one
    home.step(0.1, Received("fast", FailureMessage(OTHER, "no memory")))
    assert home.queued == 3
    assert [key.sample for key in home.pending if key.source == "other"] == [1, 2, 3]


def test_rule_2_a_policy_that_names_a_time_is_asked_then() -> None:
    """A batch for which a plan needs 4 s, whose samples take 1 s alone: two leave at once, one more each second."""
    at_home = plan(("slow", 0, 3))
    own = at_home.sources["other"].model_copy(update={"delay_s": 1.0})
    busy = WorkerUse(utilisation=4.0, memory_bytes=0)
    batch = at_home.model_copy(update={"goal": "makespan", "sources": {"other": own}, "workers": {"slow": busy}})
    paced = instance()
    spec = paced.scenario.sources["other"].model_copy(update={"arrivals": "batch", "samples": 4})
    paced = paced.model_copy(update={"scenario": paced.scenario.model_copy(update={"sources": {"other": spec}})})
    home = Worker("slow", paced, make_policy("adaptive", paced, batch), Patience(first_s=inf))
    asked = [effect for k in range(4) for effect in home.step(0.0, Arrived("other", k)) if isinstance(effect, SetTimer)]
    next_one = Timer("route", SampleKey("other", 2, 0))
    assert asked == [SetTimer(next_one, 1.0)]
    assert home.queued + 1 == 2
    asked = [effect for effect in home.step(1.0, TimedOut(next_one)) if isinstance(effect, SetTimer)]
    assert asked == [SetTimer(Timer("route", SampleKey("other", 3, 0)), 2.0)]
    assert home.queued + 1 == 3
