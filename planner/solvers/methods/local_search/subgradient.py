"""Subgradient steps raise the Lagrangian bound: Polyak's step length, momentum, and halving on stalls.

References
----------
B. T. Polyak, "Minimization of unsmooth functionals", USSR Computational Mathematics and Mathematical Physics 9 (1969).
"""

from __future__ import annotations

import numpy as np

from planner.solvers.core.problem import Array, Choices
from planner.solvers.core.search_state import Search
from planner.solvers.methods.local_search.lagrangian import LagrangianBound, Multipliers
from planner.solvers.routes.stage_dp import StagedRoutes

MOMENTUM = 0.9
"""Weight of the previous direction."""
POLYAK_FACTOR = 0.3
"""Fraction of Polyak's step length towards the best incumbent."""
MAX_IDLE_STEPS = 30
"""Steps without a better bound after which the step length is halved."""
PLAIN_STEPS = 300
"""Steps after which busy resources get price tables."""
LINKS_PER_WORKER = 1.5
"""Number of network resources with price tables per worker, the busiest; all workers have them."""
MIN_STEP = 1e-3
"""Relative step length below which the ascent has stalled."""


class Subgradient:
    """The ascent of the prices of a Lagrangian bound; ``bound`` is the best bound so far."""

    def __init__(self, search: Search, staged: list[list[StagedRoutes]]) -> None:
        self.search = search
        problem = search.problem
        best = min(search.incumbents, key=lambda choices: search.incumbents[choices], default=None)
        self.busy = problem.load(best).sum(axis=0) if best else np.zeros(len(problem.resources))
        self.lagrangian = LagrangianBound(problem, staged, best)
        self.steps = 0
        self._start(-np.inf)

    def _start(self, bound: float) -> None:
        self.bound, self.best_prices = bound, self.lagrangian.prices
        self.length, self.idle = 1.0, 0
        self.direction: list[Array] | None = None

    @property
    def stalled(self) -> bool:
        """Whether steps have become too short to matter."""
        return self.length < MIN_STEP and self.steps >= PLAIN_STEPS

    @property
    def routes(self) -> Choices:
        """Each source's cheapest route at the last prices."""
        return self.lagrangian.routes

    def step(self) -> None:
        """Take a step."""
        if self.steps == PLAIN_STEPS:
            self._tabulate()
        self.steps += 1
        value, slope = self.lagrangian.value()
        self.busy += self.search.problem.load(self.routes).sum(axis=0)
        if value > self.bound:
            self.bound, self.best_prices, self.idle = value, self.lagrangian.prices, 0
        else:
            self.idle += 1
        if self.idle >= MAX_IDLE_STEPS:
            self._step_back()
            return
        scaled = self.lagrangian.scaled(slope)
        previous = self.direction or [np.zeros_like(part) for part in scaled]
        self.direction = [part + MOMENTUM * before for part, before in zip(scaled, previous, strict=True)]
        steepness = sum(float((a * b).sum()) for a, b in zip(slope, scaled, strict=True))
        best = self.search.best if self.search.incumbents else abs(value) * 1.5 + 1e-9
        length = POLYAK_FACTOR * self.length * max(best - value, 0.0) / max(steepness, 1e-12)
        if not np.isfinite(length):  # numbers at the limits of floating point
            self._step_back()
            return
        moved = (price + length * part for price, part in zip(self.lagrangian.prices, self.direction, strict=True))
        self.lagrangian.move(Multipliers(*moved))

    def _step_back(self) -> None:
        """Return to the best prices, from which steps are shorter."""
        self.length, self.idle, self.direction = self.length / 2, 0, None
        self.lagrangian.move(self.best_prices)

    def _tabulate(self) -> None:
        """Introduce price tables for the workers and for the network resources that routes have used most."""
        workers = len(self.search.problem.workers)
        self.lagrangian.move(self.best_prices)
        network = workers + np.argsort(-self.busy[workers:], kind="stable")
        network = network[self.busy[network] > 0][: int(LINKS_PER_WORKER * workers)]
        self.lagrangian.tabulate(np.concatenate([np.arange(workers), network]))
        self._start(self.bound)
