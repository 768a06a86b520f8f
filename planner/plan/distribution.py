"""The distribution of the delay of a fixed plan, by transforms: percentiles, and the share of late samples.

As in :mod:`planner.plan.queueing`, each worker and network is a priority M/G/1 queue that is preempted between pieces
only, and a delay is the sum of independent legs. For class k at one resource, with A_H(s) = Σ_{j<k} λ_j E e^{−s S_j}
over the visits S of more important classes, A_k likewise over its own, A_L over the pieces B of less important ones,
Λ their rates at s = 0 and ρ the utilisation by all:

    σ(s)   = s + Λ_H − A_H(σ(s))                                     the time s, prolonged by more important work
    E e^{−sW} = [(1 − ρ) σ + Λ_L − A_L(σ)] / [s − Λ_k + A_k(σ)]      the wait before the first piece
    E e^{−sT} = E e^{−sW} · E e^{−σ (S − S_last)} · E e^{−s S_last}

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
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from planner.plan.journey import Journey, Visit, Way
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
MAX_PARTS: Final = 8
"""Most parts of a mixture of times; those of similar means are joined."""
NEWTON_STEPS, PICARD_STEPS, TOLERANCE = 12, 300, 1e-9

Complex = NDArray[np.complex128]
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

    def share_beyond(self, delay_s: float) -> float:
        """Return the share of samples whose delay exceeds ``delay_s``."""
        if self.below is None:
            return 1.0
        steps = np.arange(len(self.below)) * self.step_s
        return float(1 - np.interp(delay_s, steps, self.below))


class Part(NamedTuple):
    """One of several kinds of time: its rate, mean and variance, in seconds."""

    rate_per_s: float
    mean_s: float
    variance: float


class Parts:
    """A mixture of times; A(s) = Σ rate · E e^{−s time}."""

    def __init__(self, parts: Iterable[Part]) -> None:
        self._parts = _joined([part for part in parts if part.rate_per_s > 0 and part.mean_s > 0])
        self.rate_per_s = sum(part.rate_per_s for part in self._parts)
        self.load = sum(part.rate_per_s * part.mean_s for part in self._parts)

    def transform(self, s: Complex) -> Complex:
        """Return A(s)."""
        total = np.zeros_like(s)
        for part in self._parts:
            total += part.rate_per_s * transform(part.mean_s, part.variance, s)
        return total

    def with_slope(self, s: Complex) -> tuple[Complex, Complex]:
        """Return A(s) and its derivative."""
        total, slope = np.zeros_like(s), np.zeros_like(s)
        for part in self._parts:
            value = part.rate_per_s * transform(part.mean_s, part.variance, s)
            total += value
            slope -= value * part.mean_s / (1 + s * part.variance / part.mean_s)
        return total, slope


def transform(mean_s: float, variance: float, s: Complex) -> Complex:
    """Return E e^{−s X} of a gamma distributed time X, or of a constant one."""
    if variance <= 1e-9 * mean_s**2:
        return np.exp(-s * mean_s)
    scale_s = variance / mean_s
    return np.exp(-mean_s / scale_s * np.log1p(s * scale_s))


def _joined(parts: list[Part]) -> list[Part]:
    """Return at most ``MAX_PARTS`` parts with the same rate, mean and variance in all."""
    while len(parts) > MAX_PARTS:
        parts.sort(key=lambda part: part.mean_s)
        apart = [after.mean_s / before.mean_s for before, after in pairwise(parts)]
        nearest = int(np.argmin(apart))
        one, two = parts[nearest : nearest + 2]
        rate = one.rate_per_s + two.rate_per_s
        mean = (one.rate_per_s * one.mean_s + two.rate_per_s * two.mean_s) / rate
        square = sum(part.rate_per_s * (part.variance + part.mean_s**2) for part in (one, two)) / rate
        parts[nearest : nearest + 2] = [Part(rate, mean, max(square - mean**2, 0.0))]
    return parts


@dataclass
class Queue:
    """One class of work at one resource: ``above`` it, its ``own``, and the pieces of what is ``below``."""

    above: Parts
    own: Parts
    below: Parts
    squares: float
    """Σ λ E S² over the visits of its own and more important classes, plus Σ λ E B² over the pieces of others."""
    shrink: float = 1.0
    """Mean wait relative to that of Poisson arrivals."""

    @property
    def busy(self) -> float:
        """Utilisation by its own and more important classes."""
        return self.above.load + self.own.load

    @property
    def wait_s(self) -> float:
        """Mean wait before the first piece, in seconds; infinite if there is more work than time."""
        if self.busy >= 1:
            return math.inf
        return self.shrink * self.squares / 2 / ((1 - self.above.load) * (1 - self.busy))

    def prolonged(self, s: Complex) -> Complex:
        """Return σ(s)."""
        above = self.above
        if above.rate_per_s == 0:
            return s
        sigma = s + above.rate_per_s - above.transform(s)
        for _ in range(NEWTON_STEPS):
            value, slope = above.with_slope(sigma)
            step = (sigma - s - above.rate_per_s + value) / (1 + slope)
            sigma = sigma - step
            if np.abs(step).max() < TOLERANCE * np.abs(s).max():
                break
        wrong = ~(sigma.real > 0) | (np.abs(sigma - s - above.rate_per_s + above.transform(sigma)) > 1e-6 * np.abs(s))
        if wrong.any():
            sigma[wrong] = self._by_iteration(s[wrong])
        return sigma

    def _by_iteration(self, s: Complex) -> Complex:
        sigma = s + self.above.rate_per_s
        for _ in range(PICARD_STEPS):
            sigma = s + self.above.rate_per_s - self.above.transform(sigma)
        return sigma

    def wait(self, s: Complex, sigma: Complex) -> Complex:
        """Return E e^{−sW}."""
        idle = max(1 - self.busy - self.below.load, 0.0)
        part = min(1.0, (1 - self.busy) / self.below.load) if self.below.load > 0 else 0.0
        blocked = part * (self.below.rate_per_s - self.below.transform(sigma))
        return (idle * sigma + blocked) / (s - self.own.rate_per_s + self.own.transform(sigma))


class Stream(NamedTuple):
    """Visits of one kind: their rate, and how important they are (``level`` 0 is the most important)."""

    level: int
    rate_per_s: float
    visit: Visit


def queues(streams: Sequence[Stream]) -> dict[tuple[str, int], Queue]:
    """Return the queue of each level at each resource that has visits of it."""
    at: dict[str, list[Stream]] = defaultdict(list)
    for stream in streams:
        at[stream.visit.resource].append(stream)
    found = {}
    for resource, here in at.items():
        wholes = {level: [part for it in here if it.level == level for part in _wholes(it)] for level in _levels(here)}
        pieces = {level: [part for it in here if it.level == level for part in _pieces(it)] for level in _levels(here)}
        for level, own in wholes.items():
            upper = [part for other, parts in wholes.items() if other <= level for part in parts]
            lower = [part for other, parts in pieces.items() if other > level for part in parts]
            found[resource, level] = Queue(
                above=Parts(part for other, parts in wholes.items() if other < level for part in parts),
                own=Parts(own),
                below=Parts(lower),
                squares=sum(part.rate_per_s * (part.variance + part.mean_s**2) for part in (*upper, *lower)),
            )
    return found


def _levels(streams: Iterable[Stream]) -> list[int]:
    return sorted({stream.level for stream in streams})


def _wholes(stream: Stream) -> Iterable[Part]:
    """Yield the times of whole visits, by the piece after which they end."""
    visit = stream.visit
    ends = -np.diff(np.append(visit.survival, 0.0))
    means, variances = np.cumsum(visit.piece_s), np.cumsum(visit.piece_std_s**2)
    for end in np.flatnonzero(ends > 0).tolist():
        yield Part(stream.rate_per_s * float(ends[end]), float(means[end]), float(variances[end]))


def _pieces(stream: Stream) -> Iterable[Part]:
    """Yield the times of pieces; equal ones together."""
    visit = stream.visit
    rates: dict[tuple[float, float], float] = defaultdict(float)
    for share, mean_s, std_s in zip(
        visit.survival.tolist(), visit.piece_s.tolist(), visit.piece_std_s.tolist(), strict=True
    ):
        rates[mean_s, std_s] += stream.rate_per_s * share
    for (mean_s, std_s), rate in rates.items():
        yield Part(rate, mean_s, std_s**2)


@dataclass
class _Legs:
    """The transforms of the legs of one source on one contour; each is made once."""

    s: Complex
    at: Callable[[Visit], Queue]
    _waits: dict[int, tuple[Complex, Complex]] = field(default_factory=dict)

    def of(self, way: Way, visits: Sequence[Visit]) -> Complex:
        """Return E e^{−sT} of a way."""
        total = np.ones_like(self.s)
        for number, pieces in way.legs:
            visit = visits[number]
            wait, sigma = self._wait(self.at(visit))
            head_s, variance = visit.piece_s[: pieces - 1].sum(), (visit.piece_std_s[: pieces - 1] ** 2).sum()
            total *= wait
            if head_s > 0:
                total *= transform(float(head_s), float(variance), sigma)
            last_s, last_variance = float(visit.piece_s[pieces - 1]), float(visit.piece_std_s[pieces - 1] ** 2)
            if last_s > 0:
                total *= transform(last_s, last_variance, self.s)
            total *= np.exp(-self.s * visit.latency_s)
        return total

    def _wait(self, queue: Queue) -> tuple[Complex, Complex]:
        known = self._waits.get(id(queue))
        if known is None:
            sigma = queue.prolonged(self.s)
            known = self._waits[id(queue)] = (queue.wait(self.s, sigma), sigma)
        return known


class Flow(NamedTuple):
    """The samples of one source: how important they are (``level`` 0 is the most important), rate, and routes."""

    level: int
    rate_per_s: float
    trips: Sequence[tuple[Route, Journey]]


def delay_distributions(flows: Mapping[str, Flow], sources: Iterable[str]) -> dict[str, DelayDistribution]:
    """Return the distribution of the delay of each of ``sources``, which wait for the samples of all ``flows``."""
    found = queues(
        [
            Stream(flow.level, flow.rate_per_s * route.share * visit.probability, visit)
            for flow in flows.values()
            for route, journey in flow.trips
            for visit in journey.visits
        ]
    )
    return {source: _delay_distribution(flows[source], found) for source in sources}


def _delay_distribution(flow: Flow, found: Mapping[tuple[str, int], Queue]) -> DelayDistribution:
    def at(visit: Visit) -> Queue:
        return found[visit.resource, flow.level]

    range_s = max(_range_s(journey, at) for _, journey in flow.trips)
    if not math.isfinite(range_s):
        return DelayDistribution(0.0, None)
    step_s = max(range_s, 1e-12) / STEPS
    frequency = 2 * np.pi * np.arange(STEPS // 2 + 1) / (STEPS * step_s)
    s: Complex = (DAMPING / (STEPS * step_s) + 1j * frequency).astype(np.complex128)
    legs = _Legs(s, at)
    total = np.zeros_like(s)
    for route, journey in flow.trips:
        for way in journey.ways:
            total += route.share * way.probability * legs.of(way, journey.visits)
    total *= np.exp((SMOOTHING * step_s * s) ** 2 / 2 - MARGIN * step_s * s)
    density = np.fft.irfft(total, STEPS) * np.exp(DAMPING * np.arange(STEPS) / STEPS)
    below = (np.cumsum(density) - density / 2)[MARGIN : STEPS - MARGIN]
    return DelayDistribution(step_s, np.clip(np.maximum.accumulate(below), 0.0, 1.0))


def _range_s(journey: Journey, at: Callable[[Visit], Queue]) -> float:
    """Return a delay that hardly any sample exceeds, in seconds."""
    slowest_s, total_s, variance = 0.0, journey.latency_s, 0.0
    for visit in journey.visits:
        queue = at(visit)
        free = 1 - queue.above.load
        if queue.busy >= 1:
            return math.inf
        waits = min(1.0, queue.busy + queue.below.load)
        slowest_s = max(slowest_s, queue.wait_s / max(waits, 0.05))
        total_s += queue.wait_s + float(visit.piece_s.sum()) / free
        variance += float((visit.piece_std_s**2).sum()) / free**2
    return 1.2 * total_s + TAIL * slowest_s + 6 * math.sqrt(variance)
