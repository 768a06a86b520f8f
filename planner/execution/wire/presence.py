"""Which members are present, where several agents may have one name.

Devices set up from one image have agents of one name, and the predecessor of an agent that restarts counts as present
until the network misses it. They are different *processes* of one member:

1. Messages to a member go to the process that was seen first, until it leaves. So a run is not disturbed by an agent
   that appears under the name of one of its workers.
2. When that process leaves, the member is reported as having left; if there is another one, it joins again.
3. Nothing is deployed while several agents have the name of a worker.
4. Several coordinators may be present, since `planner status` may ask while a run is on: each is a member of its own,
   known by its address.
5. A process tells its version of the wire format: those of another version are named instead of waited for.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from planner.errors import ExecuteError, Fault
from planner.execution.wire.frames import VERSION, unlike_version
from planner.execution.wire.limits import Limits
from planner.execution.wire.messages import COORDINATOR
from planner.execution.wire.transport import PRESENCE_PERIOD_S, OnPresence, Transport
from planner.execution.wire.whereabouts import Whereabouts

_LOG = logging.getLogger(__name__)

SETTLED_S: Final = 2.0
"""Time after which the predecessor of an agent that restarts no longer counts as present."""


class Roster:
    """The processes of each other member; usable from any thread.

    Parameters
    ----------
    own
        Name and process of this member itself.
    report
        ``report(member, present)``; also called when one of several processes comes or goes.
    most
        Largest number of processes; any more count as absent.
    """

    def __init__(self, own: tuple[str, str], report: OnPresence, most: int = Limits.members) -> None:
        self._own = own
        self._report = report
        self._most = most
        self._lock = threading.Lock()
        self._processes: dict[str, dict[str, Whereabouts]] = {}

    def add(self, member: str, process: str, whereabouts: Whereabouts) -> None:
        """Add a process that is present."""
        if (member, process) == self._own or member == self._own[0] == COORDINATOR:
            return
        member = _reported(member, process)
        with self._lock:
            known = self._processes.get(member, {})
            if process not in known and sum(map(len, self._processes.values())) >= self._most:
                _LOG.warning("%s: %s is ignored: more than %d members", self._own[0], member, self._most)
                return
            self._processes[member] = {**known, process: whereabouts}
        self._report(member, True)  # noqa: FBT003 - the transport's signature

    def remove(self, member: str, process: str) -> None:
        """Remove a process that has left."""
        member = _reported(member, process)
        with self._lock:
            known = self._processes.get(member, {})
            if process not in known:
                return
            first = next(iter(known)) == process
            del known[process]
            others = bool(known)
            if not others:
                del self._processes[member]
        if first:
            self._report(member, False)  # noqa: FBT003
        if others:
            self._report(member, True)  # noqa: FBT003

    def first(self, member: str) -> str | None:
        """Return the process that messages to a member go to; None if none has been seen."""
        with self._lock:
            return next(iter(self._processes.get(member, ())), None)

    def processes(self, member: str) -> dict[str, Whereabouts]:
        """Return the processes of a member in the order in which they were seen."""
        with self._lock:
            return dict(self._processes.get(member, {}))

    def shared_names(self) -> frozenset[str]:
        """Return the names that several agents have, this member included."""
        with self._lock:
            here = {self._own[0]: 1}
            return frozenset(name for name, known in self._processes.items() if len(known) + here.get(name, 0) > 1)

    def unlike(self) -> dict[str, int]:
        """Return the members that speak another version of the wire format, with that version."""
        with self._lock:
            versions = {name: version_of(next(iter(known))) for name, known in self._processes.items()}
        return {name: version for name, version in versions.items() if version != VERSION}


def _reported(member: str, process: str) -> str:
    """Return the name under which a member is reported."""
    return f"{member}/{process}" if member == COORDINATOR else member


def process_of(identifier: str) -> str:
    """Return how a process of a member is told from others of its name, given its identifier in the network."""
    return f"{VERSION}-{identifier}"


def identifier_of(process: str) -> str:
    """Return the identifier in the network of a process."""
    return process.rpartition("-")[2]


def version_of(process: str) -> int:
    """Return the version of the wire format that a process speaks; the first version did not tell it."""
    version = process.rpartition("-")[0]
    return int(version) if version.isdecimal() else 1


def refuse_unlike(transport: Transport, names: Iterable[str]) -> None:
    """Refuse members that speak another version of the wire format.

    Raises
    ------
    ExecuteError
        Names them, with their versions.
    """
    found = transport.unlike()
    faults = [
        fault for name in names if name in found for fault in unlike_version(f"worker {name}", found[name]).faults
    ]
    if faults:
        raise ExecuteError(faults)


def whereabouts(transport: Transport, member: str) -> str:
    """Return where all other agents of a name are, as text."""
    return "; ".join(map(str, transport.processes(member).values()))


def settle(transport: Transport, names: Iterable[str], wait: Callable[[float], None]) -> Mapping[str, str]:
    """Return those of some names that several agents have, with where the agents are.

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
    return {name: whereabouts(transport, name) for name in sorted(shared)}


def refuse_shared(transport: Transport, names: Iterable[str], wait: Callable[[float], None]) -> None:
    """Refuse names that several agents have; the parameters are those of :func:`settle`.

    Raises
    ------
    ExecuteError
        Names them, with where the agents are.
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
