"""Prices of resources, delays and accuracies, the cheapest route at them, and the bound it proves."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np

from planner.plan.surrogate import congestion
from planner.solve.layered import Graph, Moves, Visits
from planner.solve.problem import Array, Choice, Problem

MOST_STATES = 1024


@dataclass(frozen=True)
class Prices:
    """What resources cost each class, in units of the objective.

    Parameters
    ----------
    of_class
        Price of a unit of utilisation of each resource to a source of class k; never increases with k; shape [K, R].
    latency
        Price of a second of latency to one sample a second of each source; shape [S].
    second
        Price of a second of pure work, transfer or latency to one sample of each source: for deadlines, and for
        ``makespan`` for the longest route; shape [S].
    accuracy
        What a source is paid for its accuracy, for least accuracies; shape [S].
    late
        The part of ``second`` that is for the longest route; shape [S].
    """

    of_class: Array
    latency: Array
    second: Array
    accuracy: Array
    late: Array | float = 0.0

    @classmethod
    def of_delay(cls, problem: Problem, of_class: Array) -> Prices:
        """Prices of the goal ``delay`` without deadlines and least accuracies."""
        priority = np.array([demand.priority for demand in problem.demands])
        zero = np.zeros(len(problem.demands))
        return cls(of_class, priority, zero, zero)

    def mixed(self, other: Prices, part: float) -> Prices:
        """Give these prices with some ``part`` of the ``other`` ones."""
        pairs = ((getattr(self, name), getattr(other, name)) for name in (field.name for field in fields(self)))
        return Prices(*((1 - part) * own + part * theirs for own, theirs in pairs))

    @cached_property
    def _shared(self) -> dict[tuple[object, ...], tuple[Array, Moves]]:
        return {}

    def of_source(self, problem: Problem, source: int, variant: int) -> tuple[Array, Moves]:
        """Give what a sample pays for a second of each resource [R], and for moves; sources that are alike share it."""
        volume, level = problem.demands[source].volume, int(problem.classes.of_source[source])
        overhead_s = problem.variants[variant].overhead_s
        key = (level, volume, self.latency[source], self.second[source], overhead_s.tobytes())
        if key not in self._shared:
            second = volume * self.of_class[level] + self.second[source]
            latency = volume * self.latency[source] + self.second[source]
            self._shared[key] = second, Moves.of(problem, overhead_s, second, float(latency))
        return self._shared[key]


def cheapest_route(problem: Problem, source: int, prices: Prices, near: Choice | None = None) -> tuple[float, Choice]:
    """Give the least price of a route of ``source`` for all its samples, over its variants, and the route.

    Infinite, with an arbitrary route, when no route joins the blocks. A route that is ``near`` the cheapest saves time.
    """
    demand = problem.demands[source]
    best, chosen = np.inf, Choice(demand.variants[0], (demand.home,) * len(problem.variants[demand.variants[0]]))
    for variant in demand.variants:
        graph = Graph.of(problem, source, variant, *prices.of_source(problem, source, variant))
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


def _path(problem: Problem, graph: Graph, near: tuple[int, ...]) -> tuple[float, tuple[int, ...]]:
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
