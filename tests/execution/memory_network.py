"""A transport for members of one process."""

from __future__ import annotations

import threading

from planner.execution.wire.fragments import Fragment, split
from planner.execution.wire.frames import Frame, encode
from planner.execution.wire.transport import Connect, OnAcknowledged, OnFrame, OnPresence, Receiver, Transport
from planner.execution.wire.whereabouts import Whereabouts


class MemoryNetwork:
    """Connects members of one process: frames are encoded and decoded as on the wire, and delivered at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._members: dict[str, tuple[Receiver, OnPresence]] = {}
        self._broken: set[frozenset[str]] = set()

    def connect(self, name: str) -> Connect:
        """Return a function that opens the transport of member ``name``."""

        def opener(on_frame: OnFrame, on_presence: OnPresence) -> Transport:
            receiver = Receiver(name, on_frame)
            with self._lock:
                others = dict(self._members)
                self._members[name] = (receiver, on_presence)
            for other, (_, on_other_presence) in others.items():
                if frozenset((name, other)) not in self._broken:
                    on_presence(other, True)  # noqa: FBT003 - the protocol's signature
                    on_other_presence(name, True)  # noqa: FBT003
            return _MemoryTransport(self, name, receiver)

        return opener

    def joins(self, name: str, other: str) -> bool:
        """Return whether another member is present for a member."""
        with self._lock:
            return other in self._members and frozenset((name, other)) not in self._broken

    def deliver(self, to: str, sender: str, origin: Receiver, fragment: Fragment) -> Fragment | None:
        """Deliver a fragment if both members are present; return the acknowledgement."""
        with self._lock:
            member = self._members.get(to)
            source = self._members.get(sender)
            lost = source is None or source[0] is not origin or frozenset((sender, to)) in self._broken
        if member is None or lost:
            return None
        return member[0].receive(sender, fragment.attachment, bytes(fragment.payload))

    def cut(self, *pair: str) -> None:
        """Break the link between two members, present or future; what is sent over it is lost."""
        self._link(pair, present=False)

    def mend(self, *pair: str) -> None:
        """Restore the link between two members."""
        self._link(pair, present=True)

    def _link(self, pair: tuple[str, ...], *, present: bool) -> None:
        with self._lock:
            (self._broken.discard if present else self._broken.add)(frozenset(pair))
            ends = [(self._members.get(name), other) for name, other in (pair, pair[::-1])]
        if all(member for member, _ in ends):
            for member, other in ends:
                if member is not None:
                    member[1](other, present)

    def leave(self, name: str) -> None:
        """Remove a member and notify the others; what it still sends is lost."""
        with self._lock:
            self._members.pop(name, None)
            others = list(self._members.values())
        for receiver, on_presence in others:
            receiver.forget(name)
            on_presence(name, False)  # noqa: FBT003

    def query_presence(self, name: str) -> None:
        """Report the present members to a member."""
        with self._lock:
            others = [
                other for other in self._members if other != name and frozenset((name, other)) not in self._broken
            ]
            member = self._members.get(name)
        for other in others:
            if member is not None:
                member[1](other, True)  # noqa: FBT003


class _MemoryTransport:
    def __init__(self, network: MemoryNetwork, name: str, receiver: Receiver) -> None:
        self._network = network
        self._name = name
        self._receiver = receiver

    def send(self, to: str, frame: Frame, level: int) -> None:
        for fragment in split(*encode(frame)):
            self.send_fragment(to, fragment, level)

    def send_fragment(self, to: str, fragment: Fragment, level: int) -> None:  # noqa: ARG002 - all arrives at once
        acknowledgement = self._network.deliver(to.partition("/")[0], self._name, self._receiver, fragment)
        if acknowledgement is not None:
            self._receiver.on_acknowledged(acknowledgement)

    def on_acknowledged(self, call: OnAcknowledged) -> None:
        self._receiver.on_acknowledged = call

    def limit(self, size_bytes: int) -> None:
        self._receiver.limit(size_bytes)

    def query_presence(self) -> None:
        self._network.query_presence(self._name)

    def processes(self, member: str) -> dict[str, Whereabouts]:
        return {"": Whereabouts()} if self._network.joins(self._name, member) else {}

    def shared_names(self) -> frozenset[str]:
        return frozenset()

    def unreachable(self) -> dict[str, str]:
        return {}

    def unlike(self) -> dict[str, int]:
        return {}

    def close(self) -> None:
        self._network.leave(self._name)
