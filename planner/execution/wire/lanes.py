"""Sends frames without making their sender wait, and urgent frames ahead of others.

1. Everything that passes through one network resource, a link's direction or a shared medium, forms one *lane* with its
   own thread, so a slow link delays no other.
2. Within a lane the most urgent frame goes first, then the oldest. Frames are sent in fragments; a more urgent frame
   overtakes between two of them.
3. A window limits the bytes in flight in a lane, those sent and not yet acknowledged. A fragment counts only bytes at
   least as urgent, so urgent data does not wait for acknowledgements of other data, but other data waits for those of
   urgent data: two streams in one medium would otherwise share it, whatever their urgency.
4. :mod:`planner.execution.wire.send_window` sets the size of the window. While the medium drains for a measurement,
   only frames more urgent than everything in flight are sent.
5. A small frame without a callback is acknowledged only now and then: an acknowledgement costs both ends about as much
   as the frame.
6. A fragment that the transport refuses is sent again after increasing pauses, before anything else of its lane. When
   all attempts have failed, the lane ends and its owner is notified.
"""

from __future__ import annotations

import heapq
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from math import inf
from operator import is_
from typing import Final, Protocol

from planner.errors import ExecuteError
from planner.execution.wire.fragments import Fragment, Outgoing
from planner.execution.wire.frames import Frame, encode
from planner.execution.wire.send_window import PROBE_BYTES, Departure, SendWindow
from planner.execution.wire.threads import start_thread
from planner.execution.wire.transport import LEVELS, OnAcknowledged

_LOG = logging.getLogger(__name__)

_MEASURED_BYTES: Final = 2**15
"""The smallest transfer whose duration is reported."""

_DRAIN_S: Final = 0.1
"""The longest time for which a medium drains: an acknowledgement may have been lost."""

_LOST_S: Final = 5.0
"""A fragment that is not acknowledged within this time no longer counts as in flight."""

_PAUSES_S: Final = tuple(min(0.02 * 2**tries, 1.0) for tries in range(10))
"""Pauses before the attempts to resend a refused fragment; after the last attempt the lane ends."""

OnArrival = Callable[[], None]

OnTransfer = Callable[[str, int, float], None]
"""``call(to, size_bytes, took_s)``, in any thread, after a transfer over an idle medium; without the round trip."""

OnError = Callable[[Exception], None]
"""Called in any thread with an error that has been logged."""


def _ignore(_error: Exception) -> None:
    """Do nothing: the error has been logged."""


class Carrier(Protocol):
    """The part of a :class:`~planner.execution.wire.transport.Transport` that lanes use."""

    def send_fragment(self, to: str, fragment: Fragment, level: int) -> None:
        """Send a fragment of a frame."""
        ...

    def on_acknowledged(self, call: OnAcknowledged) -> None:
        """Register a callback, called in any thread with each acknowledgement."""
        ...


@dataclass(slots=True)
class _Queued:
    """A frame of which nothing, or only a part, has been sent."""

    to: str
    frame: Frame | Outgoing
    level: int
    on_arrival: OnArrival | None

    def encoded(self) -> Outgoing:
        """Return the frame's fragments, the same object each time; raise :class:`ExecuteError` if it has none."""
        frame = self.frame
        if isinstance(frame, Frame):
            kind = frame.body.kind
            try:
                self.frame = frame = Outgoing(*encode(frame))
            except Exception as error:
                raise ExecuteError("cannot be encoded", where=f"message to {self.to}", value=kind) from error
        return frame


@dataclass(frozen=True, slots=True)
class _InFlight:
    """A fragment that has been sent and not acknowledged."""

    departure: Departure
    level: int
    on_arrival: OnArrival | None
    """Called on its acknowledgement."""


@dataclass(slots=True)
class _Burst:
    """The bytes sent to a member between two moments with nothing in flight."""

    to: str
    since_s: float
    size_bytes: int = 0


