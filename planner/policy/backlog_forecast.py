"""Backlog forecast of a resource (a worker or a network): the work that comes to it, and the queue that this makes.

All that is known is a list of bookings: work of some priority that arrives at some time. The resource is taken to work
through them without a break and to serve the highest priority first, preempting at once. So what is left at t of all
work of a priority and above follows Lindley's recursion over the bookings of that priority and above, in the order of
their arrival: V ← max(V − (time since the last), 0) + work (Kleinrock 1975, 8.1).
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterable
from math import exp, inf
from typing import NamedTuple

from planner.policy.types import Booking
from planner.scenario.types import AdaptiveParameters


class ClassRate(NamedTuple):
    """What one priority class asks of a resource: tasks per second, and the share of its time that they take."""

    priority: float
    tasks_per_s: float
    utilisation: float


class BacklogForecast:
    """The bookings of one resource, and how fast they come."""

    def __init__(self, parameters: AdaptiveParameters | None = None) -> None:
        parameters = parameters or AdaptiveParameters()
        self._memory_s = parameters.rate_memory_s
        self._most = parameters.most_bookings
        self._coming: list[Booking] = []
        self._left: dict[float, tuple[list[float], list[float]]] = {}
        self._seen: dict[float, tuple[float, float]] = {}
        self._seen_s = 0.0

    def book(self, now_s: float, booking: Booking) -> None:
        """Add work that will come."""
        self._count(now_s, booking)
        if len(self._coming) >= self._most:
            self.forget(now_s)
        if len(self._coming) < self._most or not self._joined_to_last(booking):
            insort(self._coming, booking)
        self._left.clear()

    def _joined_to_last(self, booking: Booking) -> bool:
        """Add work to the last booking of the same priority, and return True, if there is one."""
        for index in reversed(range(len(self._coming))):
            last = self._coming[index]
            if last.priority == booking.priority:
                self._coming[index] = last._replace(work_s=last.work_s + booking.work_s)
                return True
        return False

    def forget(self, now_s: float) -> None:
        """Merge what has come by now, by priority."""
        past = {booking.priority for booking in self._coming if booking.arrives_s <= now_s}
        standing, above_s = [], 0.0
        for priority in sorted(past, reverse=True):
            left_s = self.busy_s(now_s, priority)
            standing.append((priority, left_s - above_s))
            above_s = left_s
        self.told(now_s, standing)

    def told(self, at_s: float, backlog_s: Iterable[tuple[float, float]]) -> None:
        """Record what is left at a time, in seconds by priority, of all that came before."""
        later = [booking for booking in self._coming if booking.arrives_s > at_s]
        self._coming = sorted(Booking(at_s, priority, work_s) for priority, work_s in backlog_s if work_s > 0) + later
        self._left.clear()

    def busy_s(self, at_s: float, priority: float) -> float:
        """Return the expected work of a priority and above that is left at a time, in seconds."""
        times_s, left_s = self._left.get(priority) or self._follow(priority)
        index = bisect_right(times_s, at_s) - 1
        return max(left_s[index] - (at_s - times_s[index]), 0.0)

    def _follow(self, priority: float) -> tuple[list[float], list[float]]:
        """Return when work of a priority and above comes, and what is left just afterwards."""
        times_s, left_s = [-inf], [0.0]
        at_s, waits_s = -inf, 0.0
        for booking in self._coming:
            if booking.priority >= priority:
                waits_s = max(waits_s - (booking.arrives_s - at_s), 0.0) + booking.work_s
                at_s = booking.arrives_s
                times_s.append(at_s)
                left_s.append(waits_s)
        self._left[priority] = times_s, left_s
        return times_s, left_s

    # ---- rates ----------------------------------------------------------------------------------------------------

    def _count(self, now_s: float, booking: Booking) -> None:
        factor = exp((self._seen_s - now_s) / self._memory_s)
        self._seen_s = now_s
        self._seen = {priority: (tasks * factor, work_s * factor) for priority, (tasks, work_s) in self._seen.items()}
        tasks, work_s = self._seen.get(booking.priority, (0.0, 0.0))
        self._seen[booking.priority] = tasks + 1, work_s + booking.work_s

    def rates(self, now_s: float) -> list[ClassRate]:
        """Return what came lately by class, the highest priority first; older bookings weigh less."""
        memory_s = self._memory_s
        factor = exp((self._seen_s - now_s) / memory_s) / (memory_s * (1 - exp(-max(now_s, 0.1) / memory_s)))
        return [
            ClassRate(priority, tasks * factor, work_s * factor)
            for priority, (tasks, work_s) in sorted(self._seen.items(), reverse=True)
        ]
