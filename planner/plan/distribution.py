"""The distribution of the delay of a fixed plan, by transforms: percentiles, and the share of late samples.

As in :mod:`planner.plan.queueing`, each worker and network is a priority M/G/1 queue that is preempted between pieces
only, and a delay is the sum of independent legs. For class k at one resource, with A_H(s) = Σ_{j<k} λ_j E e^{−s S_j}
over the visits S of more important classes, A_k likewise over its own, A_L over the pieces B of less important ones,
Λ their rates at s = 0 and ρ the utilisation by all:

    σ(s)   = s + Λ_H − A_H(σ(s))                                     the time s, prolonged by more important work
    E e^{−sW} = [(1 − ρ) σ + Λ_L − A_L(σ)] / [s − Λ_k + A_k(σ)]      the wait before the first piece
    E e^{−sT} = E e^{−sW} · E e^{−σ (S − S_last)} · E e^{−s S_last}

Bursts of a source prolong W as :mod:`planner.plan.bursts` has it.

The times of visits and of pieces are gamma distributed with their means and variances, and constant without variance.
The product over the legs of a way, mixed over the ways of a sample, is inverted by a fast Fourier transform on a damped
contour, smoothed by a normal kernel as wide as the step.

References
----------
R. W. Conway, W. L. Maxwell, L. W. Miller, "Theory of Scheduling" (1967), section 8-6.
J. Abate, W. Whitt, "The Fourier-series method for inverting transforms of probability distributions", Queueing Systems
10 (1992).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from planner.plan.bursts import Bursts
from planner.plan.journey import Journey, Visit, Way
from planner.plan.priority_queues import Queue, queue_key, queues
from planner.plan.service_times import Complex, prolonged, transform
from planner.plan.smoothing import Stream, arrivals
from planner.plan.types import Route

STEPS: Final = 2048
"""Number of steps of the inversion."""
DAMPING: Final = 16.0
"""Exponent by which the density is damped over the range, so that what lies beyond hardly matters."""
SMOOTHING: Final = 1.2
"""Standard deviation of the kernel, in steps."""
MARGIN: Final = 6
"""Steps before 0 and before the end of the range that are left to the kernel."""
TAIL: Final = 14.0
"""The range extends this many mean waits of the slowest leg beyond the mean delay."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class DelayDistribution:
    """Distribution of a delay: ``below`` [n] is the probability of at most n ``step_s``; None if it is infinite."""

    step_s: float
    below: Array | None

    def percentile_s(self, level: float) -> float:
        """Return the delay that a share ``level`` in (0, 1) of the samples does not exceed, in seconds."""
        if self.below is None:
            return math.inf
        after = int(np.searchsorted(self.below, level))
        if after >= len(self.below):
            return after * self.step_s
        low = float(self.below[after - 1]) if after else 0.0
        part = (level - low) / max(float(self.below[after]) - low, 1e-300)
        return (after - 1 + part) * self.step_s

    @property
    def mean_s(self) -> float:
        """Mean delay in seconds."""
        return math.inf if self.below is None else float((1 - self.below).sum()) * self.step_s

    def with_wait(self, least_s: float, mean_s: float) -> DelayDistribution:
        """Return the distribution in which all beyond ``least_s`` is longer or shorter, so that the mean is ``mean_s``.

        An infinite one stays as it is.
        """
        if self.below is None or not math.isfinite(mean_s):
            return DelayDistribution(0.0, None)
        factor = max(mean_s - least_s, 0.0) / max(self.mean_s - least_s, 1e-12)
        before_s = np.arange(len(self.below)) * self.step_s
        now_s = np.where(before_s < least_s, before_s, least_s + factor * (before_s - least_s))
        step_s = float(now_s[-1]) / (len(now_s) - 1)
        return DelayDistribution(step_s, np.interp(np.arange(len(now_s)) * step_s, now_s, self.below))

    def share_beyond(self, delay_s: float) -> float:
        """Return the share of samples whose delay exceeds ``delay_s``."""
        if self.below is None:
            return 1.0
        steps = np.arange(len(self.below)) * self.step_s
        return float(1 - np.interp(delay_s, steps, self.below))