class _Lane:
    """Sends everything that passes through one network resource."""

    def __init__(
        self, name: str, transport: Carrier, on_transfer: OnTransfer, on_unsent: OnError, on_failure: OnError
    ) -> None:
        self._transport = transport
        self._on_transfer = on_transfer
        self._on_unsent = on_unsent
        self._on_failure = on_failure
        self._round_trip_s: dict[str, float] = {}
        self._unacknowledged_bytes: dict[str, int] = {}
        self._changed = threading.Condition()
        self._queue: list[tuple[int, int, _Queued]] = []
        self._sequence = count()
        self._sending: _Queued | None = None
        """The frame whose fragment is being sent, unless its member has been forgotten."""
        self._in_flight: dict[tuple[int, int], _InFlight] = {}
        self._burst: _Burst | None = None
        self._window = SendWindow()
        self._drain_until_s: float | None = None
        self._close_by_s: float | None = None
        """Time of the monotonic clock at which the thread ends at the latest; None until :meth:`close`."""
        self._ended = False
        self._thread = start_thread(f"send {name}", self._work, self._end)

    def put(self, item: _Queued) -> None:
        with self._changed:
            if self._ended:
                return  # its owner has been notified
            heapq.heappush(self._queue, (item.level, next(self._sequence), item))
            self._changed.notify()

    def acknowledged(self, fragment: Fragment) -> bool:
        """Handle an acknowledgement; return whether it is of a fragment of this lane."""
        with self._changed:
            sent = self._in_flight.pop((fragment.stream, fragment.offset), None)
            if sent is None:
                return False
            now_s = time.monotonic()
            self._window.acknowledged(sent.departure, now_s)
            transfer = self._finished_transfer(now_s)
            self._changed.notify()
        if transfer is not None:
            self._on_transfer(*transfer)
        if sent.on_arrival is not None:
            sent.on_arrival()
        return True

    def _finished_transfer(self, now_s: float) -> tuple[str, int, float] | None:
        """Return the duration of a large burst that has just ended, less the round trip of a small one, if known."""
        burst = self._burst
        if burst is None or self._in_flight:
            return None
        took_s = now_s - burst.since_s
        if burst.size_bytes < PROBE_BYTES:
            self._round_trip_s[burst.to] = min(self._round_trip_s.get(burst.to, took_s), took_s)
        elif burst.size_bytes >= _MEASURED_BYTES:
            return burst.to, burst.size_bytes, max(took_s - self._round_trip_s.get(burst.to, 0.0), 0.0)
        return None

    def forget(self, member: str) -> None:
        """Drop everything for a member that has left."""
        with self._changed:
            self._discard(lambda item: item.to == member)
            self._in_flight = {key: sent for key, sent in self._in_flight.items() if sent.departure.to != member}
            if self._sending is not None and self._sending.to == member:
                self._sending = None
            self._burst = None
            self._window.forget(member)
            self._round_trip_s.pop(member, None)
            self._changed.notify()

    def close(self, by_s: float) -> None:
        """End the thread once the queue is empty or cannot be sent, at the latest at a time of the monotonic clock."""
        with self._changed:
            self._close_by_s = by_s
            self._changed.notify()

    def join(self) -> None:
        self._thread.join()

    def _end(self, error: Exception) -> None:
        """Drop everything, now and from now on, since nothing can be sent."""
        with self._changed:
            self._ended = True
            self._queue.clear()
            self._in_flight.clear()
        self._on_failure(error)

    def _may_send(self, item: _Queued) -> bool:
        now_s = time.monotonic()
        if self._free_bytes(item) <= 0:
            if self._drain_until_s is None and self._window.stale(item.to, now_s):
                self._drain_until_s = now_s + _DRAIN_S
            return False
        if self._drain_until_s is None or self._has_drained(now_s):
            return True
        return item.level < min(sent.level for sent in self._in_flight.values())

    def _has_drained(self, now_s: float) -> bool:
        """Return whether the medium was to drain and is empty, or has had long enough: a small fragment goes alone."""
        return self._drain_until_s is not None and (not self._in_flight or self._drain_until_s <= now_s)

    def _free_bytes(self, item: _Queued) -> float:
        """Return the free part of the window that a frame may use."""
        in_flight = [sent.departure.size_bytes for sent in self._in_flight.values() if sent.level <= item.level]
        return self._window.bytes(item.to) - sum(in_flight)

    def _work(self) -> None:
        while (item := self._next_item()) is not None:
            try:
                outgoing = item.encoded()
            except ExecuteError as error:
                _LOG.exception("a message is lost")
                with self._changed:
                    self._discard(partial(is_, item))
                self._on_unsent(error)
            else:
                fragment = self._next_fragment(item, outgoing)
                if fragment is not None:
                    self._send(item, fragment)

    def _send(self, item: _Queued, fragment: Fragment) -> None:
        """Send a fragment, again if the transport refuses it; raise its exception after the last attempt."""
        for pause_s in _PAUSES_S:
            try:
                return self._transport.send_fragment(item.to, fragment, item.level)
            except Exception:  # noqa: BLE001 - each transport has its own
                _LOG.warning("sending to %s failed, retrying in %g s", item.to, pause_s, exc_info=True)
            with self._changed:
                if self._changed.wait_for(lambda: self._sending is not item, pause_s):
                    return None
                self._restart_clock(fragment)
        return self._transport.send_fragment(item.to, fragment, item.level)

    def _restart_clock(self, fragment: Fragment) -> None:
        """Measure the transfer of a fragment that is sent again from now on, without the pause."""
        key, now_s = (fragment.stream, fragment.offset), time.monotonic()
        sent, self._burst = self._in_flight.get(key), None
        if sent is not None:
            departure, alone = sent.departure, len(self._in_flight) == 1
            departure = self._window.sent(
                departure.to, departure.size_bytes, now_s, limited=departure.limited, alone=alone
            )
            self._in_flight[key] = replace(sent, departure=departure)

    def _next_item(self) -> _Queued | None:
        """Wait until a fragment of the first frame may be sent; return None once the queue is empty and closed."""
        with self._changed:
            while not self._is_over() and not (self._queue and self._may_send(self._queue[0][2])):
                wait_s = _LOST_S if self._drain_until_s is None else _DRAIN_S
                if self._close_by_s is not None:
                    wait_s = min(wait_s, self._close_by_s - time.monotonic())
                self._changed.wait(max(wait_s, 0.0) if self._queue else None)
                lost_s = time.monotonic() - _LOST_S
                self._in_flight = {key: sent for key, sent in self._in_flight.items() if sent.departure.at_s > lost_s}
            self._sending = None if self._is_over() else self._queue[0][2]
            return self._sending

    def _is_over(self) -> bool:
        by_s = self._close_by_s
        return by_s is not None and (not self._queue or by_s <= time.monotonic())

    def _next_fragment(self, item: _Queued, outgoing: Outgoing) -> Fragment | None:
        """Return the next fragment of a frame, which leaves the queue with its last one.

        None if the frame is not the first any more: it was encoded without the lock.
        """
        with self._changed:
            if not self._queue or self._queue[0][2] is not item:
                return None
            now_s, alone = time.monotonic(), not self._in_flight
            if self._skips_acknowledgement(item, outgoing, now_s):
                heapq.heappop(self._queue)
                return outgoing.next(PROBE_BYTES, asks=False)
            window_bytes, free_bytes = self._window.bytes(item.to), self._free_bytes(item)
            most_bytes = max(window_bytes / 4, free_bytes / 2)
            if self._has_drained(now_s):
                self._drain_until_s, most_bytes = None, PROBE_BYTES
            fragment = outgoing.next(int(most_bytes), asks=True)
            size_bytes = len(fragment.payload)
            limited = not outgoing.over or size_bytes + window_bytes / 4 > free_bytes
            if outgoing.over:
                heapq.heappop(self._queue)
            if alone:
                self._burst = _Burst(item.to, now_s)
            if self._burst is not None:
                self._burst.size_bytes += size_bytes
                if self._burst.to != item.to:
                    self._burst = None
            departure = self._window.sent(item.to, size_bytes, now_s, limited=limited, alone=alone)
            on_arrival = item.on_arrival if outgoing.over else None
            self._in_flight[fragment.stream, fragment.offset] = _InFlight(departure, item.level, on_arrival)
            return fragment

    def _skips_acknowledgement(self, item: _Queued, outgoing: Outgoing, now_s: float) -> bool:
        """Return whether a frame is sent without acknowledgement, and count it."""
        counted_bytes = self._unacknowledged_bytes.get(item.to, 0) + outgoing.whole_bytes
        measures_idle = not self._in_flight and self._window.stale(item.to, now_s)
        asks = item.on_arrival is not None or counted_bytes > PROBE_BYTES or measures_idle
        self._unacknowledged_bytes[item.to] = 0 if asks else counted_bytes
        return not asks

    def _discard(self, unwanted: Callable[[_Queued], bool]) -> None:
        self._queue = [entry for entry in self._queue if not unwanted(entry[2])]
        heapq.heapify(self._queue)


