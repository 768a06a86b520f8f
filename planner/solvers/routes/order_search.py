"""Local search over the orders in which routes visit the workers, where memory or visits are limited.

For one order, dynamic programming finds the cheapest stages; a worker may be skipped. A move exchanges two workers of
an order, moves one, or reverses a part. Routes of several sources are removed together and found again one after
another ("ruin and recreate"), often those of one model: its sources share the copies of its blocks. Slightly worse
plans are accepted at first, ever more seldom.

References
----------
G. Dueck and T. Scheuer, "Threshold accepting: a general purpose optimization algorithm", Journal of Computational
Physics 90 (1990).
G. Schrimpf et al., "Record breaking optimization results using the ruin and recreate principle", Journal of
Computational Physics 159 (2000).
"""

from __future__ import annotations

from random import Random

import numpy as np

from planner.solvers.core.problem import Choice, Choices
from planner.solvers.routes.best_response import BestResponse
from planner.solvers.routes.delay_annealing import anneal
from planner.solvers.routes.stage_dp import PricedStages

MOVES = 60
"""Most moves of one route's order before it is another route's turn."""
THRESHOLD = 0.02
"""Relative increase of the objective that is accepted at first."""
COOLING = 0.9
"""Factor of the threshold after each ruin."""
MAX_REMOVED = 4
"""Most routes that are removed together, unless they are all of one model."""
MAX_IDLE_RUINS = 40
"""Ruins in a row without a better incumbent after which the search ends, and as many for each source."""


ORDER_TIME_FRACTION, ANNEALING_TIME_FRACTION = 0.1, 0.15
"""Fractions of the time left that a round of the search over orders, and one of annealing, take at most."""

FIRST_TIME_FRACTION = 0.5
"""The latter while there is no plan."""


class LimitedSearch:
    """Improves the best incumbent where limits on memory or visits make best responses poor."""

    def __init__(self, responses: BestResponse, random: np.random.Generator) -> None:
        self.search, self.orders = responses.search, OrderSearch(responses, random)
        self.random = Random(int(random.integers(2**32)))  # noqa: S311  # not cryptographic, and faster than numpy's

    def improve(self) -> None:
        """Change orders, then anneal, each for a part of the time left."""
        search = self.search
        self.orders.improve(search.elapsed_s + ORDER_TIME_FRACTION * search.left_s)
        part = ANNEALING_TIME_FRACTION if search.incumbents else FIRST_TIME_FRACTION
        until_s = search.elapsed_s + part * search.left_s
        anneal(search, self.random, until_s, self.orders.responses.filled)


class OrderSearch:
    """Improves the best incumbent of a search by changing orders."""

    def __init__(self, responses: BestResponse, random: np.random.Generator) -> None:
        self.responses, self.random = responses, random
        self.search, self.problem = responses.search, responses.search.problem

    def improve(self, until_s: float) -> None:
        """Improve the best incumbent until the search has run for ``until_s`` seconds, or until that has not helped."""
        search = self.search
        limited = self.problem.memory_binds or self.problem.max_visits is not None
        if not limited or not search.incumbents:
            return
        current = min(search.incumbents, key=lambda choices: search.incumbents[choices])
        value = best = search.best
        threshold, idle = THRESHOLD, 0
        while idle < MAX_IDLE_RUINS * len(current) and not search.out_of_time and search.elapsed_s < until_s:
            changed = self._recreate(current, self._ruin(len(current)))
            new = self.problem.objective(changed) if changed else np.inf
            if changed and new < value * (1 + threshold):
                current, value = changed, new
                search.offer(changed)
            threshold *= COOLING
            idle = idle + 1 if search.best >= best * (1 - 1e-9) else 0
            best = search.best

    def _ruin(self, sources: int) -> list[int]:
        """Return the sources whose routes to remove, in random order: one, a few, or those of one model."""
        kind = int(self.random.integers(3))
        picked = int(self.random.integers(sources))
        if kind == 0:
            return [picked]
        models = [{self.problem.variants[v].model for v in demand.variants} for demand in self.problem.demands]
        alike = [source for source in range(sources) if models[source] & models[picked]]
        pool = alike if kind == 1 else list(range(sources))
        count = len(pool) if kind == 1 else int(self.random.integers(1, min(sources, MAX_REMOVED) + 1))
        return [int(source) for source in self.random.permutation(pool)[:count]]

    def _recreate(self, current: Choices, out: list[int]) -> Choices | None:
        """Return routes with those of some sources found again; None if there is no room for one of them."""
        changed = list(current)
        for source in out:
            changed[source] = ()
        for source in out:
            choice = self._route(source, tuple(changed), current[source][0], alone=len(out) == 1)
            if choice is None:
                return None
            changed[source] = (choice,)
        return tuple(changed)

    def _route(self, source: int, others: Choices, old: Choice, *, alone: bool) -> Choice | None:
        """Return a good route of a source beside the ``others``; the search starts at its ``old`` one if ``alone``."""
        cost = self.responses.measure.rise(source, self.problem.load(others), 0.0)
        start, order = old, self._order_of(old)
        if not alone and self.random.integers(2):
            filled = self.responses.filling.cheapest(source, others, cost)
            if filled is None:
                return None
            start, order = filled[1], self._order_of(filled[1])
        elif not alone:
            order = self._changed(self._changed(order))
        held = self.problem.residency(others)
        routes = next(routes for routes in self.responses.staged[source] if routes.variant == start.variant)
        priced = (routes.beside(held) if self.problem.memory_binds else routes).priced(cost)
        return self._reordered(priced, order, int(self.random.integers(MOVES)))

    def _reordered(self, priced: PricedStages, order: list[int], moves: int) -> Choice | None:
        """Return the best route after some ``moves`` from an ``order``."""
        found = priced.in_order(order)
        best, price = (None, np.inf) if found is None else (found[1], found[0])
        for _ in range(moves):
            if self.search.out_of_time:
                break
            changed = self._changed(order)
            found = priced.in_order(changed)
            if found is not None and found[0] <= price:
                order, price, best = changed, *found
        return best

    def _order_of(self, choice: Choice) -> list[int]:
        """Return the workers of a route, each once, and the others in random places."""
        order = list(dict.fromkeys(choice.workers))
        for worker in self.random.permutation(len(self.problem.workers)).tolist():
            if worker not in order:
                order.insert(int(self.random.integers(len(order) + 1)), worker)
        return order

    def _changed(self, order: list[int]) -> list[int]:
        """Return an order with two workers exchanged, one moved, or a part reversed."""
        kind, changed = self.random.integers(3), order.copy()
        first, last = sorted(self.random.integers(len(order), size=2).tolist())
        if kind == 0:
            changed[first], changed[last] = changed[last], changed[first]
        elif kind == 1:
            changed.insert(int(self.random.integers(len(order))), changed.pop(first))
        else:
            changed[first : last + 1] = changed[first : last + 1][::-1]
        return changed
