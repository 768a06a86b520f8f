"""How much may be on its way through a medium: as little as keeps it busy, so that what is urgent finds little ahead.

1. The window is what the medium carries while a fragment and its acknowledgement travel, half as much again, and
   :data:`QUEUED_S` more: more of it would only wait in queues before the medium. On a slow link that is a few
   kilobytes, on a fast one megabytes.
2. The rate is what came between two acknowledgements, by the time in which it was sent or that in which it came,
   whichever is longer: a receiver that has to wait for a processor acknowledges several fragments at once. Where the
   window held data back a sample may lower the rate, slowly; else it says only that the medium carries as much.
3. The time that an acknowledgement takes on the idle medium is the least of the last few seconds. In a flow that never
   ends none is seen, so the medium is left to run empty then, and a small fragment sent alone.

(Rate and delay are measured as in Cardwell and others, "BBR: Congestion-Based Congestion Control", ACM Queue 14(5),
2016, https://doi.org/10.1145/3012426.3022184; the window differs: a medium at the edge has short ways and few flows.)
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Final

QUEUED_S: Final = 0.003
"""How long data may wait in the queues before a medium."""

PROBE_BYTES: Final = 4096
"""A fragment that is no larger takes as long as any small one."""

_FIRST_BYTES: Final = 2**17
_LEAST_BYTES: Final = 2**14
_MOST_BYTES: Final = 2**26
"""The window before anything is known, and its bounds."""

_FORGET_RATE_S: Final = 1.0
"""Samples of this time replace a higher rate."""

_FORGET_IDLE_S: Final = 5.0
"""After this the time on the idle medium is measured anew."""


@dataclass(frozen=True, slots=True)
class Departure:
    """A fragment that goes, and what had come until then."""

    to: str
    size_bytes: int
    at_s: float
    limited: bool
    """Whether the window held data back."""
    came_bytes: int
    came_s: float
    """When the last acknowledgement had come; of a fragment that goes alone the time at which it goes."""
    came_at_s: float
    """When the fragment that was acknowledged then had gone."""


class SendWindow:
    """The window of one medium; times are those of any clock."""

    def __init__(self) -> None:
        self._bytes_per_s = 0.0
        self._idle_s: dict[str, tuple[float, float]] = {}
        self._came_bytes = 0
        self._came_s = self._came_at_s = 0.0

    def bytes(self, to: str) -> float:
        """Give how much may be on its way where the next fragment goes to ``to``."""
        if to not in self._idle_s:
            return _FIRST_BYTES
        waits_s = 1.5 * self._idle_s[to][0] + QUEUED_S
        return min(max(self._bytes_per_s * waits_s, _LEAST_BYTES), _MOST_BYTES)

    def stale(self, to: str, now_s: float) -> bool:
        """Tell whether the time to a member on the idle medium was not seen lately."""
        return now_s - self._idle_s.get(to, (0.0, -inf))[1] > _FORGET_IDLE_S

    def goes(self, to: str, size_bytes: int, now_s: float, *, limited: bool, alone: bool) -> Departure:
        """Take a fragment that goes; ``alone`` where nothing else is on its way."""
        if alone:
            self._came_s = self._came_at_s = now_s
        return Departure(to, size_bytes, now_s, limited, self._came_bytes, self._came_s, self._came_at_s)

    def came(self, gone: Departure, now_s: float) -> None:
        """Take the acknowledgement of a fragment."""
        self._came_bytes += gone.size_bytes
        self._came_s, self._came_at_s = now_s, gone.at_s
        took_s, alone = now_s - gone.at_s, gone.came_s == gone.at_s
        known_s, seen_s = self._idle_s.get(gone.to, (took_s, -inf))
        if alone and gone.size_bytes <= PROBE_BYTES:
            self._idle_s[gone.to] = min(took_s, 2 * known_s), now_s
        else:
            self._idle_s[gone.to] = min(took_s, known_s), seen_s
        over_s = max(now_s - gone.came_s, gone.at_s - gone.came_at_s, 1e-6)
        more_bytes_per_s = (self._came_bytes - gone.came_bytes) / over_s - self._bytes_per_s
        if more_bytes_per_s > 0:
            self._bytes_per_s += more_bytes_per_s
        elif gone.limited:
            self._bytes_per_s += more_bytes_per_s * min(over_s / _FORGET_RATE_S, 1.0)

    def forget(self, member: str) -> None:
        """Drop what is known of the way to a member."""
        self._idle_s.pop(member, None)
