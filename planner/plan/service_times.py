"""Mixtures of the times of visits and of their pieces, and their Laplace transforms."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from planner.plan.journey import Visit

NEWTON_STEPS, PICARD_STEPS = 12, 300
TOLERANCE: Final = 1e-9
MAX_PARTS: Final = 8
"""Most parts of a mixture of times; those of similar means are joined."""

Complex = NDArray[np.complex128]


class Part(NamedTuple):
    """One of several kinds of time: its rate, mean and variance, in seconds.

    ``nests`` is the probability that other work comes during this one as if it had come at random.
    """

    rate_per_s: float
    mean_s: float
    variance: float
    nests: float = 1.0

    @property
    def square(self) -> float:
        """Rate times second moment."""
        return self.rate_per_s * (self.variance + self.mean_s**2)


class Parts:
    """A mixture of times; A(s) = Σ rate · E e^{−s time}."""

    def __init__(self, parts: Iterable[Part]) -> None:
        self._parts = _joined([part for part in parts if part.rate_per_s > 0 and part.mean_s > 0])
        self.rate_per_s = sum(part.rate_per_s for part in self._parts)
        self.load = sum(part.rate_per_s * part.mean_s for part in self._parts)
        self.nested = sum(part.rate_per_s * part.mean_s * part.nests for part in self._parts)

    def transform(self, s: Complex) -> Complex:
        """Return A(s)."""
        total = np.zeros_like(s)
        for part in self._parts:
            total += part.rate_per_s * transform(part.mean_s, part.variance, s)
        return total

    def within(self, s: Complex, sigma: Complex) -> tuple[Complex, Complex]:
        """Return A where other work prolongs times as σ says, as far as it nests, and the derivative by σ."""
        total, slope = np.zeros_like(s), np.zeros_like(s)
        for part in self._parts:
            at = s + part.nests * (sigma - s)
            value = part.rate_per_s * transform(part.mean_s, part.variance, at)
            total += value
            slope -= part.nests * value * part.mean_s / (1 + at * part.variance / part.mean_s)
        return total, slope


def transform(mean_s: float, variance: float, s: Complex) -> Complex:
    """Return E e^{−s X} of a gamma distributed time X, or of a constant one."""
    if variance <= 1e-9 * mean_s**2:
        return np.exp(-s * mean_s)
    scale_s = variance / mean_s
    return np.exp(-mean_s / scale_s * np.log1p(s * scale_s))


def prolonged(above: Parts, s: Complex) -> Complex:
    """Return σ(s): the exponent of a time during which more important work is served first, σ = s + Λ − A(σ)."""
    if above.rate_per_s == 0:
        return s
    sigma = s + above.rate_per_s - above.transform(s)
    for _ in range(NEWTON_STEPS):
        value, slope = above.within(s, sigma)
        step = (sigma - s - above.rate_per_s + value) / (1 + slope)
        sigma = sigma - step
        if np.abs(step).max() < TOLERANCE * np.abs(s).max():
            break
    error = np.abs(sigma - s - above.rate_per_s + above.within(s, sigma)[0])
    wrong = ~(sigma.real > 0) | (error > 1e-6 * np.abs(s))
    if wrong.any():
        sigma[wrong] = _by_iteration(above, s[wrong])
    return sigma


def _by_iteration(above: Parts, s: Complex) -> Complex:
    sigma = s + above.rate_per_s
    for _ in range(PICARD_STEPS):
        sigma = s + above.rate_per_s - above.within(s, sigma)[0]
    return sigma


def _joined(parts: list[Part]) -> list[Part]:
    """Return at most ``MAX_PARTS`` parts with the same rate, mean and variance in all."""
    while len(parts) > MAX_PARTS:
        parts.sort(key=lambda part: part.mean_s)
        apart = [after.mean_s / before.mean_s for before, after in pairwise(parts)]
        nearest = int(np.argmin(apart))
        one, two = parts[nearest : nearest + 2]
        rate = one.rate_per_s + two.rate_per_s
        mean = (one.rate_per_s * one.mean_s + two.rate_per_s * two.mean_s) / rate
        square = (one.square + two.square) / rate
        nests = (one.rate_per_s * one.nests + two.rate_per_s * two.nests) / rate
        parts[nearest : nearest + 2] = [Part(rate, mean, max(square - mean**2, 0.0), nests)]
    return parts


def wholes(rate_per_s: float, visit: Visit) -> Iterator[Part]:
    """Yield the times of whole visits, by the piece after which they end."""
    ends = -np.diff(np.append(visit.survival, 0.0))
    means, variances = np.cumsum(visit.piece_s), np.cumsum(visit.piece_std_s**2)
    for end in np.flatnonzero(ends > 0).tolist():
        yield Part(rate_per_s * float(ends[end]), float(means[end]), float(variances[end]))
