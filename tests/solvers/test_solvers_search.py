from __future__ import annotations

import dataclasses
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.plan.surrogate import congestion
from planner.plan.verify import verify
from planner.solvers import solve
from planner.solvers.core.build import build_problem
from planner.solvers.core.problem import Array, Choice, Integers
from planner.solvers.core.search_state import Options
from planner.solvers.methods import exhaustive
from planner.solvers.methods.column_generation import method as colgen
from planner.solvers.methods.local_search import method as search
from planner.solvers.routes.stage_dp import StagedRoutes
from tests.instances import random_instance
from tests.solvers.test_solvers_milp import with_exits


@settings(max_examples=12)
@given(
    seed=st.integers(0, 10_000),
    links=st.booleans(),
    tight=st.booleans(),
    load=st.sampled_from([0.2, 0.4]),
    blocks=st.integers(1, 3),
    goal=st.sampled_from(["delay", "throughput", "makespan"]),
    max_visits=st.sampled_from([None, 1]),
)
def test_its_bound_holds_and_its_plan_is_nearly_optimal(
    seed: int, blocks: int, goal: str, max_visits: int | None, *, links: bool, tight: bool, load: float
) -> None:
    instance = random_instance(seed, blocks=blocks, links=links, load=load, tight_memory=tight, goal=goal)
    problem = build_problem(instance, max_visits=max_visits)
    outcome, oracle = search.solve(problem, Options(time_limit_s=0.8)), exhaustive.solve(problem, Options())
    if oracle.status == "infeasible":
        assert not outcome.incumbents
        return
    assert outcome.bound <= oracle.bound * (1 + 1e-9)
    best = min((problem.objective(choices) for choices in outcome.incumbents), default=np.inf)
    assert best >= oracle.bound * (1 - 1e-9)
    if not tight and max_visits is None:
        assert best <= oracle.bound * (1.001 if goal == "delay" else 1.1)


@pytest.mark.parametrize("seed", [4, 5, 7, *(pytest.param(seed, marks=pytest.mark.nightly) for seed in range(8, 24))])
def test_auto_proves_that_there_is_no_plan_at_any_size(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where an instance counts as too large for ``milp`` beside a plan; ``search`` proves it only sometimes."""
    monkeypatch.setattr(sys.modules[solve.__module__], "MILP_MAX_ARCS", 0)
    instance = random_instance(seed, blocks=2, load=0.8, links=seed % 2 == 0)
    oracle, solution = exhaustive.solve(build_problem(instance), Options()), solve(instance, time_limit_s=20.0)
    assert (solution.status == "infeasible") == (oracle.status == "infeasible")
    assert (solution.plan is None) == (oracle.status == "infeasible")
    if solution.plan is None:
        assert solution.reasons


@pytest.mark.parametrize("goal", ["throughput", "makespan"])
def test_it_improves_on_the_largest_shared_routes(goal: str) -> None:
    problem = build_problem(random_instance(0, sources=4, workers=6, blocks=10, load=0.3, goal=goal))
    widest = tuple(
        (dataclasses.replace(max(routes, key=lambda choice: choice.share), share=1.0),)
        for routes in min(colgen.solve(problem, Options()).incumbents, key=problem.objective)
    )
    outcome = search.solve(problem, Options(time_limit_s=2.0))
    assert min(problem.objective(choices) for choices in outcome.incumbents) < 0.9 * problem.objective(widest)


@pytest.mark.parametrize("seed", range(3))
def test_operating_points_and_exits_are_chosen_too(seed: int) -> None:
    instance = with_exits(seed, 0.85)
    problem = build_problem(instance)
    solution = solve(instance, method="search", time_limit_s=1.0)
    assert solution.plan is not None
    verify(instance, solution.plan)
    oracle = exhaustive.solve(problem, Options())
    assert solution.plan.bound <= oracle.bound * (1 + 1e-9)
    assert solution.plan.objective <= oracle.bound * 1.1


@given(st.integers(0, 1000), st.data())
def test_the_cheapest_staged_route_is_the_cheapest_of_all(seed: int, data: st.DataObject) -> None:
    """The reference is the cost of all routes that visit no worker and no link twice, at any cost of load."""
    problem = build_problem(random_instance(seed, sources=1, workers=3, blocks=4, load=0.2))
    factor = np.random.default_rng(seed).uniform(0.1, 3.0, size=len(problem.resources))

    def cost(more: Array, resource: Integers) -> Array:
        return np.where(more < 0.9, factor[resource] * congestion(np.where(more < 0.9, more, 0.0), 1.0), np.inf)

    routes = StagedRoutes.of(problem, 0, 0)
    price, choice = routes.cheapest(cost)

    def pay(other: Choice) -> float:
        used = problem.cost(0, other)
        load = problem.demands[0].volume * used.seconds
        return float(cost(load, used.resources).sum()) + problem.fixed_cost(0, other, used.latency_s)

    order = data.draw(st.permutations([0, 1, 2]))
    cuts = sorted(data.draw(st.lists(st.integers(0, 4), min_size=2, max_size=2)))
    once = Choice(0, (order[0],) * cuts[0] + (order[1],) * (cuts[1] - cuts[0]) + (order[2],) * (4 - cuts[1]))
    assert price <= pay(once) + 1e-9
    begun = [worker for index, worker in enumerate(choice.workers) if choice.workers[index - 1 : index] != (worker,)]
    if len(set(begun)) == len(begun):
        assert price == pytest.approx(pay(choice))


def test_auto_uses_it_for_large_instances() -> None:
    solution = solve(random_instance(0, sources=6, workers=10, blocks=16, load=0.3), time_limit_s=2.0)
    assert solution.plan is not None
    assert solution.plan.method == "search"
    assert 0 < solution.plan.bound <= solution.plan.objective


@pytest.mark.parametrize("method", ["search", "milp"])
@pytest.mark.parametrize("goal", ["delay", "throughput"])
def test_shared_routes_are_a_start_for_single_ones(method: str, goal: str) -> None:
    instance = random_instance(0, load=0.4, goal=goal)
    shared = solve(instance, method="colgen", time_limit_s=2.0).plan
    assert shared is not None
    assert max(len(source.routes) for source in shared.sources.values()) > 1
    single = solve(instance, method=method, time_limit_s=1.0, start=shared).plan
    assert single is not None
    assert all(len(source.routes) == 1 for source in single.sources.values())
