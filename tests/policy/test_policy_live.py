"""Policies that use what workers tell each other: where they send a sample, and that this makes them better."""

from __future__ import annotations

from functools import cache

import pytest

from planner.plan.types import PlanSpec, Route
from planner.policy.candidate_routes import extended_candidate_routes
from planner.policy.costs import CostTable
from planner.policy.registry import make_policy
from planner.policy.types import Booking, Policy, Status, View, WorkerState
from planner.scenario.instance import Instance
from planner.scenario.types import NetworkSpec
from planner.simulation.simulator import simulate
from planner.solvers import solve
from planner.trace.metrics import summarise
from planner.worker.events import Arrived, StatusMessage, Tell
from planner.worker.worker import Worker
from tests.instances import make_instance, make_profile, random_instance


def instance(memory_bytes: float = 4e9) -> Instance:
    """Both sources at a slow worker; 10 MB/s to two fast ones."""
    return make_instance(
        profiles=[make_profile(block_s=[0.02] * 4, cut_bytes=[20_000, 10_000, 8_000, 6_000, 40])],
        workers={
            name: {"speed": speed, "memory_bytes": memory_bytes, "base_memory_bytes": 0.0}
            for name, speed in (("slow", 1.0), ("a", 4.0), ("b", 4.0))
        },
        sources={
            "urgent": {"rate_per_s": 10.0, "priority": 8.0, "samples": 600},
            "casual": {"rate_per_s": 25.0, "priority": 1.0, "samples": 1500},
        },
        networks={"lan": NetworkSpec(kind="shared", members=("slow", "a", "b"), bandwidth_bytes_per_s=1e7)},
    )


def plan_of(found: Instance) -> PlanSpec:
    solution = solve(found, method="milp", time_limit_s=20)
    assert solution.plan is not None
    return solution.plan


@cache
def roomy() -> tuple[Instance, PlanSpec]:
    """The instance with memory for everything, and its plan."""
    return instance(), plan_of(instance())


PRIORITIES = {"urgent": 8.0, "casual": 1.0}


def view_of(found: Instance, statuses: dict[str, Status]) -> View:
    """What the worker ``slow`` knows after 1 s, when others have told their status."""
    state = WorkerState("slow", found, CostTable(found), now_s=1.0, priorities=PRIORITIES)
    for worker, status in statuses.items():
        state.hear(worker, status)
    return state.view


def last_worker(policy: Policy, view: View, source: str) -> str:
    route = policy.route(view, source)
    assert isinstance(route, Route)
    return route.stages[-1].worker


def busy(work_s: float, waiting: int = 3, priority: float = 1.0) -> Status:
    return Status(at_s=1.0, backlog_s=((priority, work_s),), waiting=((priority, waiting),))


@pytest.mark.parametrize("name", ["ddi", "adaptive"])
def test_samples_avoid_the_worker_that_is_busy(name: str) -> None:
    found, plan = roomy()
    for loaded, free in (("a", "b"), ("b", "a")):
        policy = make_policy(name, found, plan)
        view = view_of(found, {loaded: busy(0.5), free: Status(at_s=1.0)})
        assert last_worker(policy, view, "casual") == free


@pytest.mark.parametrize("name", ["ddi", "adaptive"])
def test_what_was_sent_counts_before_it_is_told(name: str) -> None:
    found, plan = roomy()
    policy = make_policy(name, found, plan)
    view = view_of(found, {"a": Status(at_s=1.0), "b": Status(at_s=1.0)})
    assert {last_worker(policy, view, "casual") for _ in range(2)} == {"a", "b"}


def test_urgent_samples_ignore_a_backlog_that_they_overtake() -> None:
    found, plan = roomy()
    policy = make_policy("adaptive", found, plan)
    view = view_of(found, {"a": busy(0.5, waiting=1), "b": busy(0.5, priority=8.0)})
    assert last_worker(policy, view, "urgent") == "a"


