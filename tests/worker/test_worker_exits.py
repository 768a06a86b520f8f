"""A sample leaves at the first exit that is sure enough of its answer; what it leaves undone is not counted."""

from __future__ import annotations

import pytest

from planner.plan.types import PlanSpec, Route, SourcePlan, Stage
from planner.policy.registry import make_policy
from planner.policy.types import SampleKey
from planner.profiling.types import ExitPoint, OperatingPoint
from planner.scenario.instance import Instance
from planner.trace.records import Origin
from planner.worker.events import (
    Arrived,
    BlockEnded,
    Complete,
    Discard,
    Effect,
    Received,
    ResultMessage,
    RunBlock,
    Send,
    TimedOut,
    Timer,
)
from planner.worker.worker import Worker
from tests.instances import make_instance, make_profile

BLOCKS = 4
CUTS = [1000, 800, 600, 400, 40]
KEY = SampleKey("camera", 0, 0)
FIRST, SECOND = ExitPoint(name="first", cut=2, result_bytes=7), ExitPoint(name="second", cut=3, result_bytes=9)
TWIN = ExitPoint(name="twin", cut=2, result_bytes=8)
STRICT = OperatingPoint(name="strict", accuracy=0.9, thresholds=(0.8, 0.9), reach=(1.0, 1.0, 0.5, 0.25))
LOOSE = OperatingPoint(name="loose", accuracy=0.7, thresholds=(0.5, 0.6), reach=(1.0, 1.0, 0.2, 0.0))


def instance(
    exits: tuple[ExitPoint, ...] = (FIRST, SECOND), points: tuple[OperatingPoint, ...] = (STRICT, LOOSE)
) -> Instance:
    profile = make_profile(block_s=[0.01] * BLOCKS, cut_bytes=CUTS, exits=exits, operating_points=points)
    return make_instance(profiles=[profile], sources={"camera": {"rate_per_s": 5.0, "priority": 2.0}})


def worker(name: str, found: Instance, *stages: tuple[str, int, int], point: int = 0) -> Worker:
    route = Route(
        model="m",
        operating_point=point,
        stages=tuple(Stage(worker=w, first_block=a, last_block=b) for w, a, b in stages),
    )
    own = SourcePlan(accuracy=0.9, delay_s=0.1, surrogate_delay_s=0.1, routes=(route,))
    plan = PlanSpec(
        status="optimal", method="test", goal="delay", objective=1.0, bound=1.0, gap=0.0, solve_s=0.0,
        provenance="measured", sources={"camera": own}, workers={}, networks={},
    )  # fmt: skip
    return Worker(name, found, make_policy("planned", found, plan))


def of_kind(effects: list[Effect], kind: type) -> list[Effect]:
    return [effect for effect in effects if isinstance(effect, kind)]


def backlog(found: Worker) -> float:
    return sum(found._view.backlog_s.values())


def test_a_sample_leaves_at_home() -> None:
    home = worker("slow", instance(), ("slow", 0, 3))
    home.step(0.0, Arrived("camera", 0))
    home.step(0.01, BlockEnded(KEY, 0, 0.01))
    effects = home.step(0.02, BlockEnded(KEY, 1, 0.01, (0.8,)))
    assert effects == [Complete(KEY, 0.0, Origin("m", 0, "first"))]
    assert backlog(home) == 0
    assert not home.pending


def test_a_sample_that_is_not_sure_goes_on_to_the_next_exit() -> None:
    home = worker("slow", instance(), ("slow", 0, 3))
    home.step(0.0, Arrived("camera", 0))
    home.step(0.01, BlockEnded(KEY, 0, 0.01))
    effects = home.step(0.02, BlockEnded(KEY, 1, 0.01, (0.79,)))
    assert effects == [RunBlock(KEY, "m", 2, begins_stage=False)]
    effects = home.step(0.03, BlockEnded(KEY, 2, 0.01, (0.95,)))
    assert effects == [Complete(KEY, 0.0, Origin("m", 0, "second"))]


def test_the_threshold_is_that_of_the_operating_point() -> None:
    home = worker("slow", instance(), ("slow", 0, 3), point=1)
    assert of_kind(home.step(0.0, Arrived("camera", 0)), RunBlock) == [
        RunBlock(KEY, "m", 0, begins_stage=True, operating_point=1)
    ]
    home.step(0.01, BlockEnded(KEY, 0, 0.01))
    effects = home.step(0.02, BlockEnded(KEY, 1, 0.01, (0.5,)))
    assert effects == [Complete(KEY, 0.0, Origin("m", 1, "first"))]


