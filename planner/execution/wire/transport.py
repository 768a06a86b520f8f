"""The protocol of a transport, and what every implementation does with an inbound fragment.

:mod:`planner.execution.wire.zenoh` implements the protocol over Zenoh.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from planner.errors import ExecuteError, explain
from planner.execution.wire.fragments import Assembler, Fragment, read_fragment
from planner.execution.wire.frames import Frame, Payload, decode
from planner.execution.wire.limits import Limits
from planner.execution.wire.messages import COORDINATOR, Deploy, Refused
from planner.execution.wire.security import check_sender
from planner.execution.wire.whereabouts import Whereabouts

_LOG = logging.getLogger(__name__)

CONTROL: Final = 1
"""Level of everything except the data of samples: deployment, admission, reports."""

LEVELS: Final = 7
"""Levels of urgency, 1 (most urgent) to 7."""

PRESENCE_PERIOD_S: Final = 1.0
"""Period of the queries for present members while some are awaited."""

IDLE_BYTES: Final = 2**20
"""Largest message that a worker without a deployment accepts, without its header."""

OnAcknowledged = Callable[[Fragment], None]


def urgency_levels(priorities: Mapping[str, float]) -> dict[float, int]:
    """Map each distinct priority to a level of the transport: the highest to 3, the others to less urgent ones.

    Levels 1 and 2 are reserved for messages other than the data of samples.
    """
    ranked = sorted(set(priorities.values()), reverse=True)
    return {priority: min(3 + rank, LEVELS) for rank, priority in enumerate(ranked)}


class Transport(Protocol):
    """A member's connection to all others."""

    def send(self, to: str, frame: Frame, level: int) -> None:
        """Send a frame to a member; it is delivered once, or never if the member has left.

        Parameters
        ----------
        to
            A name; ``NAME/PROCESS`` for one of several agents of that name.
        level
            1 to 7; smaller is more urgent.
        """
        ...

    def send_fragment(self, to: str, fragment: Fragment, level: int) -> None:
        """Send a fragment of a frame."""
        ...

    def on_acknowledged(self, call: OnAcknowledged) -> None:
        """Register a callback, called in any thread with each acknowledgement."""
        ...

    def limit(self, size_bytes: int) -> None:
        """Refuse larger messages from now on."""
        ...

    def query_presence(self) -> None:
        """Query the present members: each is reported again, as when it joins."""
        ...

    def processes(self, member: str) -> Mapping[str, Whereabouts]:
        """Return the other agents of a name, first the one that messages go to, each with where it runs."""
        ...

    def shared_names(self) -> frozenset[str]:
        """Return the names that several agents have (:mod:`planner.execution.wire.presence`)."""
        ...

    def unreachable(self) -> Mapping[str, str]:
        """Return the addresses to connect to that lead to no member, each with the reason in words."""
        ...

    def unlike(self) -> Mapping[str, int]:
        """Return the present members that speak another version of the wire format, with that version."""
        ...

    def close(self) -> None:
        """Leave the network; the others are notified."""
        ...


OnFrame = Callable[[Frame], None]
"""Called in any thread with each inbound frame; for a refused one, with a :class:`Refused` from the member itself."""

OnPresence = Callable[[str, bool], None]
"""Called in any thread when another member joins (True) or leaves (False); also for those present already, possibly
several times, and when another agent of a present member's name comes or goes, even if the name is one's own. Each
coordinator is a member of its own, known by its address."""

Connect = Callable[[OnFrame, OnPresence], Transport]
"""Opens a member's transport."""


