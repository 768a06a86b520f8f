"""What stages save by joined blocks is in the costs of every way to price routes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.plan.verify import verify
from planner.solvers import solve
from planner.solvers.core.build import build_problem
from planner.solvers.core.problem import Choice
from planner.solvers.core.resource_prices import Prices
from planner.solvers.routes.pricing import cheapest_route, cheapest_routes
from planner.solvers.routes.shortest_path import LayeredGraph, cheapest_split
from planner.solvers.routes.stage_dp import StagedRoutes
from planner.solvers.routes.together import cheapest_paths_together
from tests.fleets import make_fleet
from tests.instances import random_instance, with_savings

BLOCKS = 4


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), workers=st.integers(1, 4), share=st.floats(0.0, 0.9))
def test_all_prices_of_a_route_are_those_of_its_cost(seed: int, workers: int, share: float) -> None:
    problem = build_problem(with_savings(random_instance(seed, workers=workers, blocks=BLOCKS), share))
    random = np.random.default_rng(seed)
    of_class = np.exp(random.normal(0.0, 1.0, (1, len(problem.resources)))).repeat(len(problem.classes.weight), axis=0)
    prices = Prices.of_delay(problem, of_class)
    for source, demand in enumerate(problem.demands):
        (variant,) = demand.variants

        def price(route: tuple[int, ...], source: int = source, variant: int = variant) -> float:
            cost = problem.cost(source, Choice(variant, route))
            return float(of_class[0][cost.resources] @ cost.seconds) + problem.demands[source].priority * cost.latency_s

        graph = LayeredGraph.of(problem, source, variant, prices)
        routes = list(itertools.product(range(workers), repeat=BLOCKS))
        least = min(map(price, routes))
        assert [graph.price(route) for route in routes] == pytest.approx([price(route) for route in routes])
        assert graph.cheapest()[0] == pytest.approx(least)
        assert graph.cheapest(routes[seed % len(routes)])[0] == pytest.approx(least)
        assert cheapest_paths_together([graph])[0][0] == pytest.approx(least)
        home = demand.home
        splits = [(home,) * cut + (other,) * (BLOCKS - cut) for cut in range(BLOCKS + 1) for other in range(workers)]
        assert cheapest_split(problem, source, variant, prices)[0] == pytest.approx(min(map(price, splits)))
        staged = StagedRoutes.of(problem, source, variant)
        for route in routes:
            loads, resources = staged.visits(Choice(variant, route))
            cost = problem.cost(source, Choice(variant, route))
            busy = np.bincount(resources, loads, len(problem.resources)) / demand.volume
            assert busy[cost.resources] == pytest.approx(cost.seconds)


def test_routes_of_a_fleet_are_priced_alike_by_site() -> None:
    fleet = with_savings(make_fleet(sites=6, workers_per_site=8, sources=12, blocks=6), 0.4)
    problem = build_problem(fleet)
    assert problem.sites is not None
    random = np.random.default_rng(0)
    levels = len(problem.classes.weight)
    prices = Prices.of_delay(problem, np.exp(random.normal(0.0, 1.0, (levels, len(problem.resources)))))
    for source, (price, choice) in enumerate(cheapest_routes(problem, prices)):
        expected, route = cheapest_route(problem, source, prices)
        assert price == pytest.approx(expected, rel=1e-9)
        assert choice.workers == route.workers


@pytest.mark.parametrize("goal", ["delay", "throughput", "makespan"])
def test_methods_agree_where_blocks_are_joined(goal: str) -> None:
    instance = with_savings(random_instance(3, blocks=3, load=0.3, goal=goal), 0.3)
    plans = {
        method: solve(instance, method=method, rank="surrogate", time_limit_s=3).plan
        for method in ("exhaustive", "milp", "search")
    }
    best = plans["exhaustive"]
    assert best is not None
    for plan in plans.values():
        assert plan is not None
        verify(instance, plan)
        assert plan.bound <= best.objective * (1 + 1e-6)
    assert plans["milp"] is not None
    assert plans["milp"].objective == pytest.approx(best.objective, rel=1e-4)
