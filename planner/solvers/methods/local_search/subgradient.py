"""Prices climb to a better bound, by subgradients with Polyak's step length, momentum, and halving when they stall.

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

MOMENTUM, PART = 0.9, 0.3
"""Of the last direction so much is kept, and of Polyak's step length to the best incumbent so much is gone."""
IDLE_STEPS = 30
"""Steps without a better bound after which the step length is halved."""
PLAIN_STEPS = 300
"""Steps after which busy resources get tables."""
LINKS_PER_WORKER = 1.5
"""Besides the workers so many network resources a worker, the busiest, get tables."""


class Subgradient:
    """The bound's prices on their way up."""

    def __init__(self, search: Search, staged: list[list[StagedRoutes]]) -> None:
        self.search = search
        problem = search.problem
        best = min(search.incumbents, key=lambda choices: search.incumbents[choices], default=None)
        self.busy = problem.load(best).sum(axis=0) if best else np.zeros(len(problem.resources))
        levels = len(problem.classes.weight)
        sigma = problem.classes.nested(problem.load(best)) if best else np.zeros((levels, len(problem.resources)))
        self.dual = LagrangianBound(problem, staged, sigma)
        self.steps = 0
        self._start(-np.inf)

    def _start(self, last: float) -> None:
        self.last, self.centre = last, self.dual.prices
        self.step, self.idle = 1.0, 0
        self.drift: list[Array] | None = None

    @property
    def stuck(self) -> bool:
        """Whether steps have become too short to matter."""
        return self.step < 1e-3 and self.steps >= PLAIN_STEPS

    @property
    def answers(self) -> Choices:
        """Each source's cheapest route at the last prices."""
        return self.dual.answers

    def climb(self) -> None:
        """Take a step."""
        if self.steps == PLAIN_STEPS:
            self._tabulate()
        self.steps += 1
        value, slope = self.dual.value()
        self.busy += self.search.problem.load(self.answers).sum(axis=0)
        if value > self.last:
            self.last, self.centre, self.idle = value, self.dual.prices, 0
        else:
            self.idle += 1
        if self.idle >= IDLE_STEPS:
            self.step, self.idle, self.drift = self.step / 2, 0, None
            self.dual.move(self.centre)
            return
        scaled = self.dual.scaled(slope)
        old = self.drift or [np.zeros_like(direction) for direction in scaled]
        self.drift = [direction + MOMENTUM * drift for direction, drift in zip(scaled, old, strict=True)]
        steepness = sum(float((a * b).sum()) for a, b in zip(slope, scaled, strict=True))
        best = self.search.best if self.search.incumbents else abs(value) * 1.5 + 1e-9
        length = PART * self.step * max(best - value, 0.0) / max(steepness, 1e-12)
        moved = (price + length * drift for price, drift in zip(self.dual.prices, self.drift, strict=True))
        self.dual.move(Multipliers(*moved))

    def _tabulate(self) -> None:
        """Give tables to the workers and to the network resources that routes have used most."""
        workers = len(self.search.problem.workers)
        self.dual.move(self.centre)
        network = workers + np.argsort(-self.busy[workers:], kind="stable")
        network = network[self.busy[network] > 0][: int(LINKS_PER_WORKER * workers)]
        self.dual.tabulate(np.concatenate([np.arange(workers), network]))
        self._start(self.last)
