"""One lane, by the rules of :mod:`planner.execution.wire.lanes`."""

from __future__ import annotations

import heapq
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from operator import is_
from typing import Final, Protocol

from planner.errors import ExecuteError
from planner.execution.wire.fragments import Fragment, Outgoing
from planner.execution.wire.frames import Frame, encode
from planner.execution.wire.send_window import PROBE_BYTES, Departure, SendWindow
from planner.execution.wire.threads import start_thread
from planner.execution.wire.transport import OnAcknowledged

_LOG = logging.getLogger(__name__)

_MEASURED_BYTES: Final = 2**15
"""The smallest transfer whose duration is reported."""

_AT_ONCE_BYTES: Final = 2**18
"""With no more than this in flight, its own size included, a frame is sent by the thread that hands it over. It is a
quarter of what the transport's queue holds, so that thread does not wait for the medium."""

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


class Carrier(Protocol):
    """The part of a :class:`~planner.execution.wire.transport.Transport` that lanes use."""

    def send_fragment(self, to: str, fragment: Fragment, level: int) -> None:
        """Send a fragment of a frame."""
        ...

    def on_acknowledged(self, call: OnAcknowledged) -> None:
        """Register a callback, called in any thread with each acknowledgement."""
        ...


@dataclass(slots=True)
class Queued:
    """A frame of which nothing, or only a part, has been sent."""

    to: str
    frame: Frame | Outgoing
    level: int
    on_arrival: OnArrival | None

    @property
    def tensor_bytes(self) -> int:
        """Size of the tensors not sent yet."""
        frame = self.frame
        if isinstance(frame, Outgoing):
            return frame.left_bytes
        return sum(tensor.nbytes for tensor in frame.tensors.values())

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


