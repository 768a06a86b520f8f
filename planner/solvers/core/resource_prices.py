"""Shadow prices of resources, delays and accuracies, and the marginal prices at given utilisations."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np

from planner.plan.surrogate import congestion, congestion_slope
from planner.solvers.core.problem import Array, Choice, Problem

KNEE_UTILISATION = 0.98
"""From this utilisation on, G is continued by its second-order expansion."""


@dataclass(frozen=True)
class Moves:
    """What a sample pays to move to another worker, receivers as rows.

    Parameters
    ----------
    latency
        For the latency of the path; shape [D, D].
    base
        For latency and the start of a stage; shape [D, D].
    per_byte
        Per byte sent; shape [D, D].
    least_base, least_per_byte
        The least of each from any other worker; shape [D].
    """

    latency: Array
    base: Array
    per_byte: Array
    least_base: Array
    least_per_byte: Array

    @classmethod
    def of(cls, problem: Problem, overhead_s: Array, second: Array, latency: float) -> Moves:
        """Return the prices of moves, given those of a second of each resource, ``second`` [R], and of latency."""
        linked = np.isfinite(problem.latency_s)
        per_sample = np.where(linked, latency * np.where(linked, problem.latency_s, 0.0), np.inf)
        per_byte = (problem.hop_s_per_byte * second[problem.hop_resource]).sum(axis=2)
        base = per_sample + overhead_s * second[: len(overhead_s)]
        np.fill_diagonal(base, 0.0)
        np.fill_diagonal(per_byte, 0.0)
        elsewhere = linked & ~np.eye(len(base), dtype=bool)
        least_per_byte = per_byte.min(axis=0, where=elsewhere, initial=np.inf)
        return cls(
            latency=np.ascontiguousarray(per_sample.T),
            base=np.ascontiguousarray(base.T),
            per_byte=np.ascontiguousarray(per_byte.T),
            least_base=base.min(axis=0, where=elsewhere, initial=np.inf),
            least_per_byte=np.where(elsewhere.any(axis=0), least_per_byte, 0.0),
        )

    def of_home(self, home: int) -> HomeMoves:
        """Return the prices of moves from ``home`` and to it."""
        return HomeMoves(self.latency[:, home], self.per_byte[:, home], self.latency[home], self.per_byte[home])


@dataclass(frozen=True)
class HomeMoves:
    """What a sample pays to move between its source's worker and each other one, for latency and per byte; all [D]."""

    from_latency: Array
    from_per_byte: Array
    to_latency: Array
    to_per_byte: Array

    @classmethod
    def of(cls, problem: Problem, home: int, second: Array, latency: float) -> HomeMoves:
        """Return the prices of moves from ``home`` and to it, given those of a ``second`` [R] and of ``latency``."""
        latency_s = np.stack([problem.latency_s[home], problem.latency_s[:, home]])
        linked = np.isfinite(latency_s)
        from_latency, to_latency = np.where(linked, latency * np.where(linked, latency_s, 0.0), np.inf)
        from_per_byte, to_per_byte = (
            (problem.hop_s_per_byte[moves] * second[problem.hop_resource[moves]]).sum(axis=1)
            for moves in (np.s_[home], np.s_[:, home])
        )
        return cls(from_latency, from_per_byte, to_latency, to_per_byte)


