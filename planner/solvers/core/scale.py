"""Units in which programs count loads and the objective, so that their numbers are near 1 whatever those of a scenario.

A solver's tolerances are absolute, and HiGHS ignores coefficients below 1e-9 and refuses those above 1e15. A number
that is hopelessly large may be replaced by a smaller one that still is: lower bounds remain valid, and every plan is
evaluated with the true numbers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from planner.solvers.core.problem import Choices, Problem

MOST = 1e6
"""Largest number of units that a program sees."""
HOPELESS = 100.0
"""Largest ratio of a use to its limit that a program sees; any above 1 violates the limit."""


class Scale(NamedTuple):
    """The unit of utilisations, that of the objective, and the largest number of either."""

    load: float = 1.0
    objective: float = 1.0
    most: float = MOST

    @classmethod
    def of(cls, problem: Problem, choices: Choices) -> Scale:
        """Return units near the loads and the objective of some quick routes."""
        busiest, objective = float(problem.load(choices).sum(axis=0).max()), problem.objective(choices)
        if problem.goal == "energy":
            return cls(min(max(busiest, 1e-100), 1.0), max(objective, 1e-100) if np.isfinite(objective) else 1.0)
        if problem.goal != "delay":
            unit = max(objective, 1e-100) if np.isfinite(objective) else 1.0
            return cls(unit, unit)
        load = min(max(busiest, 1e-100), 1.0)
        return cls(load, objective if 0 < objective < np.inf else load * float(problem.classes.weight.sum()))

    def loads(self, load: float) -> float:
        """Return a load in units."""
        return min(load / self.load, self.most)

    def costs(self, cost: float) -> float:
        """Return a cost in units."""
        return min(cost / self.objective, self.most)


def ratio(use: float, limit: float, most: float = HOPELESS) -> float:
    """Return a use relative to its positive limit, at most ``most``."""
    return min(use / limit, most)


class MemoryUnit(NamedTuple):
    """The unit of a worker's memory: a MiB, which tells single bytes apart, or more for very much memory."""

    room: float
    unit: float

    @classmethod
    def of(cls, room_bytes: float) -> MemoryUnit:
        """Return the unit for a memory of ``room_bytes``."""
        unit = max(2.0**20, room_bytes / MOST)
        return cls(room_bytes / unit, unit)

    def size(self, size_bytes: float) -> float:
        """Return a size in units; one hopelessly larger than the memory is made smaller."""
        return min(size_bytes / self.unit, HOPELESS * max(self.room, 1.0))