def test_what_others_booked_on_a_shared_network_counts() -> None:
    found, plan = roomy()
    policy = make_policy("adaptive", found, plan)
    view = view_of(found, {})
    policy.heard(view, Status(at_s=1.0, booked=(("lan", Booking(1.0, 1.0, 0.5)),)))
    assert last_worker(policy, view, "casual") == "slow"
    assert last_worker(policy, view, "urgent") != "slow"


def test_each_booking_is_told_once() -> None:
    found, plan = roomy()
    policy = make_policy("adaptive", found, plan)
    view = view_of(found, {})
    worker = last_worker(policy, view, "urgent")
    booked = policy.status(view).booked
    assert [resource for resource, _ in booked][-3:] == ["lan", f"@{worker}", "lan"]
    assert [booking.arrives_s for _, booking in booked] == sorted(booking.arrives_s for _, booking in booked)
    assert policy.status(view).booked == ()


def test_a_sample_that_leaves_at_once_is_told_to_the_other_homes() -> None:
    """Nothing waits or runs here because of it, and yet the shared network will be busy."""
    found, plan = roomy()
    sources = dict(found.scenario.sources)
    sources["casual"] = sources["casual"].model_copy(update={"worker": "a"})
    scenario = found.scenario.model_copy(update={"sources": sources})
    two_homes = found.model_copy(update={"scenario": scenario})
    home = Worker("slow", two_homes, make_policy("adaptive", two_homes, plan))
    effects = home.step(1.0, Arrived("urgent", 0))
    assert [effect.kind for effect in effects if effect.kind in {"send", "run_block"}] == ["send"]
    told = [effect for effect in effects if isinstance(effect, Tell)]
    assert [tell.to for tell in told] == ["a"]
    message = told[0].message
    assert isinstance(message, StatusMessage)
    resource, booking = message.status.booked[0]
    assert (resource, booking.arrives_s, booking.priority) == ("lan", 1.0, 8.0)
    assert booking.work_s == pytest.approx(20_000 / 1e7)


def test_absent_workers_are_not_used() -> None:
    found, plan = roomy()
    for name in ("ddi", "adaptive"):
        policy = make_policy(name, found, plan)
        state = WorkerState("slow", found, CostTable(found), absent=frozenset("ab"), priorities=PRIORITIES)
        assert last_worker(policy, state.view, "urgent") == "slow"


def test_candidate_routes_include_the_plans_and_respect_memory() -> None:
    small = instance(memory_bytes=3.5e6)
    for (found, plan), wide in ((roomy(), True), ((small, plan_of(small)), False)):
        candidates = extended_candidate_routes(found, plan)
        for source, entry in plan.sources.items():
            stages = [route.stages for route in candidates[source]]
            assert len(stages) == len(set(stages))
            assert {route.stages for route in entry.routes} <= set(stages)
            assert (len(stages) > 8) == wide


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 6, *(pytest.param(seed, marks=pytest.mark.nightly) for seed in (0, 3))])
def test_adaptive_is_never_much_worse_than_its_plan_on_random_instances(seed: int) -> None:
    """Same arrivals; at a load where queues matter."""
    found = random_instance(seed, sources=2, workers=3, blocks=5, load=0.6)
    sources = {name: spec.model_copy(update={"samples": 1500}) for name, spec in found.scenario.sources.items()}
    found = found.model_copy(update={"scenario": found.scenario.model_copy(update={"sources": sources})})
    plan = plan_of(found)
    priorities = {name: spec.priority for name, spec in sources.items()}
    delay_s = {}
    for name in ("planned", "adaptive"):
        records, _ = simulate(found, policy=name, plan=plan, seed=2)
        weighted_s = summarise(records, priorities, found.workers).priority_weighted_delay_s
        assert weighted_s is not None
        delay_s[name] = weighted_s
    assert delay_s["adaptive"] <= 1.02 * delay_s["planned"]
