"""The cheapest route at given prices: dynamic programming over the layered graph, and the bound it proves.

References
----------
G. Righini and M. Salani, "New dynamic programming algorithms for the resource constrained elementary shortest path
problem", Networks 51 (2008): visits are counted where they need to be.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, fields

import numpy as np

from planner.plan.surrogate import congestion
from planner.solve.problem import Array, Choice, Integers, Problem

TINY = 1e-12
"""Stands for a reach of 0, so that a missing path stays infinitely dear."""
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


@dataclass(frozen=True)
class _Graph:
    """Prices in the layered graph of one source and variant.

    ``place`` [L, D] are those of the blocks, with input and result; a move across cut l costs
    reach_l (base + per_byte · cut_bytes_l), with receivers as rows, so that the minimum over senders runs over memory
    in order.
    """

    place: Array
    base: Array
    per_byte: Array
    cut_bytes: Array
    reach: Array

    @classmethod
    def of(cls, problem: Problem, source: int, variant: int, second: Array, latency: float) -> _Graph:
        """Collect the prices; ``second`` is the price per second of each resource."""
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
        return cls(place, np.ascontiguousarray(base.T), np.ascontiguousarray(per_byte.T), model.cut_bytes, model.reach)

    def shortest(self, visits: _Visits) -> tuple[float, tuple[int, ...]]:
        """Give the cheapest path and its price, in which ``visits`` are kept where they are counted."""
        length, count = self.place.shape
        came = np.zeros((length, visits.states, count), dtype=np.intp)
        price = np.full((visits.states, count), np.inf)
        price[visits.first, np.arange(count)] = self.place[0]
        move = np.empty_like(self.base)
        for block in range(1, length):
            np.multiply(self.per_byte, self.cut_bytes[block], out=move)
            move += self.base
            move *= max(float(self.reach[block]), TINY)
            price, came[block] = visits.arrive(price, move)
            price += self.place[block]
        state, worker = (int(index) for index in np.unravel_index(price.argmin(), price.shape))
        least, workers = float(price[state, worker]), [worker]
        for block in range(length - 1, 0, -1):
            sender = int(came[block, state, worker])
            state = visits.before(state, worker) if sender != worker else state
            worker = sender
            workers.append(worker)
        return least, tuple(reversed(workers))


@dataclass(frozen=True)
class _Visits:
    """States of a path that counts the visits to some ``counted`` workers, up to ``most`` each.

    A state is a number whose digits, in base ``most`` + 1, are the counts.
    """

    counted: tuple[int, ...]
    most: int
    workers: int

    @property
    def states(self) -> int:
        """How many states there are."""
        return int((self.most + 1) ** len(self.counted))

    @property
    def first(self) -> Integers:
        """State of a path that begins at each worker; shape [D]."""
        first = np.zeros(self.workers, dtype=np.intp)
        first[list(self.counted)] = [self._unit(worker) for worker in self.counted]
        return first

    def _unit(self, worker: int) -> int:
        return int((self.most + 1) ** self.counted.index(worker))

    def before(self, state: int, worker: int) -> int:
        """Give the state before a stage began at a worker."""
        return state - self._unit(worker) if worker in self.counted else state

    def arrive(self, price: Array, move: Array) -> tuple[Array, Integers]:
        """Give the prices [states, D] after a ``move`` [D, D], or after staying, and the workers before it."""
        everyone, states = np.arange(self.workers), np.arange(self.states)
        if not self.counted:
            # What most of the time is spent on: the sum needs no room of its own.
            move += price
            came = move.argmin(axis=1)
            return move[everyone, came][None], came[None]
        through = price[:, None, :] + move
        came = through.argmin(axis=2)
        least = through[states[:, None], everyone, came]
        for worker in self.counted:
            through[:, worker, worker] = np.inf
            sender = through[:, worker].argmin(axis=1)
            moved = np.full(self.states, np.inf)
            unit = self._unit(worker)
            counts = states // unit % (self.most + 1)
            after = states[counts > 0]
            moved[after] = through[after - unit, worker, sender[after - unit]]
            stays = price[:, worker] <= moved
            least[:, worker] = np.where(stays, price[:, worker], moved)
            came[after, worker] = sender[after - unit]
            came[stays, worker] = worker
        return least, came


def _path(problem: Problem, source: int, variant: int, second: Array, latency: float) -> tuple[float, tuple[int, ...]]:
    """Shortest path over nodes "block l on worker d"; ``second`` is the price per second of each resource.

    Visits are counted only at the workers where the shortest path makes too many, more of them as need be. Should that
    take too many states the price is a bound, and the route visits too often.
    """
    graph = _Graph.of(problem, source, variant, second, latency)
    visits = _Visits((), problem.max_visits or 0, len(problem.workers))
    while True:
        price, workers = graph.shortest(visits)
        often = problem.visited_too_often(workers)
        more = dataclasses.replace(visits, counted=visits.counted + often)
        if not often or np.isinf(price) or more.states > MOST_STATES:
            return price, workers
        visits = more


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
