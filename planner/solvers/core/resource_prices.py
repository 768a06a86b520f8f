"""Prices of resources, delays and accuracies: what each source pays for what its samples use."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np

from planner.solvers.core.problem import Array, Problem


@dataclass(frozen=True)
class Moves:
    """What a sample pays for a move, receivers as rows: ``base`` and ``per_byte`` [D, D].

    ``base`` is for latency and for beginning a stage, ``latency`` without the latter. ``least_base`` and
    ``least_per_byte`` [D] are the least from any other worker.
    """

    latency: Array
    base: Array
    per_byte: Array
    least_base: Array
    least_per_byte: Array

    @classmethod
    def of(cls, problem: Problem, overhead_s: Array, second: Array, latency: float) -> Moves:
        """Collect them at the prices of a second of each resource, ``second`` [R], and of one of latency."""
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
    """What resources cost each class, in units of the objective.

    Parameters
    ----------
    of_class
        Price of a unit of utilisation of each resource to a source of class k; never increases with k; shape [K, R].
    latency
        Price of a second of latency to one sample a second of each source; shape [S].
    second
        Price of a second of pure work, transfer or latency to one sample of each source: for deadlines, and for
        ``makespan`` for the longest route; shape [S].
    accuracy
        What a source is paid for its accuracy, for least accuracies; shape [S].
    late
        The part of ``second`` that is for the longest route; shape [S].
    """

    of_class: Array
    latency: Array
    second: Array
    accuracy: Array
    late: Array | float = 0.0

    @classmethod
    def of_delay(cls, problem: Problem, of_class: Array) -> Prices:
        """Prices of the goal ``delay`` without deadlines and least accuracies."""
        priority = np.array([demand.priority for demand in problem.demands])
        zero = np.zeros(len(problem.demands))
        return cls(of_class, priority, zero, zero)

    def mixed(self, other: Prices, part: float) -> Prices:
        """Give these prices with some ``part`` of the ``other`` ones."""
        pairs = ((getattr(self, name), getattr(other, name)) for name in (field.name for field in fields(self)))
        return Prices(*((1 - part) * own + part * theirs for own, theirs in pairs))

    @cached_property
    def _shared(self) -> dict[tuple[object, ...], tuple[Array, Moves]]:
        return {}

    def of_source(self, problem: Problem, source: int, variant: int) -> tuple[Array, Moves]:
        """Give what a sample pays for a second of each resource [R], and for moves; sources that are alike share it."""
        volume, level = problem.demands[source].volume, int(problem.classes.of_source[source])
        overhead_s = problem.variants[variant].overhead_s
        key = (level, volume, self.latency[source], self.second[source], overhead_s.tobytes())
        if key not in self._shared:
            second = volume * self.of_class[level] + self.second[source]
            latency = volume * self.latency[source] + self.second[source]
            self._shared[key] = second, Moves.of(problem, overhead_s, second, float(latency))
        return self._shared[key]
