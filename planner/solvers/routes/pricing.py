"""The cheapest route at given prices, and the bound it proves."""

from __future__ import annotations

import dataclasses

import numpy as np

from planner.plan.surrogate import congestion
from planner.solvers.core.problem import Array, Choice, Problem
from planner.solvers.core.resource_prices import Prices
from planner.solvers.routes.shortest_path import LayeredGraph, Visits

MOST_STATES = 1024


def cheapest_route(problem: Problem, source: int, prices: Prices, near: Choice | None = None) -> tuple[float, Choice]:
    """Give the least price of a route of ``source`` for all its samples, over its variants, and the route.

    Infinite, with an arbitrary route, when no route joins the blocks. A route that is ``near`` the cheapest saves time.
    """
    demand = problem.demands[source]
    best, chosen = np.inf, Choice(demand.variants[0], (demand.home,) * len(problem.variants[demand.variants[0]]))
    for variant in demand.variants:
        graph = LayeredGraph.of(problem, source, variant, *prices.of_source(problem, source, variant))
        price, workers = _path(problem, graph, near.workers if near and near.variant == variant else ())
        accuracy = problem.variants[variant].accuracy
        price += demand.volume * prices.latency[source] * problem.loss_s * (1 - accuracy)
        price -= prices.accuracy[source] * accuracy
        if price < best:
            best, chosen = price, Choice(variant, workers)
    return best, chosen


def unroutable(problem: Problem) -> bool:
    """Whether no route at all joins the blocks of some source."""
    prices = Prices.of_delay(problem, np.zeros((len(problem.classes.weight), len(problem.resources))))
    return any(np.isinf(cheapest_route(problem, source, prices)[0]) for source in range(len(problem.demands)))


def _path(problem: Problem, graph: LayeredGraph, near: tuple[int, ...]) -> tuple[float, tuple[int, ...]]:
    """Give the price of the cheapest path through a graph and its workers.

    Visits are counted only at the workers where the cheapest path makes too many, more of them as need be. Should that
    take too many states the price is a bound, and the route visits too often.
    """
    price, workers = graph.cheapest(near)
    visits = Visits((), problem.max_visits or 0, len(problem.workers))
    while often := problem.visited_too_often(workers):
        visits = dataclasses.replace(visits, counted=visits.counted + often)
        if np.isinf(price) or visits.states > MOST_STATES:
            break
        price, workers = graph.counted(visits)
    return price, workers


def proven_bound(problem: Problem, prices: Prices, cheapest: Array) -> float:
    """Give the bound on the problem's goal that prices prove, with the sources' ``cheapest`` prices [S]."""
    of_goal = lagrangian_bound if problem.goal == "delay" else bottleneck_bound
    return of_goal(problem, prices, cheapest)


def lagrangian_bound(problem: Problem, prices: Prices, cheapest: Array) -> float:
    """Give the bound that ``prices`` prove for the goal ``delay``, with the sources' ``cheapest`` prices [S].

    Σ_s cheapest_s + Σ_{k,r} min_{0 ≤ σ ≤ cap} (w_k G(σ) − μ_kr σ), where μ_kr is the price's step from class k to
    k + 1. The minimum lies where w_k G'(σ) = μ_kr, that is (1 − σ)⁻² = 1 + (μ / w − 1) / κ. (Dantzig-Wolfe, 1960;
    any prices give a bound.)
    """
    step = -np.diff(prices.of_class, axis=0, append=0.0)
    weight = problem.classes.weight[:, None]
    ratio = np.maximum(step / weight, 1.0)
    sigma = np.minimum(1 - (1 + (ratio - 1) / problem.kappa) ** -0.5, problem.cap)
    free = float((weight * congestion(sigma, problem.kappa) - step * sigma).sum())
    return float(cheapest.sum()) + free + _promised(problem, prices)


def bottleneck_bound(problem: Problem, prices: Prices, cheapest: Array) -> float:
    """Give the bound that prices prove for the goals ``throughput`` and ``makespan``.

    The largest utilisation is at least the mean that is weighted by prices, which add up to 1 over resources, or to 0,
    with which nothing but a broken promise has a price. So do, for ``makespan``, the sources' prices ``late``.
    """
    deadlines = dataclasses.replace(prices, second=prices.second - prices.late)
    return float(cheapest.sum()) + _promised(problem, deadlines)


def limits_bound(problem: Problem, prices: Prices, cheapest: Array) -> float:
    """Give by how much the limits must be exceeded, weighted by ``prices`` of the limits alone; above 0: infeasible."""
    priced = float(prices.of_class[-1].sum())
    return float(cheapest.sum()) - (problem.cap * priced if priced else 0.0) + _promised(problem, prices)


def _promised(problem: Problem, prices: Prices) -> float:
    """Give what the sources' own limits are worth: accuracy that is due, less deadlines."""
    return sum(
        float(prices.accuracy[source]) * demand.min_accuracy
        - (float(prices.second[source]) * demand.deadline_s if np.isfinite(demand.deadline_s) else 0.0)
        for source, demand in enumerate(problem.demands)
    )
