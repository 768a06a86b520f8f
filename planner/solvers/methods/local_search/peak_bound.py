"""Lower bound on one route per source for ``throughput`` and ``makespan``: shared routes without heavy loads.

A single route puts the whole load of a stage on one worker and that of a transfer on one network, whereas shared routes
may split it. Routes with an objective up to v contain no stage and no transfer with a load above v, so the bound of
shared routes without them holds for these. If it exceeds v, then v is a lower bound on single routes. A bisection finds
the largest such v. For ``makespan``, the longest delay leaves less of v for loads, and light routes take longer. There,
intervals of the longest delay are excluded one by one: shared routes may then not mix routes that take longer with
shorter ones, and loads have only the time that the delay leaves.

References
----------
J. K. Lenstra, D. B. Shmoys and É. Tardos, "Approximation algorithms for scheduling unrelated parallel machines",
Mathematical Programming 46 (1990): the same for machines.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from planner.solvers.core.problem import Choice, Problem
from planner.solvers.core.resource_prices import Prices
from planner.solvers.core.room import without_binary_residency
from planner.solvers.core.search_state import Outcome, Search
from planner.solvers.methods.column_generation import method as colgen
from planner.solvers.routes.pricing import cheapest_route

SHARED_TIME_FRACTION = 0.3
"""Fraction of the time limit for the bound of shared routes."""
ACCURACY = 1e-3
"""Relative accuracy of the bisection, and optimality gap of each of its steps."""
FIRST_STEP = 0.01
"""First relative step above the bound of shared routes; where it proves nothing, heavy loads hardly matter."""
DELAY_ROUNDS = 4
"""Times that the least delay of routes without heavy loads lowers what counts as heavy."""

MAX_INTERVALS = 4
"""Intervals of the longest delay that may be divided."""
MIN_INTERVAL = 0.01
"""Length, relative to the value, below which an interval is not divided."""
SHORTER_PART = 0.3
"""Part of a divided interval with the shorter delays."""


class PeakBound:
    """The bisection; ``low`` is proven, and ``high`` is the least value that could not be excluded."""

    def __init__(self, search: Search) -> None:
        self.search = search
        problem = search.problem
        relaxed = without_binary_residency(problem) if problem.memory_binds else problem
        demands = tuple(dataclasses.replace(demand, deadline_s=np.inf, min_accuracy=0.0) for demand in problem.demands)
        self.shared = dataclasses.replace(relaxed, max_visits=None)
        self.relaxed = dataclasses.replace(self.shared, demands=demands)
        self.low, self.high, self.step = 0.0, np.inf, FIRST_STEP
        self.routes: dict[tuple[int, Choice], None] = {}
        """All routes of good shared ones, with their sources."""
        self.delay_part = 0.0
        """The longest delay of the best shared routes for ``makespan``, as a part of their objective."""

    def share(self) -> Outcome:
        """Return the outcome of shared routes without memory limits, and raise the bound to theirs."""
        outcome = self._solve(self.shared, SHARED_TIME_FRACTION)
        self.search.raise_bound(outcome.bound)
        self.low = self.search.bound
        if self.search.problem.goal == "makespan" and outcome.incumbents:
            best = min(outcome.incumbents, key=self.shared.objective)
            busiest = float((self.shared.load(best).sum(axis=0) / self.shared.usable).max())
            self.delay_part = 1 - busiest / self.shared.objective(best)
        return outcome

    def raise_once(self) -> bool:
        """Take a step of the bisection below the best incumbent; return whether further steps may help."""
        search = self.search
        high = min(self.high, search.best)
        if high - self.low <= ACCURACY * high or search.gap <= search.options.gap:
            return False
        middle = (self.low + high) / 2
        value = min(middle, self.low * (1 + self.step)) if self.low > 0 else middle
        outcome = self.without_heavy_loads(value, search.problem.pins)
        if excludes(outcome, value):
            self.step *= 4
            self.prove(value)
        elif not search.out_of_time:
            self.high = value
        return True

    def prove(self, value: float) -> None:
        """Raise the bound to a value that no single routes reach."""
        self.low = value
        self.search.raise_bound(value)

    def without_heavy_loads(self, value: float, pins: dict[str, dict[int, int]]) -> Outcome:
        """Return the outcome of shared routes without loads that would exceed ``value`` alone, with more ``pins``.

        For ``makespan`` it is that of the first interval of the longest delay that could not be excluded.
        """
        problem = dataclasses.replace(self.relaxed, most_load=value, pins=pins)
        if problem.goal != "makespan":
            return self._solve(problem, threshold=value)
        for _ in range(DELAY_ROUNDS):
            least_s = _least_delay_s(problem)
            if least_s >= value:  # also where no light route is left
                return Outcome("infeasible")
            problem = dataclasses.replace(problem, most_load=value - least_s)
        intervals, left = [(least_s, value)], MAX_INTERVALS
        while intervals:
            low_s, high_s = intervals.pop()
            outcome = self._within(problem, value, low_s, high_s)
            if excludes(outcome, value):
                continue
            left -= 1
            if left <= 0 or high_s - low_s < MIN_INTERVAL * value:
                return outcome
            middle_s = low_s + SHORTER_PART * (high_s - low_s)
            intervals += [(middle_s, high_s), (low_s, middle_s)]
        return Outcome("infeasible")

    def _within(self, problem: Problem, value: float, low_s: float, high_s: float) -> Outcome:
        """Return the outcome of shared routes whose longest unloaded delay is in an interval."""
        limited = dataclasses.replace(
            problem,
            most_load=min(problem.most_load, value - low_s),
            least_delay_s=low_s,
            most_delay_s=high_s if high_s < value else np.inf,
        )
        return self._solve(limited, threshold=value)

    def _solve(self, problem: Problem, part: float = 1.0, threshold: float | None = None) -> Outcome:
        options = self.search.options
        limited = dataclasses.replace(
            options,
            time_limit_s=part * self.search.left_s,
            gap=max(options.gap, ACCURACY),
            threshold=threshold,
            progress=None,
            start=(),
            known=(),
        )
        outcome = colgen.solve(problem, limited)
        self.routes.update(
            ((source, dataclasses.replace(choice, share=1.0)), None)
            for choices in outcome.incumbents
            for source, of_source in enumerate(choices)
            for choice in of_source
        )
        return outcome


def excludes(outcome: Outcome, value: float) -> bool:
    """Return whether the outcome of a relaxation excludes all routes with objective ``value``."""
    return outcome.status == "infeasible" or outcome.bound > value


def _least_delay_s(problem: Problem) -> float:
    """Return the longest of the sources' least unloaded delays, in seconds."""
    sources = len(problem.demands)
    none = np.zeros(sources)
    prices = Prices(np.zeros((len(problem.classes.weight), len(problem.resources))), none, none + 1, none)
    return max(cheapest_route(problem, source, prices)[0] for source in range(sources))