class Receiver:
    """Turns inbound fragments into frames for ``member``, the same way for all transports.

    It keeps no more of unfinished frames than ``limits`` allows, whoever sends them: of the sender of which it has
    most, it drops the oldest, and refuses it by name. Nor does it listen to more senders; one of which nothing is
    unfinished makes room for another.
    """

    def __init__(self, member: str, on_frame: OnFrame, limits: Limits | None = None) -> None:
        self._member = member
        self._on_frame = on_frame
        self._limits = limits or Limits()
        self._assemblers: dict[tuple[str, str], Assembler] = {}
        """By sender and process; the one heard least recently first."""
        self._lock = threading.Lock()
        self._unfinished_bytes = 0
        self._limit_bytes = self._limits.unfinished_bytes if member == COORDINATOR else IDLE_BYTES
        self.on_acknowledged: OnAcknowledged = lambda _fragment: None

    def limit(self, size_bytes: int) -> None:
        """Refuse larger messages from now on, but accept at least :data:`IDLE_BYTES`."""
        with self._lock:
            self._limit_bytes = size_bytes = max(size_bytes, IDLE_BYTES)
            for assembler in self._assemblers.values():
                assembler.limit_bytes = size_bytes

    def forget(self, sender: str, process: str = "") -> None:
        """Drop the unfinished frames of an process of a member that has left."""
        with self._lock:
            assembler = self._assemblers.pop((sender, process), None)
            if assembler is not None:
                self._unfinished_bytes -= assembler.unfinished_bytes

    @property
    def _most_bytes(self) -> int:
        """Bound of the size of unfinished frames, by which the largest message of the run is always allowed."""
        return max(self._limits.unfinished_bytes, self._limit_bytes + IDLE_BYTES)

    def _assemble(self, sender: str, process: str, fragment: Fragment) -> tuple[bytes, Payload] | None:
        """Return header and payload of the frame that a fragment completes, if any; refuse what exceeds the bounds."""
        with self._lock:
            assembler = self._assemblers.pop((sender, process), None)
            if assembler is None:
                self._make_room()
                assembler = Assembler(self._limit_bytes)
            self._assemblers[sender, process] = assembler
            before_bytes = assembler.unfinished_bytes
            try:
                whole = assembler.add(fragment)
            finally:
                self._unfinished_bytes += assembler.unfinished_bytes - before_bytes
            dropped = self._drop_excess()
        for name in dropped:
            self._refuse(name, f"unfinished messages of more than {self._most_bytes} bytes")
        return whole

    def _make_room(self) -> None:
        """Make room for a new sender."""
        if len(self._assemblers) < self._limits.members:
            return
        idle = next((key for key, assembler in self._assemblers.items() if not assembler.unfinished_bytes), None)
        if idle is None:
            raise ExecuteError("too many senders", where="frame", expected=f"at most {self._limits.members}")
        del self._assemblers[idle]

    def _drop_excess(self) -> list[str]:
        """Drop unfinished frames above the bound; return their senders."""
        dropped = []
        while self._unfinished_bytes > self._most_bytes:
            (sender, _), assembler = max(self._assemblers.items(), key=lambda item: item[1].unfinished_bytes)
            self._unfinished_bytes -= assembler.drop_oldest()
            dropped.append(sender)
        return dropped

    def receive(self, sender: str, attachment: bytes, payload: bytes, process: str = "") -> Fragment | None:
        """Handle an inbound fragment; return the acknowledgement to send back at once, if any."""
        arrived_s = time.monotonic()
        fragment: Fragment | None = None
        try:
            fragment = read_fragment(attachment, payload)
            if fragment.acknowledges:
                self.on_acknowledged(fragment)
                return None
            whole = self._assemble(sender, process, fragment)
            if whole is not None:
                frame = decode(*whole, sender, process, arrived_s)
                check_sender(frame)
                if isinstance(frame.body, Deploy):
                    # The messages after a deployment may be as large as it announces, even before the agent handles it.
                    # It may yet be refused, and the run at hand go on: the limit is only ever raised here.
                    self.limit(max(frame.body.largest_bytes, self._limit_bytes))
                self._on_frame(frame)
        except ExecuteError as error:
            self._refuse(sender, str(error))
        except Exception as error:  # noqa: BLE001 - it is reported, and the next message is handled
            _LOG.exception("%s: a message from %s cannot be handled", self._member, sender)
            self._refuse(sender, f"a message that cannot be handled: {explain(error)}")
        return fragment.acknowledgement if fragment is not None and fragment.asks else None

    def _refuse(self, sender: str, what: str) -> None:
        self._on_frame(Frame(Refused(worker=self._member, sender=sender, what=what), sender=self._member))
