"""How bursts of a source prolong waits: an approximation by queues whose arrival rate switches.

A source with bursts is a Poisson process whose rate is a_0 λ between them and a_1 λ during them, where state i ends
after an exponentially distributed time with mean 1/q_i (MMPP). Recorded times are taken to be such a process, with the
index of dispersion that is counted in them: the variance of the number of arrivals within t, relative to its mean,

    I(t) = 1 + 2 λ p_0 p_1 (a_1 − a_0)² / r · (1 − (1 − e^{−rt}) / (rt)),     r = q_0 + q_1,   p_1 = q_0 / r

Let φ_i(s) be the exponent of the work that comes to a resource in state i for some classes, Σ λ (1 − E e^{−sS}) over
their visits. The work V that is there while the state is i has the transform (Takács)

    v(s) [s + Q − diag φ(s)] = s y,     y_0 + y_1 = 1 − ρ

where y is finite at the positive zero of the determinant. Samples of the source meet Σ a_i v_i, others v_0 + v_1. While
work of more important classes comes, φ^H_i in state i, V takes a time whose transform is e^{−V K(s)} with the matrix
K = s − Q + diag φ^H(K). With its eigenvalues σ_m, its eigenvectors r_m and 1 = Σ c_m r_m, the wait of others is

    E e^{−sW} = Σ_m c_m v(σ_m) r_m

For the wait in one queue with one such source this is exact. Beyond that it is not: each source with bursts prolongs
the wait under Poisson arrivals independently of the others, what comes between the pieces of a visit has its mean rate,
and bursts reach all resources of a route unchanged.

References
----------
H. Heffes, D. M. Lucantoni, "A Markov modulated characterization of packetized voice and data traffic", IEEE Journal on
Selected Areas in Communications 4 (1986).
D. M. Lucantoni, "New results on the single server queue with a batch Markovian arrival process", Communications in
Statistics. Stochastic Models 7 (1991).
W. Fischer, K. Meier-Hellstern, "The Markov-modulated Poisson process (MMPP) cookbook", Performance Evaluation 18
(1993).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from planner.plan.journey import Visit
from planner.plan.service_times import Complex, Part, Parts, prolonged, wholes
from planner.scenario.types import BurstSpec

WINDOWS: Final = 8
"""Least number of windows in which recorded times are counted."""
HALF: Final = 1.594
"""r t at which I(t) − 1 has half of its limit."""
STEPS: Final = 80
"""Number of steps by which a zero is looked for."""
PICARD_STEPS, NEWTON_STEPS = 16, 8

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Bursts:
    """A rate that switches: relative to its mean, between bursts and during them, and how often each state ends."""

    calm: float
    busy: float
    begin_per_s: float
    end_per_s: float

    @classmethod
    def of_spec(cls, bursts: BurstSpec) -> Bursts:
        """Return those of a scenario's source."""
        return cls(bursts.calm, bursts.factor, 1 / (bursts.every_s - bursts.length_s), 1 / bursts.length_s)

    @classmethod
    def of_times(cls, times_s: Sequence[float]) -> Bursts | None:
        """Return those of recorded times; None for too few, and if they are no more variable than Poisson arrivals.

        The dispersion tells the variance of the rate and how fast it changes; the skewness of the rate, which share of
        the time is busy.
        """
        times = np.asarray(times_s)
        span_s = float(times[-1] - times[0]) if len(times) > 1 else 0.0
        if len(times) < 4 * WINDOWS or span_s <= 0:
            return None
        rate_per_s = (len(times) - 1) / span_s
        windows_s = np.geomspace(1 / rate_per_s, span_s / WINDOWS, 32)
        counts = [_counts(times, window_s) for window_s in windows_s.tolist()]
        dispersion = np.array([count.var() / count.mean() for count in counts])
        most = float(dispersion.max()) - 1
        if most <= 0.2:  # by chance
            return None
        half_s = float(windows_s[int(np.argmax(dispersion - 1 >= most / 2))])
        change_per_s = HALF / half_s
        odds = 2 * rate_per_s / (most * change_per_s)  # with more, less than nothing would come between bursts
        skewness = _skewness_of_rate(_counts(times, max(half_s / 4, 2 / rate_per_s)))
        share = min(odds / (1 + odds), (1 - skewness / math.sqrt(4 + skewness**2)) / 2)
        above = math.sqrt(most * change_per_s * (1 - share) / (2 * rate_per_s * share))
        calm = max(1 - above * share / (1 - share), 0.0)
        return cls(calm, 1 + above, share * change_per_s, (1 - share) * change_per_s)


