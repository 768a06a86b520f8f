"""How fast workers compute at the moment, against their profiles: measured here, or told by the others."""

from __future__ import annotations

from math import log
from typing import Final

from planner.policy.types import View

FADE: Final = 0.9
"""What a block weighs against the one after it."""

STEP: Final = 2**0.5
"""Slowness goes in steps of √2, and only when it is a whole step away: chance in block times changes no decision."""

MEMORY_S: Final = 10.0
"""After so long without news a worker counts as fast as its profile says: who is avoided gets no work to measure."""

ENOUGH: Final = 5
"""So many blocks are measured before anything is made of it."""


class Pace:
    """Keeps ``view.costs.slowness`` of one worker's view."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._expected_s = 0.0
        self._took_s = 0.0
        self._blocks = 0
        self._last_s = 0.0
        self._until_s: dict[str, float] = {}

    @property
    def own(self) -> float:
        """How many times longer than by its profile this worker takes."""
        return self._view.costs.slowness.get(self._view.worker, 1.0)

    def ran(self, expected_s: float, took_s: float) -> float:
        """Learn what a block took here, and what it was expected to take; give by what factor expectations change."""
        own, now_s = self.own, self._view.now_s
        if now_s - self._last_s > MEMORY_S:
            self._expected_s, self._took_s, self._blocks = 0.0, 0.0, 0
        self._last_s = now_s
        self._expected_s = FADE * self._expected_s + expected_s / own
        self._took_s = FADE * self._took_s + took_s
        self._blocks += 1
        if self._blocks < ENOUGH or self._took_s <= 0:
            return 1.0
        ratio = self._took_s / self._expected_s
        if not 1 / STEP < ratio / own < STEP:
            self._set(self._view.worker, STEP ** round(log(ratio, STEP)))
        elif own != 1.0:
            self._until_s[self._view.worker] = now_s + MEMORY_S
        return self.own / own

    def told(self, worker: str, slowness: float) -> None:
        """Learn what another worker says of itself."""
        if slowness != 1.0 or worker in self._until_s:
            self._set(worker, slowness)

    def forget_old(self) -> float:
        """Drop what is too old; give by what factor expectations of this worker change."""
        own = self.own
        for worker in [worker for worker, until_s in self._until_s.items() if until_s <= self._view.now_s]:
            self._set(worker, 1.0)
        return self.own / own

    def _set(self, worker: str, slowness: float) -> None:
        slow = self._view.costs.slowness
        if slowness == 1.0:
            slow.pop(worker, None)
            self._until_s.pop(worker, None)
        else:
            slow[worker] = slowness
            self._until_s[worker] = self._view.now_s + MEMORY_S
