"""A quick start: sources one after another, each on its cheapest route beside what the others do already."""

from __future__ import annotations

import numpy as np

from planner.solve.pricing import Prices, cheapest_route
from planner.solve.problem import Array, Choice, Choices, Problem
from planner.solve.smooth import smooth_congestion


def greedy_rounds(problem: Problem, rounds: int) -> list[Choices]:
    """Give the routes after each round, the most important sources first within each."""
    order = np.argsort(problem.classes.of_source, kind="stable").tolist()
    load = np.zeros((len(problem.demands), len(problem.resources)))
    chosen: dict[int, Choice] = {}
    found: list[Choices] = []
    for _ in range(rounds):
        for source in order:
            load[source] = 0.0
            prices = Prices.of_delay(problem, class_prices(problem, problem.classes.nested(load)))
            _, choice = cheapest_route(problem, source, prices)
            cost = problem.cost(source, choice)
            load[source, cost.resources] = problem.demands[source].volume * cost.seconds
            chosen[source] = choice
        found.append(tuple((chosen[source],) for source in range(len(problem.demands))))
    return found


def class_prices(problem: Problem, sigma: Array) -> Array:
    """Give what a little more load of each class costs each resource at utilisations ``sigma`` [K, R]."""
    _, slope, _ = smooth_congestion(sigma, problem.kappa)
    return np.asarray(np.cumsum((problem.classes.weight[:, None] * slope)[::-1], axis=0)[::-1])
