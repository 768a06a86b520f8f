"""A transport for members of one process."""

from __future__ import annotations

import threading

from planner.execution.wire.fragments import Fragment, split
from planner.execution.wire.frames import Frame, encode
from planner.execution.wire.transport import Connect, OnAcknowledged, OnFrame, OnPresence, Receiver, Transport


class MemoryNetwork:
    """Members of one process, for tests: frames are encoded and decoded as on the wire, and delivered at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._members: dict[str, tuple[Receiver, OnPresence]] = {}
        self._cut: set[frozenset[str]] = set()

    def connect(self, name: str) -> Connect:
        """Give what opens the transport of member ``name``."""

        def opener(on_frame: OnFrame, on_presence: OnPresence) -> Transport:
            receiver = Receiver(name, on_frame)
            with self._lock:
                others = dict(self._members)
                self._members[name] = (receiver, on_presence)
            for other, (_, tell) in others.items():
                if frozenset((name, other)) not in self._cut:
                    on_presence(other, True)  # noqa: FBT003 - the protocol's signature
                    tell(name, True)  # noqa: FBT003
            return _MemoryTransport(self, name, receiver)

        return opener

    def deliver(self, to: str, sender: str, origin: Receiver, fragment: Fragment) -> Fragment | None:
        """Hand a fragment to a member, if both are there; give what it answers."""
        with self._lock:
            member = self._members.get(to)
            own = self._members.get(sender)
            lost = own is None or own[0] is not origin or frozenset((sender, to)) in self._cut
        if member is None or lost:
            return None
        return member[0].receive(sender, fragment.attachment, bytes(fragment.payload))

    def cut(self, *pair: str) -> None:
        """Break the link between two members, now or before they come; what is sent over it is lost."""
        self._link(pair, present=False)

    def mend(self, *pair: str) -> None:
        """Restore the link between two members."""
        self._link(pair, present=True)

    def _link(self, pair: tuple[str, ...], *, present: bool) -> None:
        with self._lock:
            (self._cut.discard if present else self._cut.add)(frozenset(pair))
            ends = [(self._members.get(one), other) for one, other in (pair, pair[::-1])]
        if all(member for member, _ in ends):
            for member, other in ends:
                if member is not None:
                    member[1](other, present)

    def leave(self, name: str) -> None:
        """Take a member out and tell the others; what it still sends is lost."""
        with self._lock:
            self._members.pop(name, None)
            others = list(self._members.values())
        for receiver, tell in others:
            receiver.forget(name)
            tell(name, False)  # noqa: FBT003

    def look(self, name: str) -> None:
        """Tell a member who is there."""
        with self._lock:
            others = [other for other in self._members if other != name and frozenset((name, other)) not in self._cut]
            own = self._members.get(name)
        for other in others:
            if own is not None:
                own[1](other, True)  # noqa: FBT003


class _MemoryTransport:
    def __init__(self, network: MemoryNetwork, name: str, receiver: Receiver) -> None:
        self._network = network
        self._name = name
        self._receiver = receiver

    def send(self, to: str, frame: Frame, level: int) -> None:
        for fragment in split(*encode(frame)):
            self.send_fragment(to, fragment, level)

    def send_fragment(self, to: str, fragment: Fragment, level: int) -> None:  # noqa: ARG002 - all arrives at once
        answer = self._network.deliver(to, self._name, self._receiver, fragment)
        if answer is not None:
            self._receiver.on_acknowledged(answer)

    def on_acknowledged(self, call: OnAcknowledged) -> None:
        self._receiver.on_acknowledged = call

    def limit(self, size_bytes: int) -> None:
        self._receiver.limit(size_bytes)

    def look(self) -> None:
        self._network.look(self._name)

    def close(self) -> None:
        self._network.leave(self._name)
