"""How frames travel: a small protocol, and its implementation in memory.

:mod:`planner.execution.wire.zenoh` implements it over Zenoh.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from planner.errors import ExecuteError, explain
from planner.execution.wire.fragments import Assembler, Fragment, read_fragment
from planner.execution.wire.frames import Frame, decode
from planner.execution.wire.messages import COORDINATOR, Deploy, Refused
from planner.execution.wire.security import check_sender

_LOG = logging.getLogger(__name__)

CONTROL: Final = 1
"""Level of what is not a sample's data: deployment, admission, reports."""

LEVELS: Final = 7
"""Levels of urgency, 1 (most urgent) to 7."""

LOOK_S: Final = 1.0
"""How often to ask who is there while others are awaited."""

IDLE_BYTES: Final = 2**20
"""Size of the largest message, its header not counted, that a worker without a deployment takes."""

_REPORT_BYTES: Final = 2**32
"""The same for the coordinator, which takes reports of long runs."""

OnAcknowledged = Callable[[Fragment], None]


def urgency_levels(priorities: Mapping[str, float]) -> dict[float, int]:
    """Map each distinct priority to a level of the transport: the highest class to 3, the others to 4 and below.

    The first two are left to what is no sample's data.
    """
    ranked = sorted(set(priorities.values()), reverse=True)
    return {priority: min(3 + rank, LEVELS) for rank, priority in enumerate(ranked)}


class Transport(Protocol):
    """A member's way to all others."""

    def send(self, to: str, frame: Frame, level: int) -> None:
        """Send a frame to a member; it is delivered once, or never if the member is gone.

        Parameters
        ----------
        level
            1 to 7; a smaller one overtakes.
        """
        ...

    def send_fragment(self, to: str, fragment: Fragment, level: int) -> None:
        """Send a part of a frame."""
        ...

    def on_acknowledged(self, call: OnAcknowledged) -> None:
        """Have ``call`` called, in any thread, when a fragment that asked for it has come."""
        ...

    def limit(self, size_bytes: int) -> None:
        """Refuse messages that are larger, from now on."""
        ...

    def look(self) -> None:
        """Ask who is there: each is told again, as when it comes."""
        ...

    def close(self) -> None:
        """Leave; the others are told."""
        ...


OnFrame = Callable[[Frame], None]
"""Called in any thread for each frame that comes; for one that is refused, with a :class:`Refused` from the member
itself in its place."""

OnPresence = Callable[[str, bool], None]
"""Called in any thread when another member comes (True) or goes (False); for each that is there already, too, and maybe
more than once."""

Connect = Callable[[OnFrame, OnPresence], Transport]
"""Opens a member's transport."""


class Receiver:
    """What all transports do with a fragment that comes for ``member``."""

    def __init__(self, member: str, on_frame: OnFrame) -> None:
        self._member = member
        self._on_frame = on_frame
        self._assemblers: dict[str, Assembler] = {}
        self._lock = threading.Lock()
        self._limit_bytes = _REPORT_BYTES if member == COORDINATOR else IDLE_BYTES
        self.on_acknowledged: OnAcknowledged = lambda _fragment: None

    def limit(self, size_bytes: int) -> None:
        """Refuse messages that are larger, from now on; what a worker without a deployment takes is always let in."""
        with self._lock:
            self._limit_bytes = size_bytes = max(size_bytes, IDLE_BYTES)
            for assembler in self._assemblers.values():
                assembler.limit_bytes = size_bytes

    def forget(self, sender: str) -> None:
        """Drop what a member that went has left unfinished."""
        with self._lock:
            self._assemblers.pop(sender, None)

    def _assembler(self, sender: str) -> Assembler:
        with self._lock:
            return self._assemblers.setdefault(sender, Assembler(self._limit_bytes))

    def take(self, sender: str, attachment: bytes, payload: bytes) -> Fragment | None:
        """Take what came; give what is to be sent back at once, if anything."""
        arrived_s = time.monotonic()
        fragment: Fragment | None = None
        try:
            fragment = read_fragment(attachment, payload)
            if fragment.acknowledges:
                self.on_acknowledged(fragment)
                return None
            whole = self._assembler(sender).add(fragment)
            if whole is not None:
                frame = decode(*whole, sender, arrived_s)
                check_sender(frame)
                if isinstance(frame.body, Deploy):
                    # What follows a deployment in the same breath may be as large as it says.
                    self.limit(frame.body.largest_bytes)
                self._on_frame(frame)
        except ExecuteError as error:
            self._refuse(sender, str(error))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told, and what comes next is taken
            _LOG.exception("%s: a message from %s cannot be taken", self._member, sender)
            self._refuse(sender, f"a message that cannot be taken: {explain(error)}")
        return fragment.acknowledgement if fragment is not None and fragment.asks else None

    def _refuse(self, sender: str, what: str) -> None:
        self._on_frame(Frame(Refused(worker=self._member, sender=sender, what=what), sender=self._member))