@dataclass(frozen=True)
class Prices:
    """Shadow prices in units of the objective.

    Parameters
    ----------
    of_class
        Price of a unit of utilisation of each resource for a source of class k; nonincreasing in k; shape [K, R].
    latency
        Price of a second of latency for each source, per sample per second; shape [S].
    second
        Price of a second of pure work, transfer or latency for one sample of each source: the shadow price of its
        deadline, and for ``makespan`` that of the longest route; shape [S].
    accuracy
        Shadow price of the minimum accuracy of each source; shape [S].
    late
        The part of ``second`` that belongs to the longest route; shape [S].
    memory
        Price of all the room of each worker for weights, where blocks may be resident in part; shape [D].
    """

    of_class: Array
    latency: Array
    second: Array
    accuracy: Array
    late: Array | float = 0.0
    memory: Array | float = 0.0

    @classmethod
    def of_delay(cls, problem: Problem, of_class: Array) -> Prices:
        """Return the prices of the goal ``delay`` without deadlines and minimum accuracies."""
        priority = np.array([demand.priority for demand in problem.demands])
        zero = np.zeros(len(problem.demands))
        return cls(of_class, priority, zero, zero)

    def mixed(self, other: Prices, part: float) -> Prices:
        """Return the convex combination with weight ``part`` on the ``other`` prices."""
        pairs = ((getattr(self, name), getattr(other, name)) for name in (field.name for field in fields(self)))
        return Prices(*((1 - part) * mine + part * theirs for mine, theirs in pairs))

    @cached_property
    def _of_similar_sources(self) -> dict[tuple[object, ...], tuple[Array, Moves]]:
        """At most one entry per source and variant; dropped with these prices after one round."""
        return {}

    def of_source(self, problem: Problem, source: int, variant: int) -> tuple[Array, Moves]:
        """Return what a sample per second pays for a second of each resource [R], and for moves.

        Sources of the same class and prices share one result.
        """
        level, limits = int(problem.classes.of_source[source]), self._limits(problem, source)
        overhead_s = problem.variants[variant].overhead_s
        key = (level, self.latency[source], limits, overhead_s.tobytes())
        if key not in self._of_similar_sources:
            second, latency = self.of_class[level] + limits, float(self.latency[source] + limits)
            self._of_similar_sources[key] = second, Moves.of(problem, overhead_s, second, latency)
        return self._of_similar_sources[key]

    def of_home(self, problem: Problem, source: int) -> tuple[Array, HomeMoves]:
        """Return what a sample per second pays for a second of each resource [R], and for moves from home and to it."""
        limits = self._limits(problem, source)
        second = self.of_class[problem.classes.of_source[source]] + limits
        latency = float(self.latency[source] + limits)
        return second, HomeMoves.of(problem, problem.demands[source].home, second, latency)

    def _limits(self, problem: Problem, source: int) -> float:
        return float(self.second[source]) / float(problem.volume[source])

    def of_blocks(self, problem: Problem, source: int, variant: int) -> Array | None:
        """Return what a sample per second pays for the memory of each block on each worker [L, D]; None if nothing."""
        if not problem.room_parts:
            return None
        parts = problem.room_parts[problem.variants[variant].model]
        return np.asarray(parts * self.memory / problem.volume[source])


def smooth_congestion(sigma: Array, kappa: float) -> tuple[Array, Array, Array]:
    """Return G, G' and G'' at ``sigma``, continued quadratically above the knee so that overload has a finite price."""
    below = np.minimum(sigma, KNEE_UTILISATION)
    beyond = sigma - below
    value, slope = congestion(below, kappa), congestion_slope(below, kappa)
    curvature = 2 * kappa / (1 - below) ** 3
    return value + beyond * (slope + curvature * beyond / 2), slope + curvature * beyond, curvature


def marginal_prices(problem: Problem, sigma: Array) -> Array:
    """Return the marginal price of load of each class on each resource at utilisations ``sigma``; both [K, R]."""
    _, slope, _ = smooth_congestion(sigma, problem.kappa)
    return np.asarray(np.cumsum((problem.classes.weight[:, None] * slope)[::-1], axis=0)[::-1])


class RunningPrices:
    """The marginal prices while routes of single sources change: only those of the resources touched are recomputed.

    ``load`` is that of each source on each resource; shape [S, R].
    """

    def __init__(self, problem: Problem, load: Array | None = None) -> None:
        self._problem = problem
        shape = (len(problem.demands), len(problem.resources))
        self.load = np.zeros(shape) if load is None else load
        self._sigma = problem.classes.nested(self.load)
        self._of_class = marginal_prices(problem, self._sigma)

    def prices(self) -> Prices:
        """Return the prices at the present loads."""
        return Prices.of_delay(self._problem, self._of_class)

    def drop(self, source: int) -> None:
        """Take a source's samples off all routes."""
        self._add(source, -self.load[source])

    def move(self, source: int, choice: Choice, share: float = 1.0) -> None:
        """Move a ``share`` of a source's samples to one route."""
        cost = self._problem.cost(source, choice)
        more = -share * self.load[source]
        more[cost.resources] += share * self._problem.demands[source].volume * cost.seconds
        self._add(source, more)

    def _add(self, source: int, more: Array) -> None:
        touched = np.flatnonzero(more)  # few of all resources
        self.load[source, touched] += more[touched]
        self._sigma[self._problem.classes.of_source[source] :, touched] += more[touched]
        self._of_class[:, touched] = marginal_prices(self._problem, self._sigma[:, touched])