def _counts(times: Array, window_s: float) -> Array:
    return np.histogram(times, np.arange(times[0], times[-1], window_s))[0].astype(float)


def _skewness_of_rate(counts: Array) -> float:
    """Return the skewness of the rate by factorial cumulants, to which Poisson arrivals do not contribute."""
    mean, variance = counts.mean(), counts.var()
    second, third = variance - mean, ((counts - mean) ** 3).mean() - 3 * variance + 2 * mean
    return float(max(third, 0.0) / second**1.5) if second > 0 else 0.0


class Work(NamedTuple):
    """The visits of some classes at a resource, at mean rates, and those of the source with bursts among them."""

    everything: Parts
    own: Parts

    @classmethod
    def of(cls, visits: Iterable[tuple[float, Visit, bool]]) -> Work:
        """Return the work of visits: of each the rate, and whether it is one of the source."""
        own: list[Part] = []
        others: list[Part] = []
        for rate_per_s, visit, mine in visits:
            (own if mine else others).extend(wholes(rate_per_s, visit))
        return cls(Parts([*own, *others]), Parts(own))


class Modulation:
    """The bursts of one source in the wait of a class.

    Parameters
    ----------
    found
        The work of this class and of those above it; less than the resource can do.
    above
        That of the classes above it.
    """

    def __init__(self, bursts: Bursts, found: Work, above: Work) -> None:
        self._bursts = bursts
        self._found = found
        self._above = above

    def longer(self, s: Complex, *, own: bool) -> Complex:
        """Return E e^{−sW} relative to that under Poisson arrivals, as samples of the source wait, or others."""
        bursts, sigma = self._bursts, prolonged(self._above.everything, s)
        poisson: Complex = sigma / self._free(sigma)
        if self._above.own.rate_per_s == 0:
            calm, busy = self._work(sigma)
            return (bursts.calm * calm + bursts.busy * busy if own else calm + busy) / poisson
        one, two = self._roots(s, sigma)
        in_one, in_two = self._busy_to_calm(s, one), self._busy_to_calm(s, two)
        part = (1 - in_two) / (in_one - in_two)
        (calm_one, busy_one), (calm_two, busy_two) = self._work(one), self._work(two)
        met = part * (calm_one + in_one * busy_one) + (1 - part) * (calm_two + in_two * busy_two)
        found: Complex = met / poisson
        return np.where(np.abs(one - two) > 1e-6 * np.abs(s), found, 1.0)

    def longer_s(self, *, own: bool) -> float:
        """Return by how much longer samples wait on average, in seconds."""
        everything = self._found.everything
        if self._found.own.rate_per_s == 0:  # its samples take no time here
            return 0.0
        scale_s = max(1 / self._bursts.begin_per_s, everything.load / everything.rate_per_s)
        s = np.array([1e-4, 2e-4], dtype=np.complex128) / scale_s
        one, two = (1 - self.longer(s, own=own)).real / s.real
        return max(float(2 * one - two), 0.0)

    def _work(self, s: Complex) -> tuple[Complex, Complex]:
        """Return v(s) relative to 1 − ρ: the work that is there, between bursts and during them."""
        calm, busy = self._terms(s)
        bursts, (idle_calm, idle_busy) = self._bursts, self._idle
        scale: Complex = s / (calm * busy - bursts.begin_per_s * bursts.end_per_s)
        return (
            scale * (idle_calm * busy - idle_busy * bursts.end_per_s),
            scale * (idle_busy * calm - idle_calm * bursts.begin_per_s),
        )

    def _terms(self, s: Complex) -> tuple[Complex, Complex]:
        """Return the diagonal of s + Q − diag φ(s)."""
        bursts, own = self._bursts, self._found.own
        free, exponent = self._free(s), own.rate_per_s - own.transform(s)
        return (
            free - bursts.begin_per_s - (bursts.calm - 1) * exponent,
            free - bursts.end_per_s - (bursts.busy - 1) * exponent,
        )

    def _roots(self, s: Complex, sigma: Complex) -> tuple[Complex, Complex]:
        """Return the two σ for which σ is an eigenvalue of s − Q + diag φ(σ) of the work above."""
        bursts = self._bursts
        product = bursts.begin_per_s * bursts.end_per_s
        found = []
        for sign, begin in ((-1.0, sigma), (1.0, sigma + bursts.begin_per_s + bursts.end_per_s)):
            root = begin
            for _ in range(PICARD_STEPS):
                calm, busy, _, _ = self._above_terms(s, root)
                root = (calm + busy) / 2 + sign * np.sqrt(((calm - busy) / 2) ** 2 + product)
            for _ in range(NEWTON_STEPS):
                calm, busy, calm_slope, busy_slope = self._above_terms(s, root)
                value = (calm - root) * (busy - root) - product
                slope = (calm_slope - 1) * (busy - root) + (busy_slope - 1) * (calm - root)
                root = root - value / slope
            found.append(root)
        return found[0], found[1]

    def _above_terms(self, s: Complex, sigma: Complex) -> tuple[Complex, Complex, Complex, Complex]:
        """Return the diagonal of s − Q + diag φ(σ) of the work above, and its derivatives by σ."""
        bursts, (everything, own) = self._bursts, self._above
        value, slope = everything.within(s, sigma)
        own_value, own_slope = own.within(s, sigma)
        exponent, own_exponent = everything.rate_per_s - value, own.rate_per_s - own_value
        return (
            s + bursts.begin_per_s + exponent + (bursts.calm - 1) * own_exponent,
            s + bursts.end_per_s + exponent + (bursts.busy - 1) * own_exponent,
            -slope - (bursts.calm - 1) * own_slope,
            -slope - (bursts.busy - 1) * own_slope,
        )

    def _busy_to_calm(self, s: Complex, sigma: Complex) -> Complex:
        """Return the ratio of the components of the eigenvector."""
        found: Complex = (self._above_terms(s, sigma)[0] - sigma) / self._bursts.begin_per_s
        return found

    def _free(self, s: Complex) -> Complex:
        everything = self._found.everything
        found: Complex = s - everything.rate_per_s + everything.transform(s)
        return found

    @cached_property
    def _idle(self) -> tuple[float, float]:
        """Probability of no work together with each state, relative to that of no work."""
        bursts = self._bursts

        def terms(s: float) -> tuple[float, float]:
            calm, busy = self._terms(np.array([s], dtype=np.complex128))
            return float(calm.real[0]), float(busy.real[0])

        def beyond(s: float) -> bool:
            calm, busy = terms(s)
            return calm > 0 and busy > 0 and calm * busy > bursts.begin_per_s * bursts.end_per_s

        low, high = 0.0, bursts.begin_per_s + bursts.end_per_s
        while not beyond(high):
            low, high = high, 2 * high
        for _ in range(STEPS):
            middle = (low + high) / 2
            low, high = (low, middle) if beyond(middle) else (middle, high)
        ratio = bursts.end_per_s / max(terms(high)[1], 1e-300)  # of calm to busy
        return ratio / (1 + ratio), 1 / (1 + ratio)
