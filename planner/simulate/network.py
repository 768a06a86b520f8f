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

from planner.scenario.instance import Hop, Path
from planner.simulate.heap import EventHeap

FRAGMENT_BYTES = 64 * 1024

Delivery = Callable[[float], None]
"""Called with the time at which the last byte is there."""

Occupation = Callable[[Hop, float, float], None]
"""Called with the hop, and the times between which it was occupied, interruptions included."""


@dataclass(slots=True)
class _Transfer:
    hop: Hop
    left_bytes: float
    start_s: float
    priority: float
    deliver: Delivery
    occupied: Occupation


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
        self._factor = 1.0
        self.busy_s = 0.0

    def submit(self, transfer: _Transfer) -> None:
        heapq.heappush(self._waiting, (-transfer.priority, next(self._sequence), transfer))
        if self._current is None:
            self._begin_next()
        elif not self._certain and -transfer.priority < self._current[0]:
            self._yield_at_fragment_end()

    def change_rate(self, factor: float) -> None:
        """Go on at another share of the bandwidth; 0 stops. A last fragment that has begun ends as announced."""
        if self._current is not None and not self._certain:
            transfer = self._serving()
            sent_bytes = (self._heap.now_s - self._began_s) * self._rate(transfer)
            transfer.left_bytes = max(transfer.left_bytes - sent_bytes, 0.0)
            heapq.heappush(self._waiting, self._current)
            self._factor = factor
            self._next()
        else:
            self._factor = factor
            if self._current is None:
                self._begin_next()

    def _rate(self, transfer: _Transfer) -> float:
        return transfer.hop.bytes_per_s * self._factor

    def _begin_next(self) -> None:
        """Serve the first waiting transfer, until it is done or something interrupts it."""
        if not self._waiting or self._factor == 0:
            return
        now_s = self._heap.now_s
        entry = heapq.heappop(self._waiting)
        transfer = entry[2]
        self._current, self._began_s, self._certain = entry, now_s, False
        if transfer.start_s < 0:
            transfer.start_s = now_s
        if transfer.left_bytes > FRAGMENT_BYTES:
            before_last = _fragments(transfer) - 1
            self._schedule(now_s + before_last * FRAGMENT_BYTES / self._rate(transfer), self._announce)
        else:
            self._announce()

    def _schedule(self, time_s: float, action: Callable[[], None]) -> None:
        self._version += 1
        version = self._version
        self._heap.at(time_s, lambda: action() if version == self._version else None)

    def _announce(self) -> None:
        """Begin the last fragment of the current transfer: nothing can delay it any more."""
        transfer = self._serving()
        hop = transfer.hop
        end_s = self._began_s + transfer.left_bytes / self._rate(transfer)
        self._certain = True
        self._heap.at(end_s, self._next)
        transfer.occupied(hop, transfer.start_s, end_s)
        transfer.deliver(end_s + hop.latency_s)

    def _yield_at_fragment_end(self) -> None:
        transfer = self._serving()
        fragment_s = FRAGMENT_BYTES / self._rate(transfer)
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
        self._version += 1
        self._begin_next()

    def _serving(self) -> _Transfer:
        if self._current is None:
            raise AssertionError("a resource acts only while it serves a transfer")
        return self._current[2]


def _fragments(transfer: _Transfer) -> int:
    return math.ceil(transfer.left_bytes / FRAGMENT_BYTES) or 1


class Network:
    """All resources of a scenario."""

    def __init__(self, heap: EventHeap, resources: Iterable[str]) -> None:
        self._heap = heap
        self._resources = {name: _Resource(heap) for name in resources}

    def submit(self, path: Path, size_bytes: float, priority: float, deliver: Delivery, occupied: Occupation) -> None:
        """Send ``size_bytes`` along ``path`` from now on.

        Parameters
        ----------
        deliver
            Called with the time at which the last byte is there, as soon as that is certain.
        occupied
            Called with hop, start and end for each hop, as soon as they are certain; for records.
        """
        self._hop(path.hops, size_bytes, priority, deliver, occupied)

    def _hop(
        self, hops: tuple[Hop, ...], size_bytes: float, priority: float, deliver: Delivery, occupied: Occupation
    ) -> None:
        hop, rest = hops[0], hops[1:]

        def forward(at_s: float) -> None:
            self._heap.at(at_s, lambda: self._hop(rest, size_bytes, priority, deliver, occupied))

        transfer = _Transfer(hop, size_bytes, -1.0, priority, forward if rest else deliver, occupied)
        self._resources[hop.resource].submit(transfer)

    def change_rate(self, resources: Iterable[str], factor: float) -> None:
        """Let resources go on at a share of their bandwidth; 0 stops them, and what waits there waits on."""
        for resource in resources:
            self._resources[resource].change_rate(factor)

    def busy_s(self) -> dict[str, float]:
        """Time each resource was sending so far, in seconds."""
        return {name: resource.busy_s for name, resource in self._resources.items()}
