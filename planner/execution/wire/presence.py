"""Which members are present, where several agents may have one name.

Devices set up from one image have agents of one name, and the predecessor of an agent that restarts counts as present
until the network misses it. They are different *processes* of one member:

1. Messages to a member go to the process that was seen first, until it leaves. So a run is not disturbed by an agent
   that appears under the name of one of its workers.
2. When that process leaves, the member is reported as having left; if there is another one, it joins again.
3. Nothing is deployed while several agents have the name of a worker.
4. All coordinators count as one process, since `planner status` may ask while a run is on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from planner.errors import ExecuteError, Fault
from planner.execution.wire.limits import Limits
from planner.execution.wire.messages import COORDINATOR
from planner.execution.wire.transport import PRESENCE_PERIOD_S, OnPresence, Transport
from planner.execution.wire.whereabouts import Whereabouts

_LOG = logging.getLogger(__name__)

SHARED: Final = "shared"
"""What stands for the process of every coordinator."""

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
        if (member, process) == self._own:
            return
        with self._lock:
            known = self._processes.get(member, {})
            if process not in known and sum(map(len, self._processes.values())) >= self._most:
                _LOG.warning("%s: %s is ignored: more than %d members", self._own[0], member, self._most)
                return
            self._processes[member] = {**known, process: whereabouts}
        self._report(member, True)  # noqa: FBT003 - the transport's signature

    def remove(self, member: str, process: str) -> None:
        """Remove a process that has left."""
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


def process_of(member: str, identifier: str) -> str:
    """Return how a process of a member is told from others of its name, given its identifier in the network."""
    return SHARED if member == COORDINATOR else identifier


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
