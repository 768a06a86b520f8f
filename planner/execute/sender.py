"""What an agent sends, so that it never waits for a link itself, and urgent data hardly for other data.

1. What goes through one resource of the network, a link's direction or a shared medium, is one *lane* with a thread of
   its own: a slow link holds up no other.
2. Within a lane the most urgent frame goes first, then the oldest; a frame goes in fragments, and a more urgent one
   overtakes it between two of them.
3. What is on its way in a lane, sent and not acknowledged, is bounded by a window. A fragment counts only what is at
   least as urgent, so urgent data does not wait for acknowledgements of other data, but other data waits for those
   of urgent data. Two streams in one medium would otherwise share it, however urgent one of them is.
4. The window follows what the medium can take: it grows while it is what holds data back, and shrinks where fragments
   come much later than on the idle medium, which means that they wait in queues before it. (The idea is LEDBAT's,
   RFC 6817, with a target short enough for the data that comes next.)
"""

from __future__ import annotations

import heapq
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Final, Protocol

from planner.execute.fragments import Fragment, Outgoing
from planner.execute.messages import Frame, encode
from planner.execute.transport import LEVELS, OnAcknowledged

QUEUED_S: Final = 0.010
"""How long data may wait in the queues before a medium: what a more urgent fragment may find ahead of itself."""

_FIRST_BYTES: Final = 2**20
_LEAST_BYTES: Final = 2**14
_MOST_BYTES: Final = 2**26
"""The window at the start, and its bounds."""

_RECENT: Final = 4
"""Acknowledgements may be late for reasons of the receiver's, too; the least of the last few tells of the medium."""

_TELLING_BYTES: Final = 4096
"""What is smaller than this says little about a medium."""

_MEASURED_BYTES: Final = 2**15
"""What is at least as large is long enough on its way to tell how fast that is."""

_LOST_S: Final = 5.0
"""What is not acknowledged for so long will not be."""

Sent = Callable[[], None]

OnTransfer = Callable[[str, int, float], None]
"""Told, in any thread, to whom how many bytes went on an idle way, and the seconds that took beyond a round trip."""


class Carrier(Protocol):
    """What lanes need of a :class:`~planner.execute.transport.Transport`."""

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


@dataclass(frozen=True, slots=True)
class _Flying:
    """A fragment on its way."""

    to: str
    level: int
    size_bytes: int
    since_s: float
    limited: bool
    """Whether the window held data back."""
    sent: Sent | None
    """Called when it has come."""
    alone: bool
    """Whether nothing else of its lane was on its way when it was sent."""


