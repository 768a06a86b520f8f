"""How fast workers compute at the moment, against their profiles: measured here, or told by the others."""

from __future__ import annotations

from math import log2
from typing import Final

from planner.policy.types import View

FADE: Final = 0.9
"""What a block weighs against the one after it."""

STEPS_PER_OCTAVE: Final = 2
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
        self._until_s: dict[str, float] = {}

    @property
    def own(self) -> float:
        """How many times longer than by its profile this worker takes."""
        return self._view.costs.slowness.get(self._view.worker, 1.0)

    def ran(self, expected_s: float, took_s: float) -> None:
        """Learn what a block took here, and what it was expected to take by the profile."""
        self._expected_s = FADE * self._expected_s + expected_s
        self._took_s = FADE * self._took_s + took_s
        self._blocks += 1
        if self._blocks < ENOUGH or self._took_s <= 0:
            return
        steps = STEPS_PER_OCTAVE * log2(self._took_s / self._expected_s)
        if abs(steps - STEPS_PER_OCTAVE * log2(self.own)) >= 1:
            self._set(self._view.worker, 2.0 ** (round(steps) / STEPS_PER_OCTAVE))
        elif self.own != 1.0:
            self._until_s[self._view.worker] = self._view.now_s + MEMORY_S

    def told(self, worker: str, slowness: float) -> None:
        """Learn what another worker says of itself."""
        if slowness != 1.0 or worker in self._until_s:
            self._set(worker, slowness)

    def forget_old(self) -> None:
        """Drop what is too old."""
        for worker in [worker for worker, until_s in self._until_s.items() if until_s <= self._view.now_s]:
            self._set(worker, 1.0)

    def _set(self, worker: str, slowness: float) -> None:
        slow = self._view.costs.slowness
        if slowness == 1.0:
            slow.pop(worker, None)
            self._until_s.pop(worker, None)
        else:
            slow[worker] = slowness
            self._until_s[worker] = self._view.now_s + MEMORY_S