def test_only_the_result_goes_home_from_where_the_sample_left() -> None:
    stages = (("slow", 0, 0), ("fast", 1, 3))
    home, helper = worker("slow", instance(), *stages), worker("fast", instance(), *stages)
    home.step(0.0, Arrived("camera", 0))
    (sent,) = of_kind(home.step(0.01, BlockEnded(KEY, 0, 0.01)), Send)
    assert isinstance(sent, Send)
    helper.step(0.02, Received("slow", sent.message))
    origin = Origin("m", 0, "first")
    effects = helper.step(0.03, BlockEnded(KEY, 1, 0.01, (1.0,)))
    assert effects == [Send("slow", ResultMessage(KEY, FIRST.cut, origin), FIRST.cut, 7, 2.0), Discard(KEY)]
    assert isinstance(effects[0], Send)
    assert home.step(0.04, Received("fast", effects[0].message)) == [Complete(KEY, 0.0, origin)]


def test_an_exit_at_the_end_of_a_stage_spares_the_next_worker() -> None:
    home = worker("slow", instance(), ("slow", 0, 1), ("fast", 2, 3))
    home.step(0.0, Arrived("camera", 0))
    home.step(0.01, BlockEnded(KEY, 0, 0.01))
    assert of_kind(home.step(0.02, BlockEnded(KEY, 1, 0.01, (0.9,))), Send) == []
    home.step(0.03, Arrived("camera", 1))
    key = SampleKey("camera", 1, 0)
    home.step(0.04, BlockEnded(key, 0, 0.01))
    (sent,) = of_kind(home.step(0.05, BlockEnded(key, 1, 0.01, (0.1,))), Send)
    assert isinstance(sent, Send)
    assert (sent.to, sent.cut) == ("fast", 2)


def test_of_two_exits_at_one_cut_the_first_that_is_sure_enough_answers() -> None:
    points = (OperatingPoint(name="p", accuracy=0.9, thresholds=(0.9, 0.6), reach=(1.0, 1.0, 0.5, 0.5)),)
    for confidence, left in (((0.9, 0.9), "first"), ((0.8, 0.6), "twin"), ((0.8, 0.5), None)):
        home = worker("slow", instance((FIRST, TWIN), points), ("slow", 0, 3))
        home.step(0.0, Arrived("camera", 0))
        home.step(0.01, BlockEnded(KEY, 0, 0.01))
        ended = of_kind(home.step(0.02, BlockEnded(KEY, 1, 0.01, confidence)), Complete)
        assert ended == ([Complete(KEY, 0.0, Origin("m", 0, left))] if left else [])


def test_without_calibrated_thresholds_every_sample_stays_to_the_end() -> None:
    home = worker("slow", instance(points=()), ("slow", 0, 3))
    home.step(0.0, Arrived("camera", 0))
    for block in range(BLOCKS - 1):
        assert of_kind(home.step(0.01 + block, BlockEnded(KEY, block, 0.01, (1.0,))), RunBlock)
    assert home.step(9.0, BlockEnded(KEY, BLOCKS - 1, 0.01)) == [Complete(KEY, 0.0, Origin("m"))]


def test_what_waits_is_counted_with_its_reach() -> None:
    """10 ms a block: behind block 1 half of the samples go on, behind block 2 a quarter."""
    home = worker("slow", instance(), ("slow", 0, 3))
    home.step(0.0, Arrived("camera", 0))
    assert backlog(home) == pytest.approx(0.01 * (1 + 0.5 + 0.25))
    home.step(0.0, Arrived("camera", 1))
    assert backlog(home) == pytest.approx(0.01 * (1.75 + 2.75))
    home.step(0.01, BlockEnded(KEY, 0, 0.01))
    assert backlog(home) == pytest.approx(0.01 * (0.75 + 2.75))
    home.step(0.02, BlockEnded(KEY, 1, 0.01, (0.1,)))  # it stays: block 2 runs, block 3 follows for one of two
    assert backlog(home) == pytest.approx(0.01 * (0.5 + 2.75))
    home.step(0.03, BlockEnded(KEY, 2, 0.01, (0.95,)))  # it leaves: the other sample's block 0 runs
    assert backlog(home) == pytest.approx(0.01 * 1.75)


def test_attempts_that_leave_elsewhere_complete_their_sample_once() -> None:
    """After a time-out both attempts go on; the first result counts, whatever exit it is of."""
    found = instance()
    home = worker("slow", found, ("fast", 0, 3))
    home.step(0.0, Arrived("camera", 0))
    home.step(100.0, TimedOut(Timer("result", KEY)))
    second = SampleKey("camera", 0, 1)
    late = Received("fast", ResultMessage(second, SECOND.cut, Origin("m", 0, "second")))
    assert home.step(100.1, late) == [Complete(second, 0.0, Origin("m", 0, "second"))]
    first = Received("fast", ResultMessage(KEY, FIRST.cut, Origin("m", 0, "first")))
    assert home.step(100.2, first) == [Discard(KEY)]
    assert not home.pending
