"""How frames travel: a small protocol, and its implementation in memory. Zenoh's is in :mod:`planner.execute.wire`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, Protocol

from planner.execute.messages import Frame, decode, encode

CONTROL: Final = 1
"""Level of what is not a sample's data: deployment, admission, reports."""

LEVELS: Final = 7
"""Levels of urgency, 1 (most urgent) to 7."""


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

    def close(self) -> None:
        """Leave; the others are told."""
        ...


OnFrame = Callable[[Frame], None]
"""Called in any thread for each frame that comes."""

OnPresence = Callable[[str, bool], None]
"""Called in any thread when another member comes (True) or goes (False); for each that is there already, too."""

Connect = Callable[[OnFrame, OnPresence], Transport]
"""Opens a member's transport."""


class MemoryNetwork:
    """Members of one process, for tests: frames are encoded and decoded as on the wire, and delivered at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._members: dict[str, tuple[OnFrame, OnPresence]] = {}

    def connect(self, name: str) -> Connect:
        """Give what opens the transport of member ``name``."""

        def opener(on_frame: OnFrame, on_presence: OnPresence) -> Transport:
            with self._lock:
                others = dict(self._members)
                self._members[name] = (on_frame, on_presence)
            for other, (_, tell) in others.items():
                on_presence(other, True)  # noqa: FBT003 - the protocol's signature
                tell(name, True)  # noqa: FBT003
            return _MemoryTransport(self, name)

        return opener

    def deliver(self, to: str, frame: Frame) -> None:
        """Hand a frame to a member, if it is there."""
        with self._lock:
            member = self._members.get(to)
        if member is not None:
            member[0](decode(*encode(frame)))

    def leave(self, name: str) -> None:
        """Take a member out and tell the others."""
        with self._lock:
            self._members.pop(name, None)
            others = list(self._members.values())
        for _, tell in others:
            tell(name, False)  # noqa: FBT003


class _MemoryTransport:
    def __init__(self, network: MemoryNetwork, name: str) -> None:
        self._network = network
        self._name = name

    def send(self, to: str, frame: Frame, level: int) -> None:  # noqa: ARG002 - all frames are delivered at once
        self._network.deliver(to, frame)

    def close(self) -> None:
        self._network.leave(self._name)
