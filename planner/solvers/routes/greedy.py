"""A quick start: sources one after another, each on its cheapest route beside what the others do already."""

from __future__ import annotations

import numpy as np

from planner.solvers.core.problem import Array, Choice, Choices, Problem
from planner.solvers.core.resource_prices import Prices
from planner.solvers.core.smooth_congestion import smooth_congestion
from planner.solvers.routes.pricing import cheapest_route


def greedy_rounds(problem: Problem, rounds: int, *, averaging: bool = False) -> list[Choices]:
    """Give the routes after each round, the most important sources first within each.

    With ``averaging`` a source moves only 1 / t of its samples to its cheapest route in round t: the routes of all
    rounds together are good ones to share samples among (successive averages, a Frank-Wolfe method).
    """
    order = np.argsort(problem.classes.of_source, kind="stable").tolist()
    load = np.zeros((len(problem.demands), len(problem.resources)))
    sigma = problem.classes.nested(load)
    of_class = class_prices(problem, sigma)

    def change(source: int, more: Array) -> None:
        touched = np.flatnonzero(more)  # few of all resources: only these get new prices
        load[source, touched] += more[touched]
        sigma[problem.classes.of_source[source] :, touched] += more[touched]
        of_class[:, touched] = class_prices(problem, sigma[:, touched])

    chosen: dict[int, Choice] = {}
    found: list[Choices] = []
    for number in range(rounds):
        moved = 1 / (number + 1) if averaging else 1.0
        for source in order:
            if not averaging:
                change(source, -load[source])
            _, chosen[source] = cheapest_route(problem, source, Prices.of_delay(problem, of_class), chosen.get(source))
            cost = problem.cost(source, chosen[source])
            wanted = np.zeros(len(problem.resources))
            wanted[cost.resources] = problem.demands[source].volume * cost.seconds
            change(source, moved * (wanted - load[source]))
        found.append(tuple((chosen[source],) for source in range(len(problem.demands))))
    return found


def completed(problem: Problem, known: Choices) -> Choices:
    """Give each source that has no route the cheapest one beside what the others do, the most important first."""
    choices = list(known)
    load = problem.load(known)
    for source in np.argsort(problem.classes.of_source, kind="stable").tolist():
        if not choices[source]:
            prices = Prices.of_delay(problem, class_prices(problem, problem.classes.nested(load)))
            _, choice = cheapest_route(problem, source, prices)
            choices[source] = (choice,)
            cost = problem.cost(source, choice)
            load[source, cost.resources] = problem.demands[source].volume * cost.seconds
    return tuple(choices)


def class_prices(problem: Problem, sigma: Array) -> Array:
    """Give what a little more load of each class costs each resource at utilisations ``sigma`` [K, R]."""
    _, slope, _ = smooth_congestion(sigma, problem.kappa)
    return np.asarray(np.cumsum((problem.classes.weight[:, None] * slope)[::-1], axis=0)[::-1])
