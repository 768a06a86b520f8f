"""What an agent sends, so that it never waits for a link itself, and urgent data hardly for other data.

1. What goes through one resource of the network, a link's direction or a shared medium, is one *lane* with a thread of
   its own: a slow link holds up no other.
2. Within a lane the most urgent frame goes first, then the oldest; a frame goes in fragments, and a more urgent one
   overtakes it between two of them.
3. What is on its way in a lane, sent and not acknowledged, is bounded by a window. A fragment counts only what is at
   least as urgent, so urgent data does not wait for acknowledgements of other data, but other data waits for those
   of urgent data. Two streams in one medium would otherwise share it, however urgent one of them is.
4. :mod:`planner.execution.wire.send_window` decides how large the window is. While the medium is left to run empty for
   that, only what is more urgent than all that is on its way goes.
5. A small frame that nobody waits for is not acknowledged, but for one now and then: an acknowledgement costs both ends
   about as much work as the frame.
6. A fragment that the transport refuses is sent again, after a little longer each time, before anything else of its
   lane goes. Where that does not help the lane ends, and its owner is told.
"""

from __future__ import annotations

import heapq
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import count
from typing import Final, Protocol

from planner.errors import ExecuteError
from planner.execution.wire.fragments import Fragment, Outgoing
from planner.execution.wire.frames import Frame, encode
from planner.execution.wire.send_window import PROBE_BYTES, Departure, SendWindow
from planner.execution.wire.threads import start_thread
from planner.execution.wire.transport import LEVELS, OnAcknowledged

_LOG = logging.getLogger(__name__)

_MEASURED_BYTES: Final = 2**15
"""What is at least as large is long enough on its way to tell how fast that is."""

_DRAINED_S: Final = 0.1
"""A medium is left to run empty for no longer than this: an acknowledgement may have been lost."""

_LOST_S: Final = 5.0
"""What is not acknowledged for so long will not be."""

_PAUSES_S: Final = tuple(min(0.02 * 2**tries, 1.0) for tries in range(10))
"""How long to wait before a fragment that was refused is sent again; after the last time the lane ends."""

Sent = Callable[[], None]

OnTransfer = Callable[[str, int, float], None]
"""Told, in any thread, to whom how many bytes went on an idle way, and the seconds that took beyond a round trip."""

OnTrouble = Callable[[Exception], None]
"""Told, in any thread, what went wrong, once it has been logged."""


def _log_alone(_error: Exception) -> None:
    """Leave it at the log."""


class Carrier(Protocol):
    """What lanes need of a :class:`~planner.execution.wire.transport.Transport`."""

    def send_fragment(self, to: str, fragment: Fragment, level: int) -> None:
        """Send a part of a frame."""
        ...

    def on_acknowledged(self, call: OnAcknowledged) -> None:
        """Have ``call`` called, in any thread, when a fragment that asked for it has come."""
        ...


@dataclass(slots=True)
class _Waiting:
    """A frame that waits, or is part of the way out."""

    to: str
    frame: Frame | Outgoing
    level: int
    sent: Sent | None

    def encoded(self) -> Outgoing:
        """Give the frame as it is sent, always the same; raises :class:`ExecuteError` where it cannot be."""
        frame = self.frame
        if isinstance(frame, Frame):
            kind = frame.body.kind
            try:
                self.frame = frame = Outgoing(*encode(frame))
            except Exception as error:
                raise ExecuteError("cannot be encoded", where=f"message to {self.to}", value=kind) from error
        return frame


@dataclass(frozen=True, slots=True)
class _Flying:
    """A fragment on its way."""

    gone: Departure
    level: int
    sent: Sent | None
    """Called when it has come."""


@dataclass(slots=True)
class _Burst:
    """What went from the time when nothing was on its way to the time when nothing was again."""

    to: str
    since_s: float
    size_bytes: int = 0


