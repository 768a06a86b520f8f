"""How bursts of a source prolong waits: an approximation by queues whose arrival rate switches.

A source with bursts is a Poisson process whose rate is a_0 λ between them and a_1 λ during them, where state i ends
after an exponentially distributed time with mean 1/q_i (MMPP). Recorded times are taken to be such a process, with the
index of dispersion that is counted in them: the variance of the number of arrivals within t, relative to its mean,

    I(t) = 1 + 2 λ p_0 p_1 (a_1 − a_0)² / r · (1 − (1 − e^{−rt}) / (rt)),     r = q_0 + q_1,   p_1 = q_0 / r

Let φ_i(s) be the exponent of the work that comes to a resource in state i for some classes, Σ λ (1 − E e^{−sS}) over
their visits. The work V that is there while the state is i has the transform (Takács)

    v(s) [s + Q − diag φ(s)] = s y,     y_0 + y_1 = 1 − ρ

where y is finite at the positive zero of the determinant. Samples of the source meet Σ a_i v_i, others v_0 + v_1. For
one class and one such source this is exact. Beyond that it is not: each source with bursts prolongs the wait under
Poisson arrivals independently of the others, more important work that comes meanwhile has its mean rate, and bursts
reach all resources of a route unchanged.

References
----------
H. Heffes, D. M. Lucantoni, "A Markov modulated characterization of packetized voice and data traffic", IEEE Journal on
Selected Areas in Communications 4 (1986).
W. Fischer, K. Meier-Hellstern, "The Markov-modulated Poisson process (MMPP) cookbook", Performance Evaluation 18
(1993).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from planner.plan.service_times import Complex, Parts
from planner.scenario.types import BurstSpec

WINDOWS: Final = 8
"""Least number of windows in which recorded times are counted."""
HALF: Final = 1.594
"""r t at which I(t) − 1 has half of its limit."""
STEPS: Final = 80
"""Number of steps by which a zero is looked for."""

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


class Modulation:
    """The bursts of one source in the work that a resource has for a class and those above it.

    Parameters
    ----------
    all_work
        The visits of these classes, at mean rates; less than the resource can do.
    own
        Those of the source.
    """

    def __init__(self, bursts: Bursts, all_work: Parts, own: Parts) -> None:
        self._bursts = bursts
        self._all = all_work
        self._own = own

    def prolonged(self, s: Complex, free: Complex, *, own: bool) -> Complex:
        """Return E e^{−sV} relative to that under Poisson arrivals, as samples of the source meet it, or others.

        Parameters
        ----------
        free
            s − Σ λ (1 − E e^{−sS}) at s.
        """
        bursts, exponent = self._bursts, self._own.rate_per_s - self._own.transform(s)
        calm = free - bursts.begin_per_s - (bursts.calm - 1) * exponent
        busy = free - bursts.end_per_s - (bursts.busy - 1) * exponent
        idle_calm, idle_busy = self._idle
        in_calm = idle_calm * busy - idle_busy * bursts.end_per_s
        in_busy = idle_busy * calm - idle_calm * bursts.begin_per_s
        met = bursts.calm * in_calm + bursts.busy * in_busy if own else in_calm + in_busy
        found: Complex = met * free / (calm * busy - bursts.begin_per_s * bursts.end_per_s)
        return found

    def longer_s(self, *, own: bool) -> float:
        """Return by how much longer samples wait for V on average, in seconds."""
        scale_s = max(1 / self._bursts.begin_per_s, self._all.load / self._all.rate_per_s)
        s = np.array([1e-4, 2e-4], dtype=np.complex128) / scale_s
        one, two = (1 - self.prolonged(s, self._free(s), own=own)).real / s.real
        return max(float(2 * one - two), 0.0)

    def _free(self, s: Complex) -> Complex:
        found: Complex = s - self._all.rate_per_s + self._all.transform(s)
        return found

    @cached_property
    def _idle(self) -> tuple[float, float]:
        """Probability of no work together with each state, relative to that of no work."""
        bursts = self._bursts

        def terms(s: float) -> tuple[float, float]:
            at = np.array([s], dtype=np.complex128)
            free, exponent = self._free(at).real[0], self._own.rate_per_s - self._own.transform(at).real[0]
            return (
                float(free - bursts.begin_per_s - (bursts.calm - 1) * exponent),
                float(free - bursts.end_per_s - (bursts.busy - 1) * exponent),
            )

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
