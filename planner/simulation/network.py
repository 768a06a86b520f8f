"""Network model: transfers in fragments, by priority, without preemption within a fragment.

A resource is a shared medium or one direction of a link. It sends one fragment at a time, always of the transfer with
the highest priority, and in order of arrival among equals. A transfer over several hops is stored and forwarded. The
latency of a hop delays the transfer and uses no capacity.

The model announces each delivery as soon as it is certain, which is when its last fragment begins. The simulator does
not need that, but an emulation in real time can inform the receiver in advance.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import count
from typing import Any, TypeAlias

from planner.plan.journey import FRAGMENT_BYTES
from planner.scenario.instance import NetworkPath
from planner.simulation.event_heap import EventHeap, Slot


@dataclass(slots=True)
class Leg:
    """A hop, as quick to read as the number of transfers over it asks for; see :func:`legs`."""

    sender: str
    receiver: str
    resource: str
    bytes_per_s: float
    latency_s: float


def legs(path: NetworkPath) -> tuple[Leg, ...]:
    """Return the hops of a path."""
    return tuple(Leg(hop.sender, hop.receiver, hop.resource, hop.bytes_per_s, hop.latency_s) for hop in path.hops)


Deliver: TypeAlias = Callable[[Any, float], None]
"""Called with a cargo, and the time at which its last byte arrives."""

Occupied: TypeAlias = Callable[[Any, Leg, float, float], None]
"""Called with a cargo, a hop, and start and end of the transfer over it, including interruptions."""


@dataclass(slots=True)
class _Transfer:
    legs: tuple[Leg, ...]
    """Remaining hops, the current one first."""
    size_bytes: float
    priority: float
    cargo: Any
    left_bytes: float
    """Bytes that remain on the current hop."""
    start_s: float = -1.0
    """Time at which the current hop was first occupied; negative before."""


_Entry: TypeAlias = tuple[float, int, _Transfer]
"""Negative priority, sequence number, and transfer: sorts in the order of service."""


class _Resource:
    """A shared medium, or one direction of a link."""

    def __init__(
        self, heap: EventHeap, forward: Callable[[_Transfer], None], deliver: Deliver, occupied: Occupied
    ) -> None:
        self._heap = heap
        self._forward = forward
        self._deliver = deliver
        self._occupied = occupied
        self._waiting: list[_Entry] = []
        self._sequence = count()
        self._current: _Entry | None = None
        self._began_s = 0.0
        self._end: Slot | None = None
        self._version = 0
        self._factor = 1.0
        self.busy_s = 0.0

    def submit(self, transfer: _Transfer) -> None:
        entry = (-transfer.priority, next(self._sequence), transfer)
        current = self._serving()
        if current is None and self._factor > 0:
            self._begin(entry)
            return
        heapq.heappush(self._waiting, entry)
        if self._end is not None and len(self._waiting) == 1:
            self._heap.fill(self._end, self._next)
        elif self._end is None and current is not None and entry < current:
            self._yield_at_fragment_end(current)

    def change_rate(self, factor: float) -> None:
        """Continue with another share of the bandwidth, 0 to stop; a last fragment that has begun ends as announced."""
        current = self._serving()
        if current is not None and self._end is None:
            transfer = current[2]
            sent_bytes = (self._heap.now_s - self._began_s) * self._rate(transfer)
            transfer.left_bytes = max(transfer.left_bytes - sent_bytes, 0.0)
            self._factor = factor
            self._interrupt(current)
        else:
            self._factor = factor
            if current is None:
                self._begin_next()

    def _serving(self) -> _Entry | None:
        """Return the current transfer; if none waits, no action ends it, so its end is noticed here."""
        if self._end is not None and self._heap.passed(self._end):
            self._current = self._end = None
        return self._current

    def _interrupt(self, current: _Entry) -> None:
        self.busy_s += self._heap.now_s - self._began_s
        self._version += 1
        heapq.heappush(self._waiting, current)
        self._next()

    def _next(self) -> None:
        self._current = self._end = None
        self._begin_next()

    def _begin_next(self) -> None:
        if self._waiting and self._factor > 0:
            self._begin(heapq.heappop(self._waiting))

    def _begin(self, entry: _Entry) -> None:
        """Serve a transfer until it ends or is interrupted."""
        transfer, now_s = entry[2], self._heap.now_s
        self._current, self._began_s = entry, now_s
        if transfer.start_s < 0:
            transfer.start_s = now_s
        if transfer.left_bytes > FRAGMENT_BYTES:
            before_last_s = (_fragments(transfer) - 1) * FRAGMENT_BYTES / self._rate(transfer)
            self._schedule(now_s + before_last_s, self._announce, transfer)
        else:
            self._announce(transfer)

    def _rate(self, transfer: _Transfer) -> float:
        return transfer.legs[0].bytes_per_s * self._factor

    def _schedule(self, time_s: float, action: Callable[..., None], *arguments: Any) -> None:
        self._version += 1
        self._heap.at(time_s, self._unless_changed, self._version, action, arguments)

    def _unless_changed(self, version: int, action: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        if version == self._version:
            action(*arguments)

    def _announce(self, transfer: _Transfer) -> None:
        """Begin the last fragment of the current transfer, which nothing can delay any more."""
        hop = transfer.legs[0]
        end_s = self._began_s + transfer.left_bytes / self._rate(transfer)
        self.busy_s += end_s - self._began_s
        self._end = self._heap.reserve(end_s)
        if self._waiting:
            self._heap.fill(self._end, self._next)
        self._occupied(transfer.cargo, hop, transfer.start_s, end_s)
        if len(transfer.legs) > 1:
            self._heap.at(end_s + hop.latency_s, self._forward, transfer)
        else:
            self._deliver(transfer.cargo, end_s + hop.latency_s)

    def _yield_at_fragment_end(self, current: _Entry) -> None:
        transfer = current[2]
        fragment_s = FRAGMENT_BYTES / self._rate(transfer)
        sent = int((self._heap.now_s - self._began_s) / fragment_s) + 1
        if sent < _fragments(transfer):
            self._schedule(self._began_s + sent * fragment_s, self._put_back, current, sent)

    def _put_back(self, current: _Entry, sent: int) -> None:
        current[2].left_bytes -= sent * FRAGMENT_BYTES
        self._interrupt(current)


def _fragments(transfer: _Transfer) -> int:
    return math.ceil(transfer.left_bytes / FRAGMENT_BYTES) or 1


class NetworkModel:
    """All resources of a scenario.

    Parameters
    ----------
    deliver
        Called with what is sent and the time at which its last byte arrives, as soon as that is certain.
    occupied
        Called with what is sent, each hop, and start and end of the transfer over it, as soon as they are certain.
    """

    def __init__(self, heap: EventHeap, resources: Iterable[str], deliver: Deliver, occupied: Occupied) -> None:
        self._resources = {name: _Resource(heap, self._forward, deliver, occupied) for name in resources}

    def submit(self, path: tuple[Leg, ...], size_bytes: float, priority: float, cargo: Any) -> None:
        """Send ``size_bytes`` along a path, starting now; ``cargo`` is what ``deliver`` and ``occupied`` are told."""
        self._enter(_Transfer(path, size_bytes, priority, cargo, size_bytes))

    def _enter(self, transfer: _Transfer) -> None:
        self._resources[transfer.legs[0].resource].submit(transfer)

    def _forward(self, transfer: _Transfer) -> None:
        transfer.legs, transfer.left_bytes, transfer.start_s = transfer.legs[1:], transfer.size_bytes, -1.0
        self._enter(transfer)

    def change_rate(self, resources: Iterable[str], factor: float) -> None:
        """Set the share of their bandwidth that resources have; with 0, transfers wait."""
        for resource in resources:
            self._resources[resource].change_rate(factor)

    def busy_s(self) -> dict[str, float]:
        """Return the time that each resource has been sending, in seconds."""
        return {name: resource.busy_s for name, resource in self._resources.items()}
