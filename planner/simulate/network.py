"""Network resources in time: transfers in fragments, by priority, not preempted within a fragment.

A resource is a shared medium or one direction of a link. It sends one fragment at a time, always of the transfer with
the highest priority, first come first served among equals. A transfer that crosses several hops is stored and
forwarded. The latency of a hop adds to the transfer and uses no capacity.

The model announces each delivery as soon as it is certain, which is when its last fragment begins: the simulator
does not need that, but who emulates a network in real time can tell the receiver ahead of time when to let it in.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import count
from typing import Any

from planner.scenario.instance import Hop, Path
from planner.simulate.heap import EventHeap

FRAGMENT_BYTES = 64 * 1024

Delivery = Callable[[float], None]
"""Called with the time at which the last byte is there."""


@dataclass(slots=True)
class _Transfer:
    hop: Hop
    left_bytes: float
    start_s: float
    priority: float
    deliver: Delivery
    occupied: Callable[[float, float], None]


class _Resource:
    """One medium, or one direction of a link."""

    def __init__(self, heap: EventHeap) -> None:
        self._heap = heap
        self._waiting: list[tuple[float, int, _Transfer]] = []
        self._sequence = count()
        self._current: tuple[float, int, _Transfer] | None = None
        self._began_s = 0.0
        self._certain = False
        self._version = 0
        self.busy_s = 0.0

    def submit(self, transfer: _Transfer) -> None:
        heapq.heappush(self._waiting, (-transfer.priority, next(self._sequence), transfer))
        if self._current is None:
            self._begin(self._heap.now_s)
        elif not self._certain and -transfer.priority < self._current[0]:
            self._yield_at_fragment_end()

    def _begin(self, now_s: float) -> None:
        """Serve the first waiting transfer, until it is done or :meth:`submit` interrupts it."""
        entry = heapq.heappop(self._waiting)
        transfer = entry[2]
        self._current, self._began_s, self._certain = entry, now_s, False
        if transfer.start_s < 0:
            transfer.start_s = now_s
        whole_s = (_fragments(transfer) - 1) * FRAGMENT_BYTES / transfer.hop.bytes_per_s
        self._schedule(now_s + whole_s, self._announce)

    def _schedule(self, time_s: float, action: Callable[[], None]) -> None:
        self._version += 1
        version = self._version
        self._heap.at(time_s, lambda: action() if version == self._version else None)

    def _announce(self) -> None:
        """Begin the last fragment of the current transfer: nothing can delay it any more."""
        transfer = self._serving()
        end_s = self._began_s + transfer.left_bytes / transfer.hop.bytes_per_s
        self._certain = True
        self._schedule(end_s, self._next)
        transfer.occupied(transfer.start_s, end_s)
        transfer.deliver(end_s + transfer.hop.latency_s)

    def _yield_at_fragment_end(self) -> None:
        transfer = self._serving()
        fragment_s = FRAGMENT_BYTES / transfer.hop.bytes_per_s
        sent = int((self._heap.now_s - self._began_s) / fragment_s) + 1
        if sent < _fragments(transfer):
            self._schedule(self._began_s + sent * fragment_s, lambda: self._put_back(sent))

    def _put_back(self, sent: int) -> None:
        transfer = self._serving()
        transfer.left_bytes -= sent * FRAGMENT_BYTES
        if self._current is not None:
            heapq.heappush(self._waiting, self._current)
        self._next()

    def _next(self) -> None:
        self.busy_s += self._heap.now_s - self._began_s
        self._current = None
        if self._waiting:
            self._begin(self._heap.now_s)

    def _serving(self) -> _Transfer:
        if self._current is None:
            raise AssertionError("a resource acts only while it serves a transfer")
        return self._current[2]


def _fragments(transfer: _Transfer) -> int:
    return max(math.ceil(transfer.left_bytes / FRAGMENT_BYTES), 1)


class Network:
    """All resources of a scenario.

    Parameters
    ----------
    on_occupied
        Told ``(hop, start_s, end_s, label)`` for each hop of each transfer, once it is certain; for records.
    """

    def __init__(
        self, heap: EventHeap, resources: Iterable[str], on_occupied: Callable[[Hop, float, float, Any], None]
    ) -> None:
        self._heap = heap
        self._resources = {name: _Resource(heap) for name in resources}
        self._on_occupied = on_occupied

    def submit(self, path: Path, size_bytes: float, priority: float, deliver: Delivery, label: Any = None) -> None:
        """Send ``size_bytes`` along ``path`` from now on; ``deliver(at_s)`` is called when its time is certain."""
        self._hop(path.hops, size_bytes, priority, deliver, label)

    def _hop(self, hops: tuple[Hop, ...], size_bytes: float, priority: float, deliver: Delivery, label: Any) -> None:
        hop, rest = hops[0], hops[1:]

        def arrive(at_s: float) -> None:
            if rest:
                self._heap.at(at_s, lambda: self._hop(rest, size_bytes, priority, deliver, label))
            else:
                deliver(at_s)

        def occupied(start_s: float, end_s: float) -> None:
            self._on_occupied(hop, start_s, end_s, label)

        self._resources[hop.resource].submit(_Transfer(hop, size_bytes, -1.0, priority, arrive, occupied))

    def busy_s(self) -> dict[str, float]:
        """Time each resource was sending so far, in seconds."""
        return {name: resource.busy_s for name, resource in self._resources.items()}