def _own_lane(member: str) -> str:
    """Return the name of the lane of a member that :meth:`Lanes.route` assigns none; all coordinators share one."""
    return f"to {member.partition('/')[0]}"


class Lanes:
    """Sends frames through lanes, by level and age; see the module's rules.

    Each member has its own lane until :meth:`route` assigns another one. The methods may be called in any thread.

    Parameters
    ----------
    on_unsent
        Called with the error of a frame that cannot be encoded and is lost.
    on_failure
        Called when a lane has ended because the transport kept refusing a fragment; all frames queued there are lost.
    """

    def __init__(
        self,
        transport: Carrier,
        on_transfer: OnTransfer = lambda _to, _bytes, _seconds: None,
        *,
        on_unsent: OnError = _ignore,
        on_failure: OnError = _ignore,
    ) -> None:
        self._transport = transport
        self._callbacks: tuple[OnTransfer, OnError, OnError] = (on_transfer, on_unsent, on_failure)
        self._lock = threading.Lock()
        self._closed = False
        self._lanes: dict[str, _Lane] = {}
        self._lane_of: Mapping[str, str] = {}
        transport.on_acknowledged(self._on_acknowledged)

    def route(self, lane_of: Mapping[str, str]) -> None:
        """Set the network resource through which some members are reached, from now on."""
        self._lane_of = {**self._lane_of, **lane_of}

    def send(self, to: str, frame: Frame, level: int, on_arrival: OnArrival | None = None) -> None:
        """Queue a frame; ``on_arrival`` is called in any thread when all of it has arrived."""
        with self._lock:
            if self._closed:
                return
            name = self._lane_of.get(to, _own_lane(to))
            lane = self._lanes.get(name)
            if lane is None:
                lane = self._lanes[name] = _Lane(name, self._transport, *self._callbacks)
        lane.put(_Queued(to, frame, min(level, LEVELS), on_arrival))

    def forget(self, member: str) -> None:
        """Drop everything for a member that has left, and end its own lane."""
        for lane in self._all():
            lane.forget(member)
        with self._lock:
            own = self._lanes.pop(_own_lane(member), None)
        if own is not None:
            own.close(time.monotonic())

    def close(self, timeout_s: float = inf) -> None:
        """Accept no more frames, and return once the queued ones have been sent or cannot be, or after a time."""
        with self._lock:
            self._closed = True
        for lane in self._all():
            lane.close(time.monotonic() + timeout_s)
        for lane in self._all():
            lane.join()

    def _all(self) -> list[_Lane]:
        with self._lock:
            return list(self._lanes.values())

    def _on_acknowledged(self, fragment: Fragment) -> None:
        any(lane.acknowledged(fragment) for lane in self._all())
