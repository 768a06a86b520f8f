"""Sends frames without making their sender wait, and urgent frames ahead of others.

1. Everything that passes through one network resource, a link's direction or a shared medium, forms one *lane* with its
   own thread, so a slow link delays no other. A frame that nothing is in the way of, and that is too small to fill the
   transport's queue, is sent by the thread that hands it over: to wake another one takes about as long as to send it.
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

import threading
import time
from collections.abc import Mapping
from math import inf

from planner.execution.wire.fragments import Fragment
from planner.execution.wire.frames import Frame
from planner.execution.wire.lane import Carrier, Lane, OnArrival, OnError, OnTransfer, Queued
from planner.execution.wire.transport import LEVELS


def _ignore(_error: Exception) -> None:
    """Do nothing: the error has been logged."""


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
        self._lanes: dict[str, Lane] = {}
        self._at_work: set[Lane] = set()
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
                lane = self._lanes[name] = Lane(name, self._transport, self._at_work, self._callbacks)
        lane.put(Queued(to, frame, min(level, LEVELS), on_arrival))

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

    def _all(self) -> list[Lane]:
        with self._lock:
            return list(self._lanes.values())

    def _on_acknowledged(self, fragment: Fragment) -> None:
        any(lane.acknowledged(fragment) for lane in self._all())
