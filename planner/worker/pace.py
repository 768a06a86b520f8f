"""How fast workers compute and links send at the moment, against profiles and scenario: measured here, or told."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from math import log
from typing import Final

from planner.policy.types import Status, View

FADE: Final = 0.9
"""What a block weighs against the one after it."""

STEP: Final = 2**0.5
"""Slowness goes in steps of √2, and only when it is a whole step away: chance in block times changes no decision."""

MEMORY_S: Final = 10.0
"""After so long without news a worker counts as fast as its profile says: who is avoided gets no work to measure."""

ENOUGH: Final = 5
"""So many blocks, or transfers, are measured before anything is made of it."""

LEAST: Final = 2.0**-6
"""No link counts as faster than so many times its time by the scenario."""

SLOW: Final = 2.5
"""A worker that takes so many times longer than by its profile is slow enough to be planned for anew; so is one whose
slowness has changed by more than that again. Less is what a busy host may cost, which a profile does not tell."""


class Slowed:
    """Which workers of a run are slow, for whoever plans it anew."""

    def __init__(self) -> None:
        self.slowness: Mapping[str, float] = {}
        """By what factor, of those that are."""

    def told(self, worker: str, slowness: float) -> bool:
        """Learn how many times longer than by its profile a worker takes; tell whether that is news."""
        known = self.slowness.get(worker, 1.0)
        if known / SLOW < slowness < known * SLOW and (known == 1.0 or slowness >= STEP):
            return False
        others = {name: found for name, found in self.slowness.items() if name != worker}
        before, self.slowness = self.slowness, others | ({worker: slowness} if slowness >= SLOW else {})
        return self.slowness != before


class Pace:
    """Keeps ``view.costs.slowness`` of one worker's view."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._expected_s = 0.0
        self._took_s = 0.0
        self._blocks = 0
        self._last_s = 0.0
        self._transfers: dict[str, deque[float]] = {}
        self._until_s: dict[str | tuple[str, str], float] = {}

    @property
    def own(self) -> float:
        """How many times longer than by its profile this worker takes."""
        return self._view.costs.slowness.get(self._view.worker, 1.0)

    def ran(self, expected_s: float, took_s: float) -> float:
        """Learn what a block took here, and what it was expected to take; give by what factor expectations change."""
        view = self._view
        slow, now_s = view.costs.slowness, view.now_s
        own = slow.get(view.worker, 1.0) if slow else 1.0
        if now_s - self._last_s > MEMORY_S:
            self._expected_s, self._took_s, self._blocks = 0.0, 0.0, 0
        self._last_s = now_s
        self._expected_s = FADE * self._expected_s + expected_s / own
        self._took_s = FADE * self._took_s + took_s
        self._blocks += 1
        if self._blocks < ENOUGH or self._took_s <= 0:
            return 1.0
        ratio = self._took_s / self._expected_s
        if own == 1.0 and 1 / STEP < ratio < STEP:  # as nearly always: a run has millions of blocks
            return 1.0
        self._weigh(view.worker, ratio)
        return self.own / own

    def own_at(self, now_s: float) -> float:
        """Give the same at a later time."""
        return self.own if self._until_s.get(self._view.worker, 0.0) > now_s else 1.0

    @property
    def links(self) -> tuple[tuple[str, float], ...]:
        """How many times longer than by the scenario links from here take, by receiver, where that is known."""
        slow = self._view.costs.slowness.items()
        return tuple((key[1], found) for key, found in slow if isinstance(key, tuple) and key[0] == self._view.worker)

    def transferred(self, to: str, size_bytes: int, took_s: float) -> None:
        """Learn what a transfer took; the least of the last few counts, for others may share the medium."""
        path = self._view.instance.path(self._view.worker, to)
        if path is None or len(path.hops) != 1:
            return
        recent = self._transfers.setdefault(to, deque(maxlen=ENOUGH))
        recent.append(took_s * path.hops[0].bytes_per_s / size_bytes)
        if len(recent) == ENOUGH:
            self._weigh((self._view.worker, to), max(min(recent), LEAST))

    def told(self, worker: str, status: Status) -> None:
        """Learn what another worker says of itself and its links."""
        told: dict[str | tuple[str, str], float] = {worker: status.slowness}
        told |= {(worker, to): slowness for to, slowness in status.links}
        for key, slowness in told.items():
            if slowness != 1.0 or key in self._until_s:
                self._set(key, slowness)

    def _weigh(self, key: str | tuple[str, str], ratio: float) -> None:
        known = self._view.costs.slowness.get(key, 1.0)
        if not 1 / STEP < ratio / known < STEP:
            self._set(key, STEP ** round(log(ratio, STEP)))
        elif known != 1.0:
            self._until_s[key] = self._view.now_s + MEMORY_S

    def forget_old(self) -> float:
        """Drop what is too old; give by what factor expectations of this worker change."""
        own = self.own
        for key in [key for key, until_s in self._until_s.items() if until_s <= self._view.now_s]:
            self._set(key, 1.0)
        return self.own / own

    def _set(self, key: str | tuple[str, str], slowness: float) -> None:
        slow = self._view.costs.slowness
        if slowness == 1.0:
            slow.pop(key, None)
            self._until_s.pop(key, None)
        else:
            slow[key] = slowness
            self._until_s[key] = self._view.now_s + MEMORY_S
