"""Event queue of the simulator, and of the network that is emulated in real time."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from math import inf
from typing import Any, TypeAlias

Slot: TypeAlias = tuple[float, int]
"""Position in the queue: a time, and a number that orders equal times."""


class EventHeap:
    """Actions that run at given times; those at the same time run in the order in which they were added.

    An action at an infinite time never runs.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._added = 0
        self._running = -1
        self.now_s = 0.0
        """Time of the running action."""

    def at(self, time_s: float, action: Callable[..., None], *arguments: Any) -> None:
        """Run ``action`` with these arguments at ``time_s``, or now if that has passed."""
        if time_s < inf:
            now_s, number = self.now_s, self._added
            self._added = number + 1
            heapq.heappush(self._heap, (time_s if time_s > now_s else now_s, number, action, arguments))

    def reserve(self, time_s: float) -> Slot:
        """Return the slot of an action added now, for an action that may prove unnecessary."""
        number = self._added
        self._added = number + 1
        return time_s, number

    def fill(self, slot: Slot, action: Callable[[], None]) -> None:
        """Run ``action`` in a reserved slot that has not passed."""
        if slot[0] < inf:
            heapq.heappush(self._heap, (*slot, action, ()))

    def passed(self, slot: Slot) -> bool:
        """Return whether an action in a slot would have run by now."""
        return slot < (self.now_s, self._running)

    @property
    def next_s(self) -> float:
        """Time of the next action; infinite if there is none."""
        return self._heap[0][0] if self._heap else inf

    def run_next(self) -> None:
        """Run the next action."""
        self.now_s, self._running, action, arguments = heapq.heappop(self._heap)
        action(*arguments)

    def run_all(self) -> None:
        """Run all actions, including those that they add."""
        heap, pop = self._heap, heapq.heappop
        while heap:
            self.now_s, self._running, action, arguments = pop(heap)
            action(*arguments)
