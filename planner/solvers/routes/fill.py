"""Plans that fit into memory: workers are filled with stages in several orders.

For a given order of workers, dynamic programming finds the cheapest stages, each as large as the worker's memory
permits beside the blocks that are there already; one copy of a block serves all sources. The sources take their routes
in turn. A source for which no room is left moves to the front, and all begin again ("squeaky wheel"). If no order of
:func:`worker_orders` succeeds, a beam search over sets of workers looks for the one that leaves the least room unused,
and at last single blocks are packed, the largest first.

References
----------
D. E. Joslin and D. P. Clements, "Squeaky wheel optimization", Journal of Artificial Intelligence Research 10 (1999).
D. S. Johnson et al., "Worst-case performance bounds for simple one-dimensional packing algorithms", SIAM Journal on
Computing 3 (1974): first fit, and best fit, by decreasing size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Protocol

import numpy as np

from planner.solvers.core.problem import Array, Choice, Choices, Integers, Problem
from planner.solvers.routes.stage_dp import CostOfLoad, StagedRoutes

Order = tuple[int, ...]
"""Distinct workers, in the order in which routes visit them."""

BEAM_WIDTH = 200
"""Sets of workers of one size that the beam search keeps."""


class Rise(Protocol):
    """The cost of more load."""

    def __call__(self, source: int, load: Array, phantom: Array | float) -> CostOfLoad:
        """Return the cost of additional load of a source on top of ``load`` [S, R] and a ``phantom`` load [R]."""


def worker_orders(problem: Problem, source: int, room_bytes: Array) -> list[Order]:
    """Return orders worth trying: by speed, by room, by both, and by the way from the source's worker.

    Parameters
    ----------
    room_bytes
        Free memory of each worker; shape [D].
    """
    demand = problem.demands[source]
    home, variant = demand.home, problem.variants[demand.variants[0]]
    speed = 1 / np.maximum(variant.block_s.sum(axis=0), 1e-300)
    # The time of a cut of ordinary size to each worker, with latency.
    size = float(np.mean(variant.cut_bytes))
    linked = np.isfinite(problem.latency_s)
    time_s = size * problem.hop_s_per_byte.sum(axis=2) + np.where(linked, problem.latency_s, np.inf)
    np.fill_diagonal(time_s, 0.0)
    room = np.maximum(room_bytes, 0.0)
    keys = [-speed, -room, -speed * room, time_s[home], room]
    orders = [tuple(np.argsort(key, kind="stable").tolist()) for key in keys]
    orders += [_chain(time_s, home, speed), orders[0][::-1], orders[3][::-1]]
    from_home = [(home, *(worker for worker in order if worker != home)) for order in orders[:3]]
    return list(dict.fromkeys([*orders, *from_home]))


def _chain(time_s: Array, home: int, speed: Array) -> Order:
    """Return all workers from ``home``, each followed by the nearest one left; the faster of equally near ones."""
    chain, left = [home], set(range(len(time_s))) - {home}
    while left:
        last = chain[-1]
        chain.append(min(left, key=lambda worker: (time_s[last, worker], -speed[worker], worker)))
        left.remove(chain[-1])
    return tuple(chain)


class Filling:
    """Fills the workers of a problem.

    Parameters
    ----------
    staged
        Routes of each source, by variant.
    rise
        What routes minimise.
    stopped
        Ends the search.
    """

    def __init__(
        self, problem: Problem, staged: list[list[StagedRoutes]], rise: Rise, stopped: Callable[[], bool]
    ) -> None:
        self.problem, self.rise, self.stopped = problem, rise, stopped
        accurate = [
            [routes for routes in of_source if problem.variants[routes.variant].accuracy >= demand.min_accuracy]
            for of_source, demand in zip(staged, problem.demands, strict=True)
        ]
        self.staged = [mine or all_of_them for mine, all_of_them in zip(accurate, staged, strict=True)]

    def plans(self) -> Iterator[Choices]:
        """Yield plans that fit into memory; other limits may be violated."""
        none: Choices = ((),) * len(self.staged)
        found = False
        for number in range(max(len(self.orders(source, none)) for source in range(len(none)))):
            choices = self._by_turns(partial(self._order, number))
            found = found or choices is not None
            if choices is not None:
                yield choices
            if self.stopped():
                return
        if not found:
            yield from self._hard_plans()

    def _hard_plans(self) -> Iterator[Choices]:
        """Yield plans where no ordinary order has room."""
        choices = self._by_turns(self._beam)
        if choices is not None:
            yield choices
        for by_size in (True, False):
            choices = self._packed(by_size=by_size)
            if choices is not None:
                yield choices

    def orders(self, source: int, others: Choices) -> list[Order]:
        """Return the orders worth trying for a source beside the ``others``."""
        room_bytes = self.problem.memory_bytes - self.problem.memory_used(others)
        return worker_orders(self.problem, source, room_bytes)

    def _order(self, number: int, source: int, others: Choices) -> list[Order]:
        orders = self.orders(source, others)
        return [orders[min(number, len(orders) - 1)]]

    def _by_turns(self, orders: Callable[[int, Choices], list[Order]]) -> Choices | None:
        """Return routes that the sources take in turn along ``orders``; None where room is lacking."""
        turns = np.argsort(self.problem.classes.of_source, kind="stable").tolist()
        tried: set[Order] = set()
        while tuple(turns) not in tried and not self.stopped():
            tried.add(tuple(turns))
            current: list[tuple[Choice, ...]] = [()] * len(turns)
            for source in turns:
                if self.stopped():
                    return None
                others = tuple(current)
                cost = self.rise(source, self.problem.load(others), 0.0)
                found = self.cheapest(source, others, cost, orders=orders(source, others))
                if found is None:
                    turns.remove(source)
                    turns.insert(0, source)
                    break
                current[source] = (found[1],)
            else:
                return tuple(current)
        return None

    def cheapest(
        self,
        source: int,
        others: Choices,
        cost: CostOfLoad,
        reserved_bytes: Array | float = 0.0,
        orders: Sequence[Order] | None = None,
    ) -> tuple[float, Choice] | None:
        """Return the cheapest route of a source along one of ``orders`` that fits beside the ``others``, and its price.

        By default all :meth:`orders` are tried. Memory of ``reserved_bytes`` [D] stays free if possible.
        """
        held = self.problem.residency(others)
        orders = self.orders(source, others) if orders is None else orders
        for reserved in (reserved_bytes, 0.0):
            priced = [routes.beside(held, reserved).priced(cost) for routes in self.staged[source]]
            found = [route for routes in priced for order in orders if (route := routes.in_order(order)) is not None]
            if found:
                return min(found, key=lambda route: route[0])
        return None

    def _beam(self, source: int, others: Choices) -> list[Order]:
        """Return orders in which workers hold all blocks of a source, one of each variant that fits."""
        found, held = [], self.problem.residency(others)
        for routes in self.staged[source]:
            fits = np.isfinite(routes.beside(held).stage_load)
            ends = np.arange(1, fits.shape[1])[None, :, None]
            # The furthest cut that each worker reaches from each cut, itself if it has no room; [L + 1, D].
            furthest = np.where(fits[:, 1:], ends, 0).max(axis=1)
            furthest = np.maximum(np.vstack([furthest, furthest[:1] * 0]), np.arange(fits.shape[1])[:, None])
            order = _furthest_order(furthest, np.isfinite(routes.move_cost[-1]), routes)
            found += [order] if order else []
        return found

    def _packed(self, *, by_size: bool) -> Choices | None:
        """Return routes through single blocks that are packed onto workers, the largest first, by best fit."""
        problem = self.problem
        choices = tuple((of_source[0].variant, source) for source, of_source in enumerate(self.staged))
        allowed: dict[tuple[int, int], Array] = {}
        for variant, source in choices:
            for block, runs in enumerate(problem.runs(source, variant)):
                key = (problem.variants[variant].model, block)
                allowed[key] = allowed.get(key, np.ones(len(runs), dtype=bool)) & runs
        weights, largest = np.zeros(len(problem.workers)), np.zeros(len(problem.workers))
        place: dict[tuple[int, int], int] = {}
        size = {(model, block): float(problem.weight_bytes[model][block].max()) for model, block in allowed}
        for model, block in sorted(allowed, key=lambda key: -size[key]) if by_size else sorted(allowed):
            more = weights + problem.weight_bytes[model][block]
            peak = np.maximum(largest, problem.activation_bytes[model][block])
            rest = np.where(allowed[model, block], problem.memory_bytes - more - peak, -np.inf)
            if not (rest >= 0).any():
                return None
            worker = int(np.where(rest >= 0, rest, np.inf).argmin())
            weights[worker], largest[worker] = more[worker], peak[worker]
            place[model, block] = worker
        return tuple(
            (
                Choice(
                    variant, tuple(place[problem.variants[variant].model, block] for block in _blocks(problem, variant))
                ),
            )
            for variant, _ in choices
        )


def _blocks(problem: Problem, variant: int) -> range:
    return range(len(problem.variants[variant]))


def _furthest_order(furthest: Integers, linked: Array, routes: StagedRoutes) -> Order | None:
    """Return distinct workers that reach the last cut one after another, by a beam search over sets of workers.

    Of routes through the same set of workers with the same last one, only the furthest is worth extending.

    Parameters
    ----------
    furthest
        The furthest cut that a worker reaches from each cut; shape [L + 1, D].
    linked
        Whether there is a path between two workers; shape [D, D].
    """
    length, count = furthest.shape[0] - 1, furthest.shape[1]
    begins = np.isfinite(routes.move_cost[0, routes.problem.demands[routes.source].home])
    beam: dict[tuple[int, int], tuple[int, Order]] = {(0, -1): (0, ())}
    for _ in range(count):
        after: dict[tuple[int, int], tuple[int, Order]] = {}
        for (used, last), (cut, order) in beam.items():
            can = linked[last] if order else begins
            for worker in np.flatnonzero(can & (furthest[cut] > cut)).tolist():
                if used >> worker & 1:
                    continue
                state, reached = (used | 1 << worker, worker), int(furthest[cut, worker])
                if reached == length:
                    return (*order, worker)
                if reached > after.get(state, (0, ()))[0]:
                    after[state] = (reached, (*order, worker))
        beam = dict(sorted(after.items(), key=lambda item: -item[1][0])[:BEAM_WIDTH])
    return None
