"""Local search over the orders in which routes visit the workers, where memory or visits are limited.

For one order, dynamic programming finds the cheapest stages; a worker may be skipped. A move exchanges two workers,
moves one, or reverses a part of the order. Slightly worse orders are accepted at first, ever more seldom.

References
----------
G. Dueck and T. Scheuer, "Threshold accepting: a general purpose optimization algorithm", Journal of Computational
Physics 90 (1990).
"""

from __future__ import annotations

import numpy as np

from planner.solvers.core.problem import Choice, Choices
from planner.solvers.routes.best_response import BestResponse

MOVES = 60
"""Moves of one source's order before it is another source's turn."""
THRESHOLDS = (0.03, 0.01, 0.0, 0.0)
"""Relative increase of the price of a route that is accepted, round after round."""


class OrderSearch:
    """Improves the best incumbent of a search by changing orders."""

    def __init__(self, responses: BestResponse, random: np.random.Generator) -> None:
        self.responses, self.random = responses, random
        self.search, self.problem = responses.search, responses.search.problem

    @property
    def applies(self) -> bool:
        """Whether limits make orders matter."""
        return self.problem.memory_binds or self.problem.max_visits is not None

    def improve(self, until_s: float) -> None:
        """Improve the best incumbent until the search has run for ``until_s`` seconds or no order helps."""
        search = self.search
        best = np.inf
        while self.applies and search.incumbents and search.best < best * (1 - 1e-6):
            best = search.best
            current: list[tuple[Choice, ...]] = [
                *min(search.incumbents, key=lambda choices: search.incumbents[choices])
            ]
            for threshold in THRESHOLDS:
                for source in self.random.permutation(len(current)).tolist():
                    if search.out_of_time or search.elapsed_s >= until_s:
                        return
                    current[source] = (self._reorder(source, tuple(current), threshold),)
                    search.offer(tuple(current))

    def _reorder(self, source: int, current: Choices, threshold: float) -> Choice:
        """Return a source's route after some changes of its order, beside the routes of the others."""
        others = tuple(() if number == source else routes for number, routes in enumerate(current))
        (choice,) = current[source]
        held, staged = self.problem.residency(others), self.responses.staged[source]
        cost = self.responses.measure.rise(source, self.problem.load(others), 0.0)
        routes = next(routes for routes in staged if routes.variant == choice.variant)
        priced = (routes.beside(held) if self.problem.memory_binds else routes).priced(cost)
        order = self._order_of(choice)
        found = priced.in_order(order)
        if found is None:
            return choice
        price, best = found
        best_price = price
        for _ in range(MOVES):
            if self.search.out_of_time:
                break
            changed = self._changed(order)
            found = priced.in_order(changed)
            if found is None or found[0] > price + threshold * abs(best_price):
                continue
            order, price = changed, found[0]
            if price < best_price:
                best_price, best = found
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
