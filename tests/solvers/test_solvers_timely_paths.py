"""Paths within a delay: never dearer than the cheapest route within it, and never far beyond it."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from planner.solvers.core.build import build_problem
from planner.solvers.core.problem import Choice, Problem
from planner.solvers.core.resource_prices import Prices
from planner.solvers.core.search_state import Options, Search
from planner.solvers.methods import exhaustive
from planner.solvers.methods.local_search.peak_bound import PeakBound, excludes
from planner.solvers.methods.local_search.recombination import recombine
from planner.solvers.routes.pricing import cheapest_routes
from planner.solvers.routes.timely_paths import DELAY_STEPS
from tests.instances import random_instance


def no_move_is_heavy(problem: Problem, choice: Choice) -> bool:
    """Return whether no hop of a move between two workers carries more than the problem's most load for it."""
    demand, variant = problem.demands[0], problem.variants[choice.variant]
    sizes = variant.reach[1:-1] * variant.cut_bytes[1:-1]
    loads = [
        demand.volume * float(problem.hop_s_per_byte[move].max()) * size
        for move, size in zip(itertools.pairwise(choice.workers), sizes, strict=True)
        if move[0] != move[1]
    ]
    return max(loads, default=0.0) <= problem.most_load * (1 + 1e-9)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(1.0, 3.0), st.floats(0.2, 1.2))
@example(768, 2.0, 0.25)
@example(2683, 1.0, 0.25)  # no delay to spare
def test_paths_within_a_delay_are_no_dearer_than_any_route_within_it(seed: int, slack: float, part: float) -> None:
    problem = build_problem(random_instance(seed, sources=1, workers=3, blocks=4, goal="makespan"))
    random = np.random.default_rng(seed)
    routes = [Choice(0, workers) for workers in itertools.product(range(3), repeat=4)]
    delay_s = {choice: problem.cost(0, choice).unloaded_s for choice in routes}
    least_s, most_s = min(delay_s.values()), slack * min(delay_s.values())
    heaviest = max(float(problem.cost(0, choice).seconds.max()) for choice in routes)
    most_load = part * heaviest * problem.demands[0].volume
    none = np.zeros(1)
    levels = len(problem.classes.weight)
    prices = Prices(np.tile(random.uniform(0, 1, len(problem.resources)), (levels, 1)), none, none, none)
    light = dataclasses.replace(problem, most_load=most_load)
    timely = dataclasses.replace(light, most_delay_s=most_s)
    [(price, found)] = cheapest_routes(timely, prices)
    exact = [
        float(prices.of_class[0][cost.resources] @ cost.seconds) * problem.demands[0].volume
        for choice in routes
        for cost in [problem.cost(0, choice)]
        if light.allowed(0, choice) and delay_s[choice] <= most_s and no_move_is_heavy(light, choice)
    ]
    [(without_limit, _)] = cheapest_routes(light, prices)
    assert without_limit <= price * (1 + 1e-9)
    assert price <= min(exact, default=np.inf) * (1 + 1e-9)
    if np.isfinite(price):  # each of at most 4 stages and 4 moves may lose a step
        assert delay_s[found] <= most_s + 8 * (most_s - least_s) / DELAY_STEPS + 1e-9


@pytest.mark.parametrize("seed", range(12))
def test_no_value_above_the_optimum_is_excluded(seed: int) -> None:
    problem = build_problem(
        random_instance(seed, sources=2, workers=3, blocks=3, goal="makespan", links=bool(seed % 2))
    )
    optimum = min(map(problem.objective, exhaustive.solve(problem, Options()).incumbents))
    search = Search(problem, Options())
    bound = PeakBound(search)
    for factor in (1.0001, 1.02, 1.1, 1.3):
        assert not excludes(bound.without_heavy_loads(factor * optimum, {}), factor * optimum)
    assert excludes(bound.without_heavy_loads(0.3 * optimum, {}), 0.3 * optimum)


@pytest.mark.parametrize("goal", ["throughput", "makespan"])
def test_recombined_routes_are_the_best_of_all_combinations(goal: str) -> None:
    problem = build_problem(random_instance(4, sources=3, workers=4, blocks=4, goal=goal))
    random = np.random.default_rng(0)
    pools = [
        [Choice(demand.variants[0], tuple(random.integers(0, 4, 4).tolist())) for _ in range(5)]
        for demand in problem.demands
    ]
    combined = [tuple((choice,) for choice in choices) for choices in itertools.product(*pools)]
    search = Search(problem, Options(start=(max(combined, key=problem.objective),)))
    recombine(search, [(source, choice) for source, pool in enumerate(pools) for choice in pool])
    assert search.best == pytest.approx(min(map(problem.objective, combined)), rel=2e-3)
