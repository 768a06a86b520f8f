"""What accuracy costs in delay: the Pareto front of a scenario.

Both are means over samples, weighted by priority. The ends are the least delay, and the least delay at the best
accuracies. Between two neighbours (A₁, T₁), (A₂, T₂) the worth of a percentage point at which both are equally good,
(T₂ − T₁) / (100 (A₂ − A₁)), finds a point beyond their chord if there is one; where there is none, a least accuracy
half-way finds what the front's hull hides. The widest gap comes first.

References
----------
Y. P. Aneja and K. P. K. Nair, "Bicriteria transportation problem", Management Science 25 (1979).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from planner.errors import SolveError
from planner.plan.evaluate import weighted_means
from planner.plan.types import PlanSpec
from planner.scenario.instance import Instance
from planner.solvers.solve import Routes, solve

BISECTIONS = 5
"""So often the best accuracies are lowered half-way where the workers cannot bear them."""
SAME = 1e-6
"""Points that differ by less, as a part of the front's width, are one."""


@dataclass(frozen=True)
class ParetoPoint:
    """A plan on the front.

    Parameters
    ----------
    accuracy, delay_s
        Means over the sources, weighted by priority times rate; delays in seconds, evaluated.
    accuracy_worth_s
        What a percentage point had to be worth for this plan, in seconds.
    min_accuracy
        What each source had to reach for it.
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
    """Give the front's points, the quickest first; empty when there is no plan at all.

    Parameters
    ----------
    points
        How many plans to make at most between the ends; ``time_limit_s`` is for each of them.
    progress
        Called with each plan that is made.

    Raises
    ------
    SolveError
        The goal is not ``delay``: the others do not see accuracy.
    """
    if instance.scenario.objective.goal != "delay":
        raise SolveError(
            "the front is between accuracy and delay",
            where="objective.goal",
            value=instance.scenario.objective.goal,
            expected="delay",
        )

    def make(worth_s: float, floors: dict[str, float], start: PlanSpec | None) -> ParetoPoint | None:
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

    return _Front(instance, make).run(points)


Make = Callable[[float, dict[str, float], "PlanSpec | None"], "ParetoPoint | None"]


@dataclass
class _Front:
    instance: Instance
    make: Make
    found: list[ParetoPoint] = field(default_factory=list)
    closed: set[tuple[int, int]] = field(default_factory=set)
    """Chords, as pairs of points by identity, between which nothing more was found."""

    def run(self, points: int) -> tuple[ParetoPoint, ...]:
        quickest = self.make(0.0, self._floors(0.0), None)
        if quickest is None:
            return ()
        self.found = [quickest]
        if accurate := self._most_accurate():
            self.found = _undominated([quickest, accurate])
        tries = 0
        while tries < points and (chord := self._widest()):
            tries += self._split(*chord)
        return tuple(self.found)

    def _most_accurate(self) -> ParetoPoint | None:
        """Give the quickest plan at the best accuracies, or at the best that the workers can bear."""
        low, high, part = 0.0, 1.0, 1.0
        best: ParetoPoint | None = None
        for _ in range(BISECTIONS):
            point = self.make(0.0, self._floors(part), None)
            if point is None:
                high = part
            else:
                best, low = point, part
            if low == high:
                break
            part = (low + high) / 2
        return best

    def _split(self, one: ParetoPoint, other: ParetoPoint) -> int:
        """Look for points between two neighbours; how many plans were made."""
        worth_s = (other.delay_s - one.delay_s) / (100 * (other.accuracy - one.accuracy))
        if self._take(self.make(worth_s, self._floors(0.0), one.plan)):
            return 1
        floors = {
            source: max(floor, (one.plan.sources[source].accuracy + other.plan.sources[source].accuracy) / 2)
            for source, floor in self._floors(0.0).items()
        }
        if not self._take(self.make(0.0, floors, other.plan)):
            self.closed.add((id(one), id(other)))
        return 2

    def _take(self, point: ParetoPoint | None) -> bool:
        """Keep a point that is better than the others; whether it was."""
        if point is None:
            return False
        accuracy, delay_s = SAME * self._width(), SAME * self.found[-1].delay_s
        if any(p.accuracy >= point.accuracy - accuracy and p.delay_s <= point.delay_s + delay_s for p in self.found):
            return False
        self.found = _undominated([*self.found, point])
        return True

    def _widest(self) -> tuple[ParetoPoint, ParetoPoint] | None:
        """Give the neighbours farthest apart in accuracy between which more may be found."""
        chords = [
            (one, other) for one, other in itertools.pairwise(self.found) if (id(one), id(other)) not in self.closed
        ]
        return max(chords, key=lambda chord: chord[1].accuracy - chord[0].accuracy, default=None)

    def _width(self) -> float:
        return self.found[-1].accuracy - self.found[0].accuracy

    def _floors(self, part: float) -> dict[str, float]:
        """Give least accuracies that lie this part of the way from each source's worst model to its best."""
        floors = {}
        for source, spec in self.instance.scenario.sources.items():
            values = [point.accuracy for model in spec.models for point in self.instance.operating_points(model)]
            asked = min(values) + part * (max(values) - min(values)) if part else 0.0
            floors[source] = max(asked, spec.min_accuracy or 0.0)
        return floors


def _undominated(points: Iterable[ParetoPoint]) -> list[ParetoPoint]:
    """Give the points that no other beats in both, by accuracy."""
    kept: list[ParetoPoint] = []
    for point in sorted(points, key=lambda point: (-point.accuracy, point.delay_s)):
        if not kept or point.delay_s < kept[-1].delay_s:
            kept.append(point)
    return kept[::-1]


def _changed(instance: Instance, worth_s: float, floors: dict[str, float]) -> Instance:
    wanted = {name: {"min_accuracy": floors[name] or None} for name in instance.sources}
    return instance.with_sources(wanted).with_objective(accuracy_worth_s=worth_s)