class _Lane:
    """What goes through one resource of the network."""

    def __init__(self, name: str, transport: Carrier, on_transfer: OnTransfer) -> None:
        self._transport = transport
        self._on_transfer = on_transfer
        self._round_trip_s: dict[str, float] = {}
        self._heard_s: dict[str, float] = {}
        self._changed = threading.Condition()
        self._waiting: list[tuple[int, int, _Waiting]] = []
        self._sequence = count()
        self._flying: dict[tuple[int, int], _Flying] = {}
        self._closing = False
        self._window_bytes = float(_FIRST_BYTES)
        self._idle_s: dict[str, float] = {}
        self._late_s: deque[float] = deque(maxlen=_RECENT)
        self._thread = threading.Thread(target=self._work, name=f"send {name}", daemon=True)
        self._thread.start()

    def put(self, item: _Waiting) -> None:
        with self._changed:
            heapq.heappush(self._waiting, (item.level, next(self._sequence), item))
            self._changed.notify()

    def acknowledged(self, fragment: Fragment) -> bool:
        """Take an acknowledgement; tell whether it was of a fragment of this lane."""
        with self._changed:
            flying = self._flying.pop((fragment.stream, fragment.offset), None)
            if flying is None:
                return False
            now_s = self._heard_s[flying.to] = time.monotonic()
            took_s = now_s - flying.since_s
            self._follow(flying, took_s)
            self._changed.notify()
        if flying.alone:
            self._measure(flying, took_s)
        if flying.sent is not None:
            flying.sent()
        return True

    def _measure(self, flying: _Flying, took_s: float) -> None:
        """Tell what a large fragment took beyond the round trip of a small one: all that its size adds."""
        if flying.size_bytes < _TELLING_BYTES:
            self._round_trip_s[flying.to] = min(self._round_trip_s.get(flying.to, took_s), took_s)
        elif flying.size_bytes >= _MEASURED_BYTES and flying.to in self._round_trip_s:
            self._on_transfer(flying.to, flying.size_bytes, max(took_s - self._round_trip_s[flying.to], 0.0))

    def forget(self, member: str) -> None:
        """Drop what is for a member that is gone."""
        with self._changed:
            self._waiting = [entry for entry in self._waiting if entry[2].to != member]
            heapq.heapify(self._waiting)
            self._flying = {key: flying for key, flying in self._flying.items() if flying.to != member}
            self._idle_s.pop(member, None)
            self._round_trip_s.pop(member, None)
            self._changed.notify()

    def silent(self, since_s: float) -> set[str]:
        """Name the members that were sent something before a time, and have acknowledged nothing since."""
        with self._changed:
            return {
                flying.to
                for flying in self._flying.values()
                if flying.since_s < since_s and self._heard_s.get(flying.to, 0.0) < since_s
            }

    def close(self) -> None:
        """End the thread once all that waits has been sent."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _follow(self, flying: _Flying, took_s: float) -> None:
        """Fit the window to how long a fragment took."""
        if flying.size_bytes < _TELLING_BYTES:
            return
        idle_s = self._idle_s[flying.to] = min(self._idle_s.get(flying.to, took_s), took_s)
        self._late_s.append(took_s - idle_s)
        late_s = min(self._late_s)
        if late_s > QUEUED_S and len(self._late_s) == _RECENT:
            self._window_bytes = max(_LEAST_BYTES, self._window_bytes * max(0.5, QUEUED_S / late_s))
            self._late_s.clear()
        elif flying.limited and late_s < QUEUED_S:
            more_bytes = flying.size_bytes / 2 * (1 - late_s / QUEUED_S)
            self._window_bytes = min(_MOST_BYTES, self._window_bytes + more_bytes)

    def _free_bytes(self, level: int) -> float:
        """Give how much of the window is open to data of a level."""
        return self._window_bytes - sum(own.size_bytes for own in self._flying.values() if own.level <= level)

    def _work(self) -> None:
        while (item := self._next_due()) is not None:
            if isinstance(item.frame, Frame):
                item.frame = Outgoing(*encode(item.frame))
            fragment = self._take(item, item.frame)
            self._transport.send_fragment(item.to, fragment, item.level)

    def _next_due(self) -> _Waiting | None:
        """Wait for the next frame of which something may go; None when all has gone and the lane closes."""
        with self._changed:
            while not (self._waiting and self._free_bytes(self._waiting[0][0]) > 0):
                if self._closing and not self._waiting:
                    return None
                self._changed.wait(_LOST_S if self._waiting else None)
                lost_s = time.monotonic() - _LOST_S
                self._flying = {key: flying for key, flying in self._flying.items() if flying.since_s > lost_s}
            return self._waiting[0][2]

    def _take(self, item: _Waiting, outgoing: Outgoing) -> Fragment:
        """Take the next fragment of a frame, and the frame out once it is over."""
        with self._changed:
            free_bytes = self._free_bytes(item.level)
            fragment = outgoing.next(int(max(self._window_bytes / 4, free_bytes / 2)), asks=True)
            size_bytes, alone = len(fragment.payload), not self._flying
            limited = not outgoing.over or size_bytes + self._window_bytes / 4 > free_bytes
            if outgoing.over:
                self._waiting = [entry for entry in self._waiting if entry[2] is not item]
                heapq.heapify(self._waiting)
            self._flying[fragment.stream, fragment.offset] = _Flying(
                item.to, item.level, size_bytes, time.monotonic(),
                limited, item.sent if outgoing.over else None, alone,
            )  # fmt: skip
            return fragment


class SenderThread:
    """Sends frames through lanes, by level and age; see the module.

    Until :meth:`route` says otherwise each member has a lane of its own.
    """

    def __init__(self, transport: Carrier, on_transfer: OnTransfer = lambda _to, _bytes, _seconds: None) -> None:
        self._transport = transport
        self._on_transfer = on_transfer
        self._lanes: dict[str, _Lane] = {}
        self._lane_of: Mapping[str, str] = {}
        transport.on_acknowledged(self._on_acknowledged)

    def route(self, lane_of: Mapping[str, str]) -> None:
        """Say through which resource of the network each member is reached, from now on."""
        self._lane_of = dict(lane_of)

    def send(self, to: str, frame: Frame, level: int, sent: Sent | None = None) -> None:
        """Add a frame; ``sent`` is called, in any thread, when all of it has come."""
        name = self._lane_of.get(to, f"to {to}")
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = _Lane(name, self._transport, self._on_transfer)
        lane.put(_Waiting(to, frame, min(level, LEVELS), sent))

    def forget(self, member: str) -> None:
        """Drop what is for a member that is gone."""
        for lane in list(self._lanes.values()):
            lane.forget(member)

    def silent(self, for_s: float) -> set[str]:
        """Name the members that were sent something so long ago, and have acknowledged nothing since."""
        since_s = time.monotonic() - for_s
        return {member for lane in list(self._lanes.values()) for member in lane.silent(since_s)}

    def close(self) -> None:
        """End once all frames have gone."""
        for lane in self._lanes.values():
            lane.close()

    def _on_acknowledged(self, fragment: Fragment) -> None:
        any(lane.acknowledged(fragment) for lane in list(self._lanes.values()))
