"""Shadow prices of resources, delays and accuracies, and the marginal prices at given utilisations."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np

from planner.plan.surrogate import congestion, congestion_slope
from planner.solvers.core.problem import Array, Problem

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
        level, limits = int(problem.classes.of_source[source]), float(self.second[source]) / problem.volume[source]
        overhead_s = problem.variants[variant].overhead_s
        key = (level, self.latency[source], limits, overhead_s.tobytes())
        if key not in self._of_similar_sources:
            second, latency = self.of_class[level] + limits, float(self.latency[source] + limits)
            self._of_similar_sources[key] = second, Moves.of(problem, overhead_s, second, latency)
        return self._of_similar_sources[key]

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
