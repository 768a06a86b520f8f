"""Batches under ``adaptive``: how close to the least makespan, and when samples leave."""

from __future__ import annotations

import pytest

from planner.plan.types import PlanSpec, Route, SourcePlan, Stage, WorkerUse
from planner.policy.costs import CostTable
from planner.policy.registry import make_policy
from planner.policy.types import WorkerState
from planner.scenario.instance import Instance
from planner.scenario.types import EventSpec, ObjectiveSpec
from planner.simulation.simulator import simulate
from planner.solvers import solve
from planner.solvers.replan.replanner import replanner
from planner.trace.records import SampleRecord
from tests.instances import make_instance, make_profile, random_instance


def batches(seed: int, samples: int = 400) -> tuple[Instance, PlanSpec]:
    """A random instance, all samples of all sources there from the start, and its plan."""
    instance = random_instance(seed, sources=3, workers=3, blocks=4, links=bool(seed % 2), goal="makespan")
    sources = {
        name: spec.model_copy(update={"arrivals": "batch", "rate_per_s": None, "samples": samples})
        for name, spec in instance.scenario.sources.items()
    }
    instance = instance.model_copy(update={"scenario": instance.scenario.model_copy(update={"sources": sources})})
    plan = solve(instance, method="convex", routes="shared", time_limit_s=20).plan
    assert plan is not None
    return instance, plan


def makespan_s(instance: Instance, policy: str, plan: PlanSpec) -> float:
    records, _ = simulate(instance, policy=policy, plan=plan, seed=0, replan=replanner(instance, policy, plan))
    samples = [record for record in records if isinstance(record, SampleRecord)]
    assert {record.status for record in samples} == {"completed"}
    return max(record.finished_s for record in samples)


def fluid_s(plan: PlanSpec) -> float:
    """The work of the busiest resource: no plan of the solver's has less, as its bound says."""
    works_s = [use.utilisation for use in plan.workers.values()] + [use.utilisation for use in plan.networks.values()]
    longest_s = max(entry.delay_s for entry in plan.sources.values())
    assert max(works_s) + longest_s <= plan.bound * 1.001
    return max(works_s)


@pytest.mark.parametrize("seed", [3, 5, 7])
def test_batches_are_done_within_5_percent_of_the_least_makespan(seed: int) -> None:
    instance, plan = batches(seed)
    assert makespan_s(instance, "adaptive", plan) <= 1.05 * fluid_s(plan)


def test_a_batch_leaves_at_the_pace_of_the_plan() -> None:
    instance, plan = batches(0)
    policy = make_policy("adaptive", instance, plan)
    source = instance.sources[0]
    state = WorkerState(instance.home(source), instance, CostTable(instance), in_flight={source: 1000})
    view = state.view
    samples, shares = instance.samples(source), {route: route.share for route in plan.sources[source].routes}
    head_start_s = max(entry.delay_s for entry in plan.sources.values())
    left: list[Route] = []
    while len(left) < samples:
        route = policy.route(view, source)
        if isinstance(route, Route):
            left.append(route)
            every_s = fluid_s(plan) / (samples * shares[route])
            due_s = (left.count(route) - 1) * every_s - head_start_s
            assert due_s <= view.now_s + 1e-9
        else:
            assert isinstance(route, float)
            assert route > view.now_s
            state.now_s = route
    assert view.now_s <= fluid_s(plan)
    for route, share in shares.items():
        assert abs(left.count(route) - samples * share) <= 1


def test_a_batch_has_as_many_samples_on_their_way_as_at_its_pace_without_waiting() -> None:
    instance, plan = batches(0)
    policy = make_policy("adaptive", instance, plan)
    source = instance.sources[0]
    state = WorkerState(instance.home(source), instance, CostTable(instance), in_flight={source: 1000})
    view = state.view
    while isinstance(policy.route(view, source), Route):
        pass
    state.in_flight[source] = 0
    while isinstance(policy.route(view, source), Route):
        state.in_flight[source] += 1
    rate_per_s = instance.samples(source) / fluid_s(plan)
    expected = rate_per_s * max(entry.delay_s for entry in plan.sources.values())
    assert expected <= view.in_flight[source] < expected + 1