class _Lane:
    """What goes through one resource of the network."""

    def __init__(
        self, name: str, transport: Carrier, on_transfer: OnTransfer, on_unsent: OnTrouble, on_failure: OnTrouble
    ) -> None:
        self._transport = transport
        self._on_transfer = on_transfer
        self._on_unsent = on_unsent
        self._on_failure = on_failure
        self._round_trip_s: dict[str, float] = {}
        self._unasked_bytes: dict[str, int] = {}
        self._changed = threading.Condition()
        self._waiting: list[tuple[int, int, _Waiting]] = []
        self._sequence = count()
        self._going: _Waiting | None = None
        """Of which a fragment goes next, unless its member is forgotten first."""
        self._flying: dict[tuple[int, int], _Flying] = {}
        self._burst: _Burst | None = None
        self._window = SendWindow()
        self._drained_s: float | None = None
        self._closing = False
        self._ended = False
        self._thread = start_thread(f"send {name}", self._work, self._end)

    def put(self, item: _Waiting) -> None:
        with self._changed:
            if self._ended:
                return  # its owner knows
            heapq.heappush(self._waiting, (item.level, next(self._sequence), item))
            self._changed.notify()

    def acknowledged(self, fragment: Fragment) -> bool:
        """Take an acknowledgement; tell whether it was of a fragment of this lane."""
        with self._changed:
            flying = self._flying.pop((fragment.stream, fragment.offset), None)
            if flying is None:
                return False
            now_s = time.monotonic()
            self._window.came(flying.gone, now_s)
            transfer = self._measured(now_s)
            self._changed.notify()
        if transfer is not None:
            self._on_transfer(*transfer)
        if flying.sent is not None:
            flying.sent()
        return True

    def _measured(self, now_s: float) -> tuple[str, int, float] | None:
        """Give what a large burst that is over took beyond the round trip of a small one: all that its size adds."""
        burst = self._burst
        if burst is None or self._flying:
            return None
        took_s = now_s - burst.since_s
        if burst.size_bytes < PROBE_BYTES:
            self._round_trip_s[burst.to] = min(self._round_trip_s.get(burst.to, took_s), took_s)
        elif burst.size_bytes >= _MEASURED_BYTES and burst.to in self._round_trip_s:
            return burst.to, burst.size_bytes, max(took_s - self._round_trip_s[burst.to], 0.0)
        return None

    def forget(self, member: str) -> None:
        """Drop what is for a member that is gone."""
        with self._changed:
            self._waiting = [entry for entry in self._waiting if entry[2].to != member]
            heapq.heapify(self._waiting)
            self._flying = {key: flying for key, flying in self._flying.items() if flying.gone.to != member}
            if self._going is not None and self._going.to == member:
                self._going = None
            self._burst = None
            self._window.forget(member)
            self._round_trip_s.pop(member, None)
            self._changed.notify()

    def close(self) -> None:
        """End the thread once all that waits has been sent, or cannot be."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _end(self, error: Exception) -> None:
        """Take no more, since nothing goes."""
        with self._changed:
            self._ended = True
            self._waiting.clear()
            self._flying.clear()
        self._on_failure(error)

    def _may_go(self, item: _Waiting) -> bool:
        now_s = time.monotonic()
        if self._free_bytes(item) <= 0:
            if self._drained_s is None and self._window.stale(item.to, now_s):
                self._drained_s = now_s + _DRAINED_S
            return False
        if self._drained_s is None or self._probes(now_s):
            return True
        return item.level < min(own.level for own in self._flying.values())

    def _probes(self, now_s: float) -> bool:
        """Tell whether the medium has run empty, or was long enough left to, so that a small fragment goes alone."""
        return self._drained_s is not None and (not self._flying or self._drained_s <= now_s)

    def _free_bytes(self, item: _Waiting) -> float:
        """Give how much of the window is open to a frame."""
        flying = [own.gone.size_bytes for own in self._flying.values() if own.level <= item.level]
        return self._window.bytes(item.to) - sum(flying)

    def _work(self) -> None:
        while (item := self._next_due()) is not None:
            try:
                outgoing = item.encoded()
            except ExecuteError as error:
                _LOG.exception("a message is lost")
                with self._changed:
                    self._remove(item)
                self._on_unsent(error)
            else:
                self._send(item, self._take(item, outgoing))

    def _send(self, item: _Waiting, fragment: Fragment) -> None:
        """Send a fragment, again while the transport refuses it; raises what it does when that goes on."""
        for pause_s in _PAUSES_S:
            try:
                return self._transport.send_fragment(item.to, fragment, item.level)
            except Exception:  # noqa: BLE001 - each transport has its own
                _LOG.warning("sending to %s fails, and is tried again in %g s", item.to, pause_s, exc_info=True)
            with self._changed:
                if self._changed.wait_for(lambda: self._going is not item, pause_s):
                    return None
                self._goes_again(fragment)
        return self._transport.send_fragment(item.to, fragment, item.level)

    def _goes_again(self, fragment: Fragment) -> None:
        """Count from now on what a fragment takes: the pause was no part of its way."""
        key, now_s = (fragment.stream, fragment.offset), time.monotonic()
        flying, self._burst = self._flying.get(key), None
        if flying is not None:
            gone, alone = flying.gone, len(self._flying) == 1
            gone = self._window.goes(gone.to, gone.size_bytes, now_s, limited=gone.limited, alone=alone)
            self._flying[key] = replace(flying, gone=gone)

    def _next_due(self) -> _Waiting | None:
        """Wait for the next frame of which something may go; None when all has gone and the lane closes."""
        with self._changed:
            while not (self._waiting and self._may_go(self._waiting[0][2])):
                if self._closing and not self._waiting:
                    return None
                left_s = _LOST_S if self._drained_s is None else _DRAINED_S
                self._changed.wait(left_s if self._waiting else None)
                lost_s = time.monotonic() - _LOST_S
                self._flying = {key: flying for key, flying in self._flying.items() if flying.gone.at_s > lost_s}
            self._going = self._waiting[0][2]
            return self._going

    def _take(self, item: _Waiting, outgoing: Outgoing) -> Fragment:
        """Take the next fragment of a frame, and the frame out once it is over."""
        with self._changed:
            now_s, alone = time.monotonic(), not self._flying
            if self._goes_unasked(item, outgoing, now_s):
                self._remove(item)
                return outgoing.next(PROBE_BYTES, asks=False)
            window_bytes, free_bytes = self._window.bytes(item.to), self._free_bytes(item)
            most_bytes = max(window_bytes / 4, free_bytes / 2)
            if self._probes(now_s):
                self._drained_s, most_bytes = None, PROBE_BYTES
            fragment = outgoing.next(int(most_bytes), asks=True)
            size_bytes = len(fragment.payload)
            limited = not outgoing.over or size_bytes + window_bytes / 4 > free_bytes
            if outgoing.over:
                self._remove(item)
            if alone:
                self._burst = _Burst(item.to, now_s)
            if self._burst is not None:
                self._burst.size_bytes += size_bytes
                if self._burst.to != item.to:
                    self._burst = None
            gone = self._window.goes(item.to, size_bytes, now_s, limited=limited, alone=alone)
            sent = item.sent if outgoing.over else None
            self._flying[fragment.stream, fragment.offset] = _Flying(gone, item.level, sent)
            return fragment

    def _goes_unasked(self, item: _Waiting, outgoing: Outgoing, now_s: float) -> bool:
        """Tell whether a frame may go without being acknowledged, and count it."""
        counted = self._unasked_bytes.get(item.to, 0) + outgoing.whole_bytes
        tells_idle = not self._flying and self._window.stale(item.to, now_s)
        asks = item.sent is not None or counted > PROBE_BYTES or tells_idle
        self._unasked_bytes[item.to] = 0 if asks else counted
        return not asks

    def _remove(self, item: _Waiting) -> None:
        self._waiting = [entry for entry in self._waiting if entry[2] is not item]
        heapq.heapify(self._waiting)


class Lanes:
    """Sends frames through lanes, by level and age; see the module.

    Until :meth:`route` says otherwise each member has a lane of its own. Its methods may be called in any thread.

    Parameters
    ----------
    on_unsent
        Told of a frame that cannot be encoded, and is lost.
    on_failure
        Told when the transport has refused a fragment for so long that the lane has ended, and with it all that waited
        there.
    """

    def __init__(
        self,
        transport: Carrier,
        on_transfer: OnTransfer = lambda _to, _bytes, _seconds: None,
        *,
        on_unsent: OnTrouble = _log_alone,
        on_failure: OnTrouble = _log_alone,
    ) -> None:
        self._transport = transport
        self._told: tuple[OnTransfer, OnTrouble, OnTrouble] = (on_transfer, on_unsent, on_failure)
        self._lock = threading.Lock()
        self._closed = False
        self._lanes: dict[str, _Lane] = {}
        self._lane_of: Mapping[str, str] = {}
        transport.on_acknowledged(self._on_acknowledged)

    def route(self, lane_of: Mapping[str, str]) -> None:
        """Say through which resource of the network each member is reached, from now on."""
        self._lane_of = dict(lane_of)

    def send(self, to: str, frame: Frame, level: int, sent: Sent | None = None) -> None:
        """Add a frame; ``sent`` is called, in any thread, when all of it has come."""
        with self._lock:
            if self._closed:
                return
            name = self._lane_of.get(to, f"to {to}")
            lane = self._lanes.get(name)
            if lane is None:
                lane = self._lanes[name] = _Lane(name, self._transport, *self._told)
        lane.put(_Waiting(to, frame, min(level, LEVELS), sent))

    def forget(self, member: str) -> None:
        """Drop what is for a member that is gone."""
        for lane in self._all():
            lane.forget(member)

    def close(self) -> None:
        """Take no more frames, and return once all have gone, or cannot go."""
        with self._lock:
            self._closed = True
        for lane in self._all():
            lane.close()

    def _all(self) -> list[_Lane]:
        with self._lock:
            return list(self._lanes.values())

    def _on_acknowledged(self, fragment: Fragment) -> None:
        any(lane.acknowledged(fragment) for lane in self._all())
