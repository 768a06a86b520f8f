"""What a worker does about lost samples, broken ways, new plans and changing speeds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.plan.types import PlanSpec, Route, SourcePlan, Stage
from planner.policy.base import BasePolicy
from planner.policy.registry import make_policy
from planner.policy.types import SampleKey, Status, Task, View
from planner.scenario.types import PaceParameters
from planner.worker.events import (
    Arrived,
    BlockEnded,
    Complete,
    Discard,
    Effect,
    FailureMessage,
    Joined,
    Left,
    Received,
    Replanned,
    ResultMessage,
    RunBlock,
    Send,
    SetTimer,
    StatusMessage,
    TaskMessage,
    Tell,
    TimedOut,
    Timer,
    Transferred,
)
from planner.worker.patience import Delays, Patience
from planner.worker.worker import CUT_S, Worker
from tests.instances import make_instance, make_profile

BLOCKS = 4
BLOCK_S = 0.01
PACE = PaceParameters()
INSTANCE = make_instance(
    profiles=[make_profile(block_s=[BLOCK_S] * BLOCKS)],
    workers={"home": 1.0, "near": 1.0, "far": 1.0},
    sources={"camera": {"rate_per_s": 5.0}},
)


def plan(*stages: tuple[str, int, int]) -> PlanSpec:
    route = Route(model="m", stages=tuple(Stage(worker=w, first_block=a, last_block=b) for w, a, b in stages))
    own = SourcePlan(accuracy=1.0, delay_s=0.1, surrogate_delay_s=0.1, routes=(route,))
    return PlanSpec(
        status="optimal", method="test", goal="delay", objective=1.0, bound=1.0, gap=0.0, solve_s=0.0,
        provenance="measured", sources={"camera": own}, workers={}, networks={},
    )  # fmt: skip


ALL_NEAR, ALL_FAR = plan(("near", 0, 3)), plan(("far", 0, 3))
IN_A_ROW = plan(("near", 0, 1), ("far", 2, 3))


def worker(the_plan: PlanSpec, name: str = "home", policy: str = "planned") -> Worker:
    return Worker(name, INSTANCE, make_policy(policy, INSTANCE, the_plan))


def key(sample: int, attempt: int = 0) -> SampleKey:
    return SampleKey("camera", sample, attempt)


def sends(effects: list[Effect]) -> list[str]:
    return [effect.to for effect in effects if isinstance(effect, Send)]


# ---- patience -------------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(0.001, 20.0), min_size=1, max_size=30), st.integers(0, 3))
def test_a_result_is_waited_for_as_long_as_results_take_while_they_come_back(
    delays_s: list[float], time_outs: int
) -> None:
    patience = Patience(first_s=30.0, least_s=3.0)
    delays = Delays(patience)
    for delay_s in delays_s:
        delays.back(100.0, 100.0 - delay_s)
    wait_s = delays.due_s(99.0, time_outs) - 99.0
    assert wait_s >= patience.least_s * 2**time_outs
    if len(set(delays_s)) == 1:  # steady results are not waited for much longer than they take
        assert wait_s <= max(patience.least_s, 3.001 * delays_s[0]) * 2**time_outs
    # Nothing came back since: what waits may starve, and is not lost.
    assert delays.due_s(101.0, time_outs) - 101.0 >= patience.first_s * 2**time_outs


def test_a_sample_whose_successors_are_back_starts_again_soon() -> None:
    home = worker(ALL_NEAR)
    (timer,) = (effect for effect in home.step(0.0, Arrived("camera", 0)) if isinstance(effect, SetTimer))
    assert timer == SetTimer(Timer("result", key(0)), 3.0)
    home.step(0.1, Arrived("camera", 1))
    home.step(0.2, Received("near", ResultMessage(key(1), BLOCKS)))
    again = home.step(3.0, TimedOut(Timer("result", key(0))))
    (sent,) = (effect for effect in again if isinstance(effect, Send))
    assert isinstance(sent.message, TaskMessage)
    assert sent.message.key == key(0, attempt=1)


def test_a_sample_that_may_starve_is_given_more_time() -> None:
    home = worker(ALL_NEAR)
    home.step(0.0, Arrived("camera", 0))
    assert home.step(3.0, TimedOut(Timer("result", key(0)))) == [SetTimer(Timer("result", key(0)), 6.0)]
    assert sends(home.step(30.0, TimedOut(Timer("result", key(0))))) == ["near"]


# ---- broken ways ----------------------------------------------------------------------------------------------------


def test_a_task_that_cannot_be_sent_on_is_turned_back() -> None:
    near = worker(IN_A_ROW, "near")
    home = worker(IN_A_ROW)
    (sent,) = (effect for effect in home.step(0.0, Arrived("camera", 0)) if isinstance(effect, Send))
    near.step(0.0, Left("far"))
    near.step(0.1, Received("home", sent.message))
    near.step(0.11, BlockEnded(key(0), 0, BLOCK_S))
    effects = near.step(0.12, BlockEnded(key(0), 1, BLOCK_S))
    failure = FailureMessage(key(0), "near does not reach far", ("near", "far"))
    assert effects == [Discard(key(0)), Send("home", failure, 2, 0, 1.0)]
    retried = home.step(0.2, Received("near", failure))
    assert [effect.key for effect in retried if isinstance(effect, RunBlock)] == [key(0, attempt=1)]


def test_a_broken_way_is_avoided_for_a_while_or_until_its_worker_is_back() -> None:
    failure = FailureMessage(key(0), "near does not reach far", ("near", "far"))
    home = worker(IN_A_ROW)
    assert sends(home.step(0.0, Arrived("camera", 0))) == ["near"]
    home.step(0.1, Received("near", failure))
    assert sends(home.step(0.2, Arrived("camera", 1))) == []
    assert sends(home.step(0.1 + CUT_S, Arrived("camera", 2))) == ["near"]
    home.step(6.0, Received("near", FailureMessage(key(2), "near does not reach far", ("near", "far"))))
    assert sends(home.step(6.1, Arrived("camera", 3))) == []
    home.step(6.2, Joined("far"))
    assert sends(home.step(6.3, Arrived("camera", 4))) == ["near"]


def test_failures_of_earlier_attempts_say_nothing_of_the_one_on_its_way() -> None:
    home = worker(ALL_NEAR)
    home.step(0.0, Arrived("camera", 0))
    home.step(0.1, Left("near"))  # starts again, at home
    assert home.step(0.2, Received("near", FailureMessage(key(0), "out of memory"))) == []
    for block in range(BLOCKS):
        effects = home.step(0.3 + block, BlockEnded(key(0, 1), block, BLOCK_S))
    assert [effect.key for effect in effects if isinstance(effect, Complete)] == [key(0, 1)]


class Holding(BasePolicy):
    """Sends samples from "home" over "near" to "far", and holds the next ones back where ``holds`` is set."""

    holds = False

    def route(self, view: View, source: str) -> Route | None:  # noqa: ARG002
        """Return the route, unless samples are held back."""
        stages = (("home", 0, 0), ("near", 1, 2), ("far", 3, 3))
        route = Route(model="m", stages=tuple(Stage(worker=w, first_block=a, last_block=b) for w, a, b in stages))
        return None if self.holds else route


def test_a_sample_that_waits_to_start_again_is_not_lost_with_where_its_earlier_attempt_goes() -> None:
    policy = Holding()
    home = Worker("home", INSTANCE, policy)
    home.step(0.0, Arrived("camera", 0))
    policy.holds = True
    home.step(0.1, Left("far"))  # the sample waits to start again, while its first block still runs
    assert sends(home.step(0.2, BlockEnded(key(0), 0, BLOCK_S))) == ["near"]
    home.step(0.3, Left("near"))
    assert home._view.in_flight == {"camera": 0}
    policy.holds = False
    home.step(0.4, Joined("near"))
    home.step(0.5, Joined("far"))
    started = [effect.key for effect in home.step(0.6, Arrived("camera", 1)) if isinstance(effect, RunBlock)]
    assert started == [key(0, 1)]
    home.step(0.7, Received("far", ResultMessage(key(0, 1), BLOCKS)))
    assert home._view.in_flight == {"camera": 1}
    assert list(home.pending) == [key(1)]


# ---- new plans ------------------------------------------------------------------------------------------------------


def test_samples_follow_the_newest_plan() -> None:
    home = worker(ALL_NEAR)
    assert sends(home.step(0.0, Arrived("camera", 0))) == ["near"]
    home.step(0.1, Replanned(ALL_FAR))
    assert sends(home.step(0.2, Arrived("camera", 1))) == ["far"]


# ---- speeds ---------------------------------------------------------------------------------------------------------


def run_samples(at: Worker, count: int, took_s: float, now_s: float = 0.0) -> list[Effect]:
    """Have a worker compute whole samples of another; return all effects."""
    effects: list[Effect] = []
    for _ in range(count):
        stages = (Stage(worker=at.name, first_block=0, last_block=BLOCKS - 1),)
        now_s += 0.001
        own = key(1000 + round(now_s * 1000))
        effects += at.step(now_s, Received("home", TaskMessage(Task(own, "m", 0, 1.0, now_s, 0, stages))))
        for block in range(BLOCKS):
            now_s += took_s
            effects += at.step(now_s, BlockEnded(own, block, took_s))
    return effects


def told(effects: list[Effect]) -> list[float]:
    return [
        effect.message.status.slowness
        for effect in effects
        if isinstance(effect, Tell) and isinstance(effect.message, StatusMessage)
    ]


def test_a_slow_worker_says_so_and_is_not_asked_until_it_may_have_recovered() -> None:
    assert PACE.enough <= 2 * BLOCKS
    slow = told(run_samples(worker(ALL_NEAR, "near", "ddi"), 3, 8 * BLOCK_S))
    assert slow[0] == 1.0
    assert 7.9 < slow[-1] < 8.1
    home = worker(ALL_NEAR, policy="ddi")
    for name in ("near", "far"):
        home.step(0.0, Received(name, StatusMessage(Status(slowness=slow[-1]))))
    chosen = [effect.key for effect in home.step(0.1, Arrived("camera", 0)) if isinstance(effect, RunBlock)]
    assert chosen == [key(0)]
    # The home is busy with that sample, and the others count as fast again after a while.
    assert sends(home.step(0.1 + PACE.memory_s, Arrived("camera", 1))) != []


@given(st.lists(st.floats(0.8, 1.25), min_size=2, max_size=20))
def test_chance_in_block_times_is_no_slowness(ratios: list[float]) -> None:
    near = worker(ALL_NEAR, "near", "ddi")
    now_s, slowness = 0.0, []
    for ratio in ratios:
        slowness += told(run_samples(near, 1, ratio * BLOCK_S, now_s))
        now_s += 1.0
    assert set(slowness) == {1.0}


HOP = INSTANCE.paths["home"]["near"].hops[0]


def test_a_link_that_takes_longer_than_by_the_scenario_counts_as_slow_for_a_while() -> None:
    size_bytes = 100_000
    expected_s = size_bytes / HOP.bytes_per_s
    home = worker(ALL_NEAR, policy="ddi")
    for index in range(PACE.enough):
        # Only the fastest of them says what the link can do: others may have been on the medium.
        home.step(0.1 * index, Transferred("near", size_bytes, expected_s * (4.0 if index == 2 else 30.0)))
    costs = home._view.costs
    assert costs.transfer_s("home", "near", size_bytes) == pytest.approx(4 * expected_s + HOP.latency_s)
    assert costs.transfer_s("home", "far", size_bytes) == pytest.approx(expected_s + HOP.latency_s)
    assert costs.latency_s("home", "near") == HOP.latency_s
    home.step(20.0, Arrived("camera", 1))
    assert costs.transfer_s("home", "near", size_bytes) == pytest.approx(expected_s + HOP.latency_s)


def test_what_links_take_is_told_to_those_who_choose_routes() -> None:
    home = worker(ALL_NEAR, policy="ddi")
    home.step(0.0, Received("near", StatusMessage(Status(links=(("far", 8.0),)))))
    hop = INSTANCE.paths["near"]["far"].hops[0]
    assert home._view.costs.transfer_s("near", "far", 1000) == pytest.approx(8 * 1000 / hop.bytes_per_s + hop.latency_s)
    near = worker(ALL_NEAR, "near", "ddi")
    for _ in range(PACE.enough):
        near.step(0.0, Transferred("far", 10_000, 8 * 10_000 / hop.bytes_per_s))
    effects = run_samples(near, 1, BLOCK_S)
    links = [
        effect.message.status.links
        for effect in effects
        if isinstance(effect, Tell) and isinstance(effect.message, StatusMessage)
    ]
    assert dict(links[0]) == pytest.approx({"far": 8.0})
