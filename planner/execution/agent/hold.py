"""Which coordinator holds an agent.

1. An agent belongs to one coordinator at a time: the first that claims it, until it leaves the network.
2. Another coordinator's claim is refused, with who holds the agent and for how long, unless it says to take over. Then
   the first coordinator is told.
3. Nobody has to take over from a coordinator that has died: it releases the agent when it is no longer present.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from planner.execution.wire.diagnostics import Holder
from planner.execution.wire.frames import Frame
from planner.execution.wire.messages import COORDINATOR, Claim, Claimed, Held, Taken
from planner.execution.wire.presence import SETTLED_S


@dataclass(frozen=True, slots=True)
class _Hold:
    """The coordinator that holds the agent."""

    by: str
    """Its address."""
    holder: Holder
    run: str
    """The run of its last claim."""
    since_s: float = field(default_factory=time.monotonic)


class Hold:
    """Grants and refuses claims of one agent.

    Parameters
    ----------
    name
        Name of the agent.
    send
        ``send(to, frame)`` answers a coordinator; usable in any thread.
    present
        Members that are present, as the agent's thread knows them.
    """

    def __init__(self, name: str, send: Callable[[str, Frame], None], present: Collection[str]) -> None:
        self._name = name
        self._send = send
        self._present = present
        self._hold: _Hold | None = None

    @property
    def by(self) -> str:
        """Address of the coordinator that holds the agent; that of all coordinators if none does."""
        hold = self._hold
        return COORDINATOR if hold is None else hold.by

    def is_by(self, member: str) -> bool:
        """Return whether a coordinator holds the agent."""
        hold = self._hold
        return hold is not None and hold.by == member

    def refuses(self, claim: Claim, frame: Frame) -> bool:
        """Return whether a claim is refused, and tell the coordinator if so; usable in any thread.

        An agent whose thread loads blocks for minutes thus still answers at once.
        """
        hold = self._hold
        if hold is None or hold.by == frame.origin or claim.take_over or self._gone(hold):
            return False
        held_s = time.monotonic() - hold.since_s
        refusal = Held(run=claim.run, worker=self._name, holder=hold.holder, holder_run=hold.run, held_s=held_s)
        self._send(frame.origin, Frame(refusal))
        return True

    def grant(self, claim: Claim, frame: Frame) -> None:
        """Grant a claim that is not refused; tell the coordinator that loses the agent, if any."""
        hold, since_s = self._hold, time.monotonic()
        if hold is not None and hold.by == frame.origin:
            since_s = hold.since_s
        elif hold is not None:
            self._send(hold.by, Frame(Taken(run=hold.run, worker=self._name, by=claim.holder)))
        self._hold = _Hold(frame.origin, claim.holder, claim.run, since_s)
        self._send(frame.origin, Frame(Claimed(run=claim.run, worker=self._name)))

    def release(self) -> None:
        """Take note that the coordinator has left."""
        self._hold = None

    def _gone(self, hold: _Hold) -> bool:
        """Return whether a coordinator left before the network had reported it as present."""
        return hold.by not in self._present and time.monotonic() - hold.since_s > SETTLED_S

    def describe(self) -> dict[str, Any]:
        """Return the fields of :class:`~planner.execution.wire.diagnostics.About` that describe the hold."""
        hold = self._hold
        return {} if hold is None else {"holder": hold.holder, "held_s": time.monotonic() - hold.since_s}