def test_priorities_say_nothing_in_a_batch() -> None:
    instance, plan = batches(1)
    ends_s = []
    for priority in (1.0, 100.0):
        sources = dict(instance.scenario.sources)
        first = instance.sources[0]
        sources[first] = sources[first].model_copy(update={"priority": priority})
        scenario = instance.scenario.model_copy(update={"sources": sources})
        records, _ = simulate(instance.model_copy(update={"scenario": scenario}), policy="adaptive", plan=plan)
        ends_s.append([record.finished_s for record in records if isinstance(record, SampleRecord)])
    assert ends_s[0] == ends_s[1]


def test_a_batch_is_done_sooner_where_workers_and_networks_are_faster_than_the_plan_thinks() -> None:
    instance, plan = batches(1)
    expected_s = makespan_s(instance, "adaptive", plan)
    for key, names in (("worker", instance.workers), ("network", tuple(instance.scenario.networks))):
        events = [{"at_s": 0.0, "action": "slow", key: name, "factor": 0.5} for name in names]
        told = (*instance.scenario.events, *map(EventSpec.model_validate, events))
        instance = instance.model_copy(update={"scenario": instance.scenario.model_copy(update={"events": told})})
    assert makespan_s(instance, "adaptive", plan) < 0.8 * expected_s


@pytest.mark.parametrize("seed", [1, 3])
def test_a_batch_avoids_a_worker_that_has_become_slow(seed: int) -> None:
    """Where each source has a route without it; by the shares, what is left there would take five times as long."""
    instance, plan = batches(seed)
    homes = {spec.worker for spec in instance.scenario.sources.values()}
    slow = max(instance.workers, key=lambda worker: (worker not in homes, plan.workers[worker].utilisation))
    at_s = 0.3 * fluid_s(plan)
    event = EventSpec.model_validate({"at_s": at_s, "action": "slow", "worker": slow, "factor": 5.0})
    instance = instance.model_copy(update={"scenario": instance.scenario.model_copy(update={"events": (event,)})})
    by_the_shares_s = at_s + 5 * 0.7 * plan.workers[slow].utilisation
    assert makespan_s(instance, "adaptive", plan) < 0.7 * by_the_shares_s


def test_a_batch_goes_on_when_all_that_was_on_its_way_is_lost() -> None:
    profile = make_profile(block_s=[0.2] * 2, cut_bytes=[100, 100, 100])
    instance = make_instance(
        profiles=[profile],
        workers={"home": 0.5, "fast": 1.0},
        sources={"camera": {"worker": "home", "arrivals": "batch", "samples": 20}},
        objective=ObjectiveSpec(goal="makespan"),
    )
    at_fast = Route(model="m", stages=(Stage(worker="fast", first_block=0, last_block=1),))
    own = SourcePlan(accuracy=1.0, delay_s=0.4, surrogate_delay_s=0.4, routes=(at_fast,))
    idle = WorkerUse(utilisation=0.0, memory_bytes=0)
    plan = PlanSpec(
        status="feasible", method="test", goal="makespan", objective=1.0, bound=0.0, gap=1.0, solve_s=0.0,
        provenance="estimated", sources={"camera": own}, networks={},
        workers={"home": idle, "fast": idle.model_copy(update={"utilisation": 8.0})},
    )  # fmt: skip
    gone = EventSpec.model_validate({"at_s": 0.9, "action": "leave", "worker": "fast"})
    instance = instance.model_copy(update={"scenario": instance.scenario.model_copy(update={"events": (gone,)})})
    assert makespan_s(instance, "adaptive", plan) > 18 * 0.8
