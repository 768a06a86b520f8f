"""The cheapest route at given prices: dynamic programming over the layered graph, and the bound it proves."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from planner.plan.surrogate import congestion
from planner.solve.problem import Array, Choice, Problem

TINY = 1e-12
"""Stands for a reach of 0, so that a missing path stays infinitely dear."""


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
        Price of a second of pure work, transfer or latency to one sample of each source, for deadlines; shape [S].
    accuracy
        What a source is paid for its accuracy, for least accuracies; shape [S].
    """

    of_class: Array
    latency: Array
    second: Array
    accuracy: Array

    @classmethod
    def of_delay(cls, problem: Problem, of_class: Array) -> Prices:
        """Prices of the goal ``delay`` without deadlines and least accuracies."""
        priority = np.array([demand.priority for demand in problem.demands])
        zero = np.zeros(len(problem.demands))
        return cls(of_class, priority, zero, zero)


def cheapest_route(problem: Problem, source: int, prices: Prices) -> tuple[float, Choice]:
    """Give the least price of a route of ``source`` for all its samples, over its variants, and the route.

    Infinite, with an arbitrary route, when no route joins the blocks.
    """
    demand = problem.demands[source]
    second = demand.volume * prices.of_class[problem.classes.of_source[source]] + prices.second[source]
    latency = demand.volume * prices.latency[source] + prices.second[source]
    best, chosen = np.inf, Choice(demand.variants[0], (demand.home,) * len(problem.variants[demand.variants[0]]))
    for variant in demand.variants:
        price, workers = _path(problem, source, variant, second, latency)
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


def _path(problem: Problem, source: int, variant: int, second: Array, latency: float) -> tuple[float, tuple[int, ...]]:
    """Shortest path over nodes "block l on worker d"; ``second`` is the price per second of each resource."""
    model, home = problem.variants[variant], problem.demands[source].home
    count = len(problem.workers)
    per_byte = (problem.hop_s_per_byte * second[problem.hop_resource]).sum(axis=2)
    linked = np.isfinite(problem.latency_s)
    per_sample = np.where(linked, latency * np.where(linked, problem.latency_s, 0.0), np.inf)
    begin = model.overhead_s * second[:count]
    place = model.reach[:-1, None] * model.block_s * second[:count]
    leaves = model.exit_share[:, None] > 0
    place += model.exit_bytes[:, None] * per_byte[:, home]
    place += np.where(leaves, np.where(leaves, model.exit_share[:, None], 1.0) * per_sample[:, home], 0.0)
    place[0] += model.reach[0] * (begin + model.cut_bytes[0] * per_byte[home] + per_sample[home])
    place[-1] += model.reach[-1] * (model.cut_bytes[-1] * per_byte[:, home] + per_sample[:, home])
    place[~problem.runs(source, variant)] = np.inf
    base = per_sample + begin
    np.fill_diagonal(base, 0.0)
    np.fill_diagonal(per_byte, 0.0)
    # Receivers are rows, so that the minimum runs over memory in order.
    base, per_byte = np.ascontiguousarray(base.T), np.ascontiguousarray(per_byte.T)
    came = np.zeros((len(model), count), dtype=np.intp)
    price = place[0]
    everyone = np.arange(count)
    total = np.empty_like(base)
    for block in range(1, len(model)):
        np.multiply(per_byte, model.cut_bytes[block], out=total)
        total += base
        total *= max(float(model.reach[block]), TINY)
        total += price
        came[block] = total.argmin(axis=1)
        price = total[everyone, came[block]] + place[block]
    worker = int(price.argmin())
    workers = [worker]
    for block in range(len(model) - 1, 0, -1):
        workers.append(int(came[block, workers[-1]]))
    return float(price[worker]), tuple(reversed(workers))


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


def bottleneck_bound(problem: Problem, prices: Prices, cheapest: Array, late: Array) -> float:
    """Give the bound that prices prove for the goals ``throughput`` and ``makespan``.

    The largest utilisation is at least their weighted mean; prices add up to 1 over resources. For ``makespan`` a part
    ``late`` of the prices per second, which adds up to 1 over sources, stands for the longest route, not for deadlines.
    """
    deadlines = dataclasses.replace(prices, second=prices.second - late)
    return float(cheapest.sum()) + _promised(problem, deadlines)


def limits_bound(problem: Problem, prices: Prices, cheapest: Array) -> float:
    """Give by how much the limits must be exceeded, weighted by ``prices`` of the limits alone; above 0: infeasible."""
    capacity = problem.cap * float(prices.of_class[-1].sum())
    return float(cheapest.sum()) - capacity + _promised(problem, prices)


def _promised(problem: Problem, prices: Prices) -> float:
    """Give what the sources' own limits are worth: accuracy that is due, less deadlines."""
    return sum(
        float(prices.accuracy[source]) * demand.min_accuracy
        - (float(prices.second[source]) * demand.deadline_s if np.isfinite(demand.deadline_s) else 0.0)
        for source, demand in enumerate(problem.demands)
    )
