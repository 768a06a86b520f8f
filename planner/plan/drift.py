"""When a plan is to be made again, by what was measured while it ran: rates of sources and speeds of workers.

The rules:

1. A window of time is compared with what the plan was made for. A source drifts if its rate differs by more than a
   factor, and by more than chance explains. A worker drifts if its blocks take that much longer, or less long, than the
   plan assumes.
2. A new plan is made for what was measured, at most once in an interval.
3. The first whole window after the change is a trial: if the delay, weighted by priority, is worse than in the window
   that led to the change, or samples fail that did not before, the old plan comes back. The interval until the next
   attempt then doubles, up to a bound, until one succeeds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import sqrt
from typing import Final, Literal, TypeAlias

from planner.errors import UsageError
from planner.units import format_number

_MOST_DOUBLINGS: Final = 6

_DEVIATIONS: Final = 4.0
"""Standard deviations of a Poisson count beyond which a rate differs."""


@dataclass(frozen=True)
class DriftRules:
    """When a plan is made again.

    Parameters
    ----------
    drift
        Factor by which a rate or the time of a worker's blocks must differ from what the plan was made for.
    interval_s
        Shortest time between two changes, in seconds.
    window_s
        Length of a window, in seconds.
    worse
        Factor by which the delay after a change may exceed that before.

    Raises
    ------
    UsageError
        If a factor is not above 1, or a time not positive.
    """

    drift: float = 1.3
    interval_s: float = 60.0
    window_s: float = 15.0
    worse: float = 1.1

    def __post_init__(self) -> None:
        for name, value, least in (("drift", self.drift, 1.0), ("worse", self.worse, 1.0)):
            if not value > least:
                raise UsageError("not a factor", where=name, value=value, expected="more than 1")
        for name, value in (("interval_s", self.interval_s), ("window_s", self.window_s)):
            if not value > 0:
                raise UsageError("not a time", where=name, value=value, expected="more than 0 seconds")


@dataclass(frozen=True)
class Window:
    """What was measured in a window of time.

    Parameters
    ----------
    length_s
        Its length in seconds.
    arrived
        Number of samples of each source that arrived; of sequences, in runs as those of so many typical ones.
    slowness
        By how much longer than in the plan's scenario each worker's blocks take.
    delay_s
        Mean delay of the completed samples, weighted by priority; None without any.
    failed
        Number of samples that failed.
    """

    length_s: float
    arrived: Mapping[str, float]
    slowness: Mapping[str, float] = field(default_factory=dict)
    delay_s: float | None = None
    failed: int = 0


@dataclass(frozen=True)
class Load:
    """What a plan is made for: rates of sources in samples per second, and how much slower workers are than planned."""

    rates_per_s: Mapping[str, float]
    slowness: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Change:
    """Make a plan for another load; ``reasons`` say in words why."""

    load: Load
    reasons: tuple[str, ...]


Decision: TypeAlias = Change | Literal["keep", "roll back"]


class DriftWatch:
    """Decides by the rules of this module; has no clock.

    Parameters
    ----------
    load
        What the plan that runs was made for.
    """

    def __init__(self, rules: DriftRules, load: Load) -> None:
        self.rules = rules
        self._load = load
        self._next_s = 0.0
        """Time before which nothing is changed."""
        self._rejected = 0
        self._before: tuple[Load, Window] | None = None
        """During a trial, the load of the old plan and the window that led to the change."""

    def reset(self, load: Load, now_s: float) -> None:
        """Take note that somebody else has applied a plan, for a load."""
        self._load, self._before, self._rejected = load, None, 0
        self._next_s = now_s + self.rules.interval_s

    def look(self, now_s: float, window: Window) -> Decision:
        """Return what to do after a window that ends now.

        After a :class:`Change`, :meth:`changed` or :meth:`refused` must tell what became of it.
        """
        if self._before is not None:
            load, before = self._before
            self._before = None
            if self._is_worse(before, window):
                self._load = load
                self._reject(now_s)
                return "roll back"
            self._rejected = 0
        reasons = tuple(self._drifts(window))
        if not reasons or now_s < self._next_s:
            return "keep"
        return Change(self._measured(window), reasons)

    def changed(self, now_s: float, load: Load, window: Window) -> None:
        """Take note that a plan for a load has replaced the old one, because of a window; a trial begins."""
        self._before = self._load, window
        self._load = load
        self._next_s = now_s + self.rules.interval_s

    def refused(self, now_s: float) -> None:
        """Take note that there was no plan, or that it was refused."""
        self._reject(now_s)

    def _reject(self, now_s: float) -> None:
        self._rejected = min(self._rejected + 1, _MOST_DOUBLINGS)
        self._next_s = now_s + self.rules.interval_s * 2**self._rejected

    def _is_worse(self, before: Window, after: Window) -> bool:
        if before.delay_s is None or after.delay_s is None:
            return after.failed > before.failed
        return after.delay_s > self.rules.worse * before.delay_s or after.failed > before.failed

    def _drifts(self, window: Window) -> list[str]:
        found = []
        for source, rate_per_s in self._load.rates_per_s.items():
            arrived, expected = window.arrived.get(source, 0), rate_per_s * window.length_s
            beyond_chance = abs(arrived - expected) > _DEVIATIONS * sqrt(max(expected, 1.0))
            if beyond_chance and self._differ(max(arrived, 0.5), expected):
                now, planned = format_number(arrived / window.length_s), format_number(rate_per_s)
                found.append(f"{source} has {now} samples/s in place of {planned}")
        found += [
            f"the blocks of {worker} take {format_number(factor)} times as long as planned"
            for worker, factor in sorted(window.slowness.items())
            if self._differ(factor, 1.0)
        ]
        return found

    def _differ(self, one: float, other: float) -> bool:
        return not 1 / self.rules.drift <= one / other <= self.rules.drift

    def _measured(self, window: Window) -> Load:
        """Return the load of a window."""
        rates_per_s = {
            source: max(window.arrived.get(source, 0), 0.5) / window.length_s for source in self._load.rates_per_s
        }
        slowness = dict(self._load.slowness)
        for worker, factor in window.slowness.items():
            slowness[worker] = slowness.get(worker, 1.0) * factor
        return Load(rates_per_s, slowness)
