"""How far the wall clocks of devices are apart: those at the edge keep no common time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from planner.execution.wire.diagnostics import Echo
from planner.execution.wire.frames import Frame

_TRIPS: Final = 5


@dataclass(slots=True)
class _RoundTrips:
    """Round trips to a worker: what each took, and how far its clock is ahead by it, in seconds."""

    trips: list[tuple[float, float]] = field(default_factory=list)
    sent_s: float = 0.0


class ClockOffsets:
    """Compares the wall clocks of workers with this one.

    Parameters
    ----------
    send
        ``send(worker, echo)``.
    """

    def __init__(self, send: Callable[[str, Echo], None]) -> None:
        self._send = send
        self._comparisons: dict[str, _RoundTrips] = {}

    def compare(self, worker: str) -> None:
        """Begin a worker's comparison; its answers come through :meth:`take`."""
        self._comparisons[worker] = _RoundTrips()
        self._ask(worker)

    def _ask(self, worker: str) -> None:
        comparison = self._comparisons[worker]
        comparison.sent_s = time.time()
        self._send(worker, Echo(number=len(comparison.trips)))

    def take(self, frame: Frame) -> None:
        """Take a frame, if it is an answer."""
        body, comparison = frame.body, self._comparisons.get(frame.sender)
        if not isinstance(body, Echo) or comparison is None or not body.back or body.number != len(comparison.trips):
            return
        now_s = time.time()
        comparison.trips.append((now_s - comparison.sent_s, body.unix_s - (comparison.sent_s + now_s) / 2))
        if len(comparison.trips) < _TRIPS:
            self._ask(frame.sender)

    def compared(self, workers: Iterable[str]) -> bool:
        """Tell whether the clocks of all these workers have been compared."""
        return all(len(self._comparisons[worker].trips) == _TRIPS for worker in workers)

    def ahead_s(self, worker: str) -> float:
        """Give how far a worker's clock is ahead of this one, from its quickest round trip.

        What a round trip cannot tell from none counts as none; so does the clock of a worker that did not answer.
        """
        comparison = self._comparisons.get(worker)
        if comparison is None or not comparison.trips:
            return 0.0
        took_s, found_s = min(comparison.trips)
        return found_s if abs(found_s) > took_s / 2 else 0.0
