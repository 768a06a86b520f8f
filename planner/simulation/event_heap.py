"""Actions in the order of their time: the heart of the simulator, and of the network that is emulated in real time."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from math import inf
from typing import TypeAlias

Place: TypeAlias = tuple[float, int]
"""A time, and a number that orders equal times."""


class EventHeap:
    """Actions to be done at given times; equal times keep the order in which they were added."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = count()
        self._doing = -1
        self.now_s = 0.0
        """Time of the action being done."""

    def at(self, time_s: float, action: Callable[[], None]) -> None:
        """Do ``action`` at ``time_s``, or now if that has passed."""
        heapq.heappush(self._heap, (time_s if time_s > self.now_s else self.now_s, next(self._sequence), action))

    def place(self, time_s: float) -> Place:
        """Give the place that an action added now would have, for one that may prove unnecessary."""
        return time_s, next(self._sequence)

    def fill(self, place: Place, action: Callable[[], None]) -> None:
        """Do ``action`` at a place that has not passed."""
        heapq.heappush(self._heap, (*place, action))

    def passed(self, place: Place) -> bool:
        """Tell whether an action at a place would have been done by now."""
        return place < (self.now_s, self._doing)

    @property
    def next_s(self) -> float:
        """Time of the next action; infinity when there is none."""
        return self._heap[0][0] if self._heap else inf

    def run_next(self) -> None:
        """Do the next action."""
        self.now_s, self._doing, action = heapq.heappop(self._heap)
        action()

    def run_all(self) -> None:
        """Do all actions, those that they add included; what is set for infinity never comes."""
        heap, pop = self._heap, heapq.heappop
        while heap and heap[0][0] < inf:
            self.now_s, self._doing, action = pop(heap)
            action()