@dataclass
class _Legs:
    """The transforms of the legs of one source on one contour; each is made once."""

    s: Complex
    _waits: dict[tuple[int, int], tuple[Complex, Complex]] = field(default_factory=dict)

    def of(self, way: Way, visits: Sequence[Visit], at: Sequence[Queue]) -> Complex:
        """Return E e^{−sT} of a way, from the queue of each visit."""
        total = np.ones_like(self.s)
        now_s = 0.0
        returns: dict[str, _Returns] = {}
        for number, pieces in way.legs:
            visit, queue = visits[number], at[number]
            _, sigma = self._wait(queue)
            head_s, variance = visit.piece_s[: pieces - 1].sum(), (visit.piece_std_s[: pieces - 1] ** 2).sum()
            if head_s > 0:
                total *= transform(float(head_s), float(variance), sigma)
            last_s, last_variance = float(visit.piece_s[pieces - 1]), float(visit.piece_std_s[pieces - 1] ** 2)
            if last_s > 0:
                total *= transform(last_s, last_variance, self.s)
            total *= np.exp(-self.s * visit.latency_s)
            before = returns.setdefault(visit.resource, _Returns(now_s))
            before.queues.append(queue)
            before.same.append(queue.echo(now_s - before.left_s))
            now_s += queue.wait_s + float(head_s) / (1 - queue.above.load) + last_s
            before.left_s = now_s
            now_s += visit.latency_s
        for before in returns.values():
            total *= self._waits_of(before.queues, before.same)
        return total

    def _waits_of(self, queues: Sequence[Queue], same: Sequence[float]) -> Complex:
        """Return E e^{−s ΣW} of the waits of visits to one resource.

        Each is with probability ``same`` the wait of the visit before, else independent of it: who returns soon meets
        the work that came while it was there.
        """
        ends = [np.ones_like(self.s)]  # E e^{−s ΣW} of the waits after each visit, the last one first
        for first in range(len(same) - 1, -1, -1):
            total, together = np.zeros_like(self.s), 1.0
            for after in range(first + 1, len(same) + 1):
                apart = 1 - same[after] if after < len(same) else 1.0
                total += together * apart * self._wait(queues[first], after - first)[0] * ends[len(same) - after]
                together *= 1 - apart
            ends.append(total)
        return ends[-1]

    def _wait(self, queue: Queue, times: int = 1) -> tuple[Complex, Complex]:
        """Return E e^{−s times W}, and σ(s times)."""
        key = id(queue), times
        if key not in self._waits:
            s = times * self.s
            self._waits[key] = queue.felt_wait(s), prolonged(queue.above, s)
        return self._waits[key]


@dataclass
class _Returns:
    """Visits to one resource: when the last one ended on average, and how far each depends on the one before."""

    left_s: float
    queues: list[Queue] = field(default_factory=list)
    same: list[float] = field(default_factory=list)


class Flow(NamedTuple):
    """The samples of one source: how important they are (``level`` 0 is the most important), rate, and routes.

    ``variability`` is the squared coefficient of variation of the times between arrivals.
    ``bursts`` are those of the source, if there are any.
    """

    level: int
    rate_per_s: float
    trips: Sequence[tuple[Route, Journey]]
    variability: float = 1.0
    bursts: Bursts | None = None


def delay_distributions(flows: Mapping[str, Flow], sources: Iterable[str]) -> dict[str, DelayDistribution]:
    """Return the distribution of the delay of each of ``sources``, which wait for the samples of all ``flows``."""
    streams = [
        Stream(
            level=flow.level,
            rate_per_s=flow.rate_per_s * route.share * visit.probability,
            visit=visit,
            source=source,
            before=tuple(journey.visits[earlier] for earlier in journey.before[number]),
            after=tuple(journey.visits[later] for later in journey.after[number]),
            variability=flow.variability,
            bursts=flow.bursts,
        )
        for source, flow in flows.items()
        for route, journey in flow.trips
        for number, visit in enumerate(journey.visits)
    ]
    arrive = arrivals(streams)
    found = queues(streams, arrive)
    in_order = iter(
        found[stream.visit.resource, stream.level, queue_key(stream, arrival)]
        for stream, arrival in zip(streams, arrive, strict=True)
    )
    waits = {
        source: [[next(in_order) for _ in trip.visits] for _, trip in flow.trips] for source, flow in flows.items()
    }
    return {source: _delay_distribution(flows[source].trips, waits[source]) for source in sources}


def _delay_distribution(trips: Sequence[tuple[Route, Journey]], waits: Sequence[Sequence[Queue]]) -> DelayDistribution:
    """Return the distribution of a source's delay from the queue of each visit of each of its routes."""
    range_s = max(_range_s(journey, at) for (_, journey), at in zip(trips, waits, strict=True))
    if not math.isfinite(range_s):
        return DelayDistribution(0.0, None)
    step_s = max(range_s, 1e-12) / STEPS
    frequency = 2 * np.pi * np.arange(STEPS // 2 + 1) / (STEPS * step_s)
    s: Complex = (DAMPING / (STEPS * step_s) + 1j * frequency).astype(np.complex128)
    legs = _Legs(s)
    total = np.zeros_like(s)
    for (route, journey), at in zip(trips, waits, strict=True):
        for way in journey.ways:
            total += route.share * way.probability * legs.of(way, journey.visits, at)
    total *= np.exp((SMOOTHING * step_s * s) ** 2 / 2 - MARGIN * step_s * s)
    density = np.fft.irfft(total, STEPS) * np.exp(DAMPING * np.arange(STEPS) / STEPS)
    below = (np.cumsum(density) - density / 2)[MARGIN : STEPS - MARGIN]
    return DelayDistribution(step_s, np.clip(np.maximum.accumulate(below), 0.0, 1.0))


def _range_s(journey: Journey, at: Sequence[Queue]) -> float:
    """Return a delay that hardly any sample exceeds, in seconds."""
    slowest_s, total_s, variance = 0.0, journey.latency_s, 0.0
    for visit, queue in zip(journey.visits, at, strict=True):
        free = 1 - queue.above.load
        if queue.busy >= 1:
            return math.inf
        slowest_s = max(slowest_s, queue.longest_s)
        total_s += queue.wait_s + float(visit.piece_s.sum()) / free
        variance += float((visit.piece_std_s**2).sum()) / free**2
    return 1.2 * total_s + TAIL * slowest_s + 6 * math.sqrt(variance)
