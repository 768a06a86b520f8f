"""Offsets between the wall clocks of devices, since devices at the edge often have no common time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from planner.execution.wire.diagnostics import Echo

_TRIPS: Final = 5


@dataclass(slots=True)
class _RoundTrips:
    """Durations of round trips to a worker, each with the offset of its clock that follows, in seconds."""

    trips: list[tuple[float, float]] = field(default_factory=list)
    sent_s: float = 0.0


class ClockOffsets:
    """Compares the wall clocks of workers with the one of this device.

    Parameters
    ----------
    send
        ``send(worker, echo)`` sends a message to an agent.
    run
        The run for which they are compared; other answers do not count.
    """

    def __init__(self, send: Callable[[str, Echo], None], run: str) -> None:
        self._send = send
        self._run = run
        self._comparisons: dict[str, _RoundTrips] = {}

    def compare(self, worker: str) -> None:
        """Begin the comparison with a worker, whose answers are passed to :meth:`on_echo`."""
        self._comparisons[worker] = _RoundTrips()
        self._ask(worker)

    def _ask(self, worker: str) -> None:
        comparison = self._comparisons[worker]
        comparison.sent_s = time.time()
        self._send(worker, Echo(run=self._run, number=len(comparison.trips)))

    def on_echo(self, worker: str, echo: Echo) -> None:
        """Record a worker's answer."""
        comparison = self._comparisons.get(worker)
        if comparison is None or not echo.back or (echo.run, echo.number) != (self._run, len(comparison.trips)):
            return
        now_s = time.time()
        comparison.trips.append((now_s - comparison.sent_s, echo.unix_s - (comparison.sent_s + now_s) / 2))
        if len(comparison.trips) < _TRIPS:
            self._ask(worker)

    def compared(self, workers: Iterable[str]) -> bool:
        """Return whether the comparison with all these workers is complete."""
        return all(len(self._comparisons[worker].trips) == _TRIPS for worker in workers)

    def ahead_s(self, worker: str) -> float:
        """Return how far a worker's clock is ahead of this one, by its fastest round trip.

        An offset smaller than the uncertainty of the round trip counts as 0, and so does that of a worker that did not
        answer.
        """
        comparison = self._comparisons.get(worker)
        if comparison is None or not comparison.trips:
            return 0.0
        trip_s, offset_s = min(comparison.trips)
        return offset_s if abs(offset_s) > trip_s / 2 else 0.0
