"""Which members are present, where several agents may answer to one name.

Devices set up from one image have agents of one name, and the predecessor of an agent that restarts counts as present
until the network misses it. Such agents are *instances* of one member:

1. Messages to a member go to the instance that was seen first, until it leaves. So a run is not disturbed by an agent
   that appears under the name of one of its workers.
2. When the first instance leaves, the member is reported as having left, and joins again with the next instance.
3. Nothing is deployed to a member of several instances.
4. All coordinators are one instance, since `planner status` may ask while a run is on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from planner.errors import ExecuteError, Fault
from planner.execution.wire.messages import COORDINATOR
from planner.execution.wire.transport import PRESENCE_PERIOD_S, OnPresence, Transport

SHARED: Final = "shared"
"""The instance of all coordinators."""

SETTLED_S: Final = 2.0
"""Time after which the predecessor of an agent that restarts no longer counts as present."""


class Roster:
    """The instances of each member; usable from any thread.

    Parameters
    ----------
    own
        Name and instance of this member, which is not in the roster.
    report
        ``report(member, present)``; also called when one of several instances comes or goes.
    """

    def __init__(self, own: tuple[str, str], report: OnPresence) -> None:
        self._own = own
        self._report = report
        self._lock = threading.Lock()
        self._instances: dict[str, list[str]] = {}

    def add(self, member: str, instance: str) -> None:
        """Add an instance that is present."""
        if (member, instance) == self._own:
            return
        with self._lock:
            known = self._instances.setdefault(member, [])
            if instance not in known:
                known.append(instance)
        self._report(member, True)  # noqa: FBT003 - the transport's signature

    def remove(self, member: str, instance: str) -> None:
        """Remove an instance that has left."""
        with self._lock:
            known = self._instances.get(member, [])
            if instance not in known:
                return
            first = known[0] == instance
            known.remove(instance)
            others = bool(known)
            if not others:
                del self._instances[member]
        if first:
            self._report(member, False)  # noqa: FBT003
        if others:
            self._report(member, True)  # noqa: FBT003

    def first(self, member: str) -> str | None:
        """Return the instance that messages to a member go to; None if none has been seen."""
        with self._lock:
            return next(iter(self._instances.get(member, ())), None)

    def instances(self, member: str) -> tuple[str, ...]:
        """Return the instances of a member in the order in which they were seen."""
        with self._lock:
            return tuple(self._instances.get(member, ()))

    def shared_names(self) -> frozenset[str]:
        """Return the names that several agents have, this member included."""
        with self._lock:
            here = {self._own[0]: 1}
            return frozenset(name for name, known in self._instances.items() if len(known) + here.get(name, 0) > 1)


def instance_of(member: str, unique: str) -> str:
    """Return the instance of a process, given a unique string."""
    return SHARED if member == COORDINATOR else unique


def addresses(transport: Transport, member: str) -> str:
    """Return the addresses of all other agents that answer to a name, as text."""
    known = transport.instances(member)
    return ", ".join(address or f"unknown address ({instance[:8]})" for instance, address in known.items())


def settle(transport: Transport, names: Iterable[str], wait: Callable[[float], None]) -> Mapping[str, str]:
    """Return those of some names that several agents answer to, with their addresses.

    The predecessor of an agent that restarts does not count: it is given time to vanish.

    Parameters
    ----------
    wait
        ``wait(timeout_s)`` handles what arrives meanwhile, at most for that time.
    """
    asked = frozenset(names)
    until_s = time.monotonic() + SETTLED_S
    while (shared := asked & transport.shared_names()) and (left_s := until_s - time.monotonic()) > 0:
        wait(min(left_s, PRESENCE_PERIOD_S))
    return {name: addresses(transport, name) for name in sorted(shared)}


def refuse_shared(transport: Transport, names: Iterable[str], wait: Callable[[float], None]) -> None:
    """Refuse names that several agents answer to; the parameters are those of :func:`settle`.

    Raises
    ------
    ExecuteError
        Names them, with the addresses of the agents.
    """
    shared = settle(transport, names, wait)
    if shared:
        expected = "one agent; give each device its own --name"
        raise ExecuteError(
            [
                Fault("several agents have this name", where=f"worker {name}", value=found, expected=expected)
                for name, found in shared.items()
            ]
        )