class Lane:
    """Sends everything that passes through one network resource.

    Parameters
    ----------
    at_work
        The lanes for which some thread is sending: a silent link may block what is sent over others, too.
    """

    def __init__(
        self,
        name: str,
        transport: Carrier,
        at_work: set[Lane],
        callbacks: tuple[OnTransfer, OnError, OnError],
    ) -> None:
        self._transport = transport
        self._at_work = at_work
        self._on_transfer, self._on_unsent, self._on_failure = callbacks
        self._round_trip_s: dict[str, float] = {}
        self._unacknowledged_bytes: dict[str, int] = {}
        self._changed = threading.Condition()
        self._queue: list[tuple[int, int, Queued]] = []
        self._sequence = count()
        self._sending: Queued | None = None
        """The frame whose fragment is being sent, unless its member has been forgotten."""
        self._refused: tuple[Queued, Fragment] | None = None
        """The fragment that could not be sent at once, before all else."""
        self._in_flight: dict[tuple[int, int], _InFlight] = {}
        self._burst: _Burst | None = None
        self._window = SendWindow()
        self._drain_until_s: float | None = None
        self._close_by_s: float | None = None
        """Time of the monotonic clock at which the thread ends at the latest; None until :meth:`close`."""
        self._ended = False
        self._thread = start_thread(f"send {name}", self._work, self._end)

    def put(self, item: Queued) -> None:
        """Queue a frame, and send it at once if nothing is in its way."""
        with self._changed:
            if self._ended:
                return  # its owner has been notified
            heapq.heappush(self._queue, (item.level, next(self._sequence), item))
            if not self._goes_at_once(item):
                self._changed.notify()
                return
            self._sending = item
            self._at_work.add(self)
        self._send_at_once(item)

    def _goes_at_once(self, item: Queued) -> bool:
        """Return whether nothing is in the way of a frame that was queued, so that to send it takes no waiting."""
        if self._at_work or self._refused is not None or len(self._queue) > 1 or self._close_by_s is not None:
            return False
        in_flight = sum(sent.departure.size_bytes for sent in self._in_flight.values())
        return item.tensor_bytes + in_flight <= _AT_ONCE_BYTES and self._may_send(item)

    def _send_at_once(self, item: Queued) -> None:
        """Send the first fragment of a frame; leave the rest to the lane's thread, and this one if it is refused."""
        refused: Fragment | None = None
        try:
            fragment = self._take_fragment(item)
            if fragment is not None and not self._try(item, fragment):
                refused = fragment
        finally:
            with self._changed:
                self._at_work.discard(self)
                if refused is not None and self._sending is item:
                    self._refused = item, refused
                if self._queue or self._refused is not None or self._close_by_s is not None:
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
                self._sending = self._refused = None
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
        """Wait until the thread has ended."""
        self._thread.join()

    def _end(self, error: Exception) -> None:
        """Drop everything, now and from now on, since nothing can be sent."""
        with self._changed:
            self._ended = True
            self._queue.clear()
            self._in_flight.clear()
            self._refused = None
        self._on_failure(error)

    def _may_send(self, item: Queued) -> bool:
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

    def _free_bytes(self, item: Queued) -> float:
        """Return the free part of the window that a frame may use."""
        in_flight = [sent.departure.size_bytes for sent in self._in_flight.values() if sent.level <= item.level]
        return self._window.bytes(item.to) - sum(in_flight)

    def _work(self) -> None:
        while (item := self._next_item()) is not None:
            try:
                with self._changed:
                    refused, self._refused = self._refused, None
                fragment = self._take_fragment(item) if refused is None else refused[1]
                if fragment is not None:
                    self._send(item, fragment, refused=refused is not None)
            finally:
                with self._changed:
                    self._at_work.discard(self)

    def _take_fragment(self, item: Queued) -> Fragment | None:
        """Return the next fragment of a frame; None if the frame is lost, or is not the first any more."""
        try:
            outgoing = item.encoded()
        except ExecuteError as error:
            _LOG.exception("a message is lost")
            with self._changed:
                self._discard(partial(is_, item))
            self._on_unsent(error)
            return None
        return self._next_fragment(item, outgoing)

    def _send(self, item: Queued, fragment: Fragment, *, refused: bool) -> None:
        """Send a fragment, again if the transport refuses it; raise its exception after the last attempt.

        Parameters
        ----------
        refused
            Whether there has been an attempt.
        """
        for pause_s in _PAUSES_S:
            if not refused and self._try(item, fragment):
                return
            refused = False
            with self._changed:
                if self._changed.wait_for(lambda: self._sending is not item, pause_s):
                    return
                self._restart_clock(fragment)
        self._transport.send_fragment(item.to, fragment, item.level)

    def _try(self, item: Queued, fragment: Fragment) -> bool:
        """Send a fragment; return whether the transport takes it."""
        try:
            self._transport.send_fragment(item.to, fragment, item.level)
        except Exception:  # noqa: BLE001 - each transport has its own
            _LOG.warning("sending to %s failed, trying again", item.to, exc_info=True)
            return False
        return True

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

    def _next_item(self) -> Queued | None:
        """Wait until a fragment of the first frame may be sent; return None once the queue is empty and closed."""
        with self._changed:
            while not self._is_over() and not self._can_send():
                wait_s = _LOST_S if self._drain_until_s is None else _DRAIN_S
                if self._close_by_s is not None:
                    wait_s = min(wait_s, self._close_by_s - time.monotonic())
                self._changed.wait(max(wait_s, 0.0) if self._queue else None)
                lost_s = time.monotonic() - _LOST_S
                self._in_flight = {key: sent for key, sent in self._in_flight.items() if sent.departure.at_s > lost_s}
            if self._is_over():
                self._sending = None
            else:
                self._sending = self._queue[0][2] if self._refused is None else self._refused[0]
                self._at_work.add(self)
            return self._sending

    def _can_send(self) -> bool:
        """Return whether the lane's thread has a fragment to send; another thread may be sending one."""
        if self in self._at_work:
            return False
        return self._refused is not None or bool(self._queue and self._may_send(self._queue[0][2]))

    def _is_over(self) -> bool:
        by_s = self._close_by_s
        idle = not self._queue and self._refused is None and self not in self._at_work
        return by_s is not None and (idle or by_s <= time.monotonic())

    def _next_fragment(self, item: Queued, outgoing: Outgoing) -> Fragment | None:
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

    def _skips_acknowledgement(self, item: Queued, outgoing: Outgoing, now_s: float) -> bool:
        """Return whether a frame is sent without acknowledgement, and count it."""
        counted_bytes = self._unacknowledged_bytes.get(item.to, 0) + outgoing.whole_bytes
        measures_idle = not self._in_flight and self._window.stale(item.to, now_s)
        asks = item.on_arrival is not None or counted_bytes > PROBE_BYTES or measures_idle
        self._unacknowledged_bytes[item.to] = 0 if asks else counted_bytes
        return not asks

    def _discard(self, unwanted: Callable[[Queued], bool]) -> None:
        self._queue = [entry for entry in self._queue if not unwanted(entry[2])]
        heapq.heapify(self._queue)
