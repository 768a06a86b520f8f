"""The Pareto front between accuracy and delay of a scenario.

Both are means over samples, weighted by priority. The ends of the front are the least delay, and the least delay at the
best accuracies. Between two neighbours (A₁, T₁), (A₂, T₂), the value of a percentage point at which both are equally
good, (T₂ − T₁) / (100 (A₂ − A₁)), finds a point beyond their chord if there is one (Aneja and Nair). If there is none,
a minimum accuracy halfway between them finds points inside the convex hull. The widest interval is split first.

References
----------
Y. P. Aneja and K. P. K. Nair, "Bicriteria transportation problem", Management Science 25 (1979).
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from planner.errors import SolveError
from planner.plan.evaluate import weighted_means
from planner.plan.types import PlanSpec
from planner.scenario.instance import Instance
from planner.solvers.core.interrupt import on_interrupt
from planner.solvers.solve import Routes, solve

MAX_BISECTIONS = 5
"""Number of bisection steps that lower the best accuracies if the workers cannot achieve them."""
POINT_TOLERANCE = 1e-6
"""Difference, relative to the width of the front, below which two points are the same."""


@dataclass(frozen=True)
class ParetoPoint:
    """A plan on the front.

    Parameters
    ----------
    accuracy, delay_s
        Means over the sources, weighted by priority times rate; the delay is evaluated, in seconds.
    accuracy_worth_s
        Value of a percentage point for which the plan was made, in seconds.
    min_accuracy
        Minimum accuracy of each source for which the plan was made.
    """

    accuracy: float
    delay_s: float
    accuracy_worth_s: float
    min_accuracy: dict[str, float]
    plan: PlanSpec


def pareto(
    instance: Instance,
    *,
    points: int = 9,
    method: str = "auto",
    routes: Routes | None = None,
    time_limit_s: float = 10.0,
    seed: int = 0,
    threads: int = 1,
    progress: Callable[[ParetoPoint], None] | None = None,
) -> tuple[ParetoPoint, ...]:
    """Return the points of the front, the fastest first; empty if there is no plan at all.

    Parameters
    ----------
    points
        Maximum number of plans to make between the ends.
    time_limit_s
        Time limit of each plan.
    progress
        Called with each plan that is made.

    Raises
    ------
    SolveError
        The goal is not ``delay``: the other goals do not include accuracy.
    """
    if instance.scenario.objective.goal != "delay":
        raise SolveError(
            "the front is between accuracy and delay",
            where="objective.goal",
            value=instance.scenario.objective.goal,
            expected="delay",
        )

    stop = threading.Event()

    def make(worth_s: float, floors: dict[str, float], start: PlanSpec | None) -> ParetoPoint | None:
        if stop.is_set():
            return None
        solution = solve(
            _changed(instance, worth_s, floors),
            method=method,
            routes=routes,
            time_limit_s=time_limit_s,
            seed=seed,
            threads=threads,
            start=start,
        )
        if solution.plan is None:
            return None
        delay_s, accuracy = weighted_means(instance, solution.plan.sources)
        point = ParetoPoint(accuracy, delay_s, worth_s, floors, solution.plan)
        if progress:
            progress(point)
        return point

    with on_interrupt(stop):
        return _Front(instance, make).run(points)


Make = Callable[[float, dict[str, float], "PlanSpec | None"], "ParetoPoint | None"]


@dataclass
class _Front:
    """The search for the front; ``points`` are those found so far, by ascending accuracy and delay."""

    instance: Instance
    make: Make
    points: list[ParetoPoint] = field(default_factory=list)
    closed: set[tuple[int, int]] = field(default_factory=set)
    """Pairs of neighbours, by identity, between which there is no further point."""

    def run(self, max_plans: int) -> tuple[ParetoPoint, ...]:
        fastest = self.make(0.0, self._floors(0.0), None)
        if fastest is None:
            return ()
        self.points = [fastest]
        if accurate := self._most_accurate():
            self.points = _undominated([fastest, accurate])
        plans = 0
        while plans < max_plans and (neighbours := self._widest()):
            plans += self._split(*neighbours)
        return tuple(self.points)

    def _most_accurate(self) -> ParetoPoint | None:
        """Return the fastest plan at the best accuracies, or at the best ones that the workers can achieve."""
        low, high, part = 0.0, 1.0, 1.0
        best: ParetoPoint | None = None
        for _ in range(MAX_BISECTIONS):
            point = self.make(0.0, self._floors(part), None)
            if point is None:
                high = part
            else:
                best, low = point, part
            if low == high:
                break
            part = (low + high) / 2
        return best

    def _split(self, faster: ParetoPoint, slower: ParetoPoint) -> int:
        """Look for a point between two neighbours; return how many plans were made."""
        worth_s = (slower.delay_s - faster.delay_s) / (100 * (slower.accuracy - faster.accuracy))
        if self._add(self.make(worth_s, self._floors(0.0), faster.plan)):
            return 1
        floors = {
            source: max(floor, (faster.plan.sources[source].accuracy + slower.plan.sources[source].accuracy) / 2)
            for source, floor in self._floors(0.0).items()
        }
        if not self._add(self.make(0.0, floors, slower.plan)):
            self.closed.add((id(faster), id(slower)))
        return 2

    def _add(self, point: ParetoPoint | None) -> bool:
        """Add a point unless it is dominated; return whether it was added."""
        if point is None:
            return False
        accuracy, delay_s = POINT_TOLERANCE * self._width(), POINT_TOLERANCE * self.points[-1].delay_s
        if any(p.accuracy >= point.accuracy - accuracy and p.delay_s <= point.delay_s + delay_s for p in self.points):
            return False
        self.points = _undominated([*self.points, point])
        return True

    def _widest(self) -> tuple[ParetoPoint, ParetoPoint] | None:
        """Return the neighbours farthest apart in accuracy between which there may be a further point."""
        intervals = [
            (faster, slower)
            for faster, slower in itertools.pairwise(self.points)
            if (id(faster), id(slower)) not in self.closed
        ]
        return max(intervals, key=lambda interval: interval[1].accuracy - interval[0].accuracy, default=None)

    def _width(self) -> float:
        return self.points[-1].accuracy - self.points[0].accuracy

    def _floors(self, part: float) -> dict[str, float]:
        """Return minimum accuracies at the fraction ``part`` from each source's worst operating point to its best."""
        floors = {}
        for source, spec in self.instance.scenario.sources.items():
            values = [point.accuracy for model in spec.models for point in self.instance.operating_points(model)]
            floor = min(values) + part * (max(values) - min(values)) if part else 0.0
            floors[source] = max(floor, spec.min_accuracy or 0.0)
        return floors


def _undominated(points: Iterable[ParetoPoint]) -> list[ParetoPoint]:
    """Return the points that no other dominates, by ascending accuracy."""
    kept: list[ParetoPoint] = []
    for point in sorted(points, key=lambda point: (-point.accuracy, point.delay_s)):
        if not kept or point.delay_s < kept[-1].delay_s:
            kept.append(point)
    return kept[::-1]


def _changed(instance: Instance, worth_s: float, floors: dict[str, float]) -> Instance:
    limits = {name: {"min_accuracy": floors[name] or None} for name in instance.sources}
    return instance.with_sources(limits).with_objective(accuracy_worth_s=worth_s)
