"""Which coordinators hold an agent.

1. An agent belongs to the first coordinator that claims it, until that leaves the network; or to several that each
   claim a share of it, as long as the shares add up to no more than the whole.
2. Another claim is refused, with who holds the agent, for how long, and what share, unless it says to take over. Then
   it takes the agent from those that are in the way, the newest first, and tells them.
3. Nobody has to take over from a coordinator that has died: it releases the agent when it is no longer present.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Final

from planner.execution.wire.diagnostics import Holder, Holding
from planner.execution.wire.frames import Frame
from planner.execution.wire.messages import Claim, Claimed, Held, Taken
from planner.execution.wire.presence import SETTLED_S

_ROUNDING: Final = 1e-9
"""Three thirds are a whole."""


@dataclass(frozen=True, slots=True)
class _Hold:
    """A coordinator that holds the agent."""

    by: str
    """Its address."""
    holder: Holder
    run: str
    """The run of its last claim."""
    share: float | None
    """The share that it holds; None for the whole agent."""
    since_s: float = field(default_factory=time.monotonic)

    def describe(self) -> Holding:
        return Holding(holder=self.holder, run=self.run, held_s=time.monotonic() - self.since_s, share=self.share)


class Holds:
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
        self._holds: tuple[_Hold, ...] = ()
        """The first one first; replaced as a whole, since several threads read it."""

    @property
    def by(self) -> tuple[str, ...]:
        """Addresses of the coordinators that hold the agent."""
        return tuple(hold.by for hold in self._holds)

    def share(self, member: str) -> float:
        """Return the share of the agent that a coordinator holds; 0 if it holds none."""
        return next((1.0 if hold.share is None else hold.share for hold in self._holds if hold.by == member), 0.0)

    def refuses(self, claim: Claim, frame: Frame) -> bool:
        """Return whether a claim is refused, and tell the coordinator if so; usable in any thread.

        An agent whose thread loads blocks for minutes thus still answers at once.
        """
        held = self._others(frame)
        if claim.take_over or not _in_the_way(claim, held):
            return False
        holdings = tuple(hold.describe() for hold in held)
        self._send(frame.origin, Frame(Held(run=claim.run, worker=self._name, holdings=holdings)))
        return True

    def grant(self, claim: Claim, frame: Frame) -> list[str]:
        """Grant a claim that is not refused; return the coordinators that lose the agent, which are told."""
        held = self._others(frame)
        lost = _in_the_way(claim, held)
        for hold in lost:
            self._send(hold.by, Frame(Taken(run=hold.run, worker=self._name, by=claim.holder)))
        before = next((hold for hold in self._holds if hold.by == frame.origin), None)
        since_s = time.monotonic() if before is None else before.since_s
        own = _Hold(frame.origin, claim.holder, claim.run, claim.share, since_s)
        self._holds = (*(hold for hold in held if hold not in lost), own)
        self._send(frame.origin, Frame(Claimed(run=claim.run, worker=self._name)))
        return [hold.by for hold in lost]

    def release(self, member: str) -> None:
        """Take note that a coordinator has left."""
        self._holds = tuple(hold for hold in self._holds if hold.by != member)

    def _others(self, frame: Frame) -> list[_Hold]:
        """Return the holds of other coordinators than the sender, except those that have gone."""
        return [hold for hold in self._holds if hold.by != frame.origin and not self._gone(hold)]

    def _gone(self, hold: _Hold) -> bool:
        """Return whether a coordinator left before the network had reported it as present."""
        return hold.by not in self._present and time.monotonic() - hold.since_s > SETTLED_S

    def describe(self) -> tuple[Holding, ...]:
        """Return who holds the agent."""
        return tuple(hold.describe() for hold in self._holds)


def _in_the_way(claim: Claim, held: Sequence[_Hold]) -> list[_Hold]:
    """Return the holds that have to end so that a claim can be granted, the newest first."""
    if claim.share is None:
        return list(reversed(held))
    alone = [hold for hold in held if hold.share is None]
    if alone:
        return alone
    shares = [hold.share or 0.0 for hold in held]
    kept = len(held)
    while sum(shares[:kept]) + claim.share > 1 + _ROUNDING:
        kept -= 1
    return list(reversed(held[kept:]))
