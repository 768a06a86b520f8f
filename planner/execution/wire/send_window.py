"""The limit on bytes in flight through a medium: just enough to keep it busy, so that urgent data finds a short queue.

1. The window is what the medium carries in 1.5 round trips plus :data:`QUEUED_S`; more would only wait in queues before
   the medium. On a slow link that is a few kilobytes, on a fast one megabytes.
2. The rate is the number of bytes acknowledged between two acknowledgements, divided by the longer of the time in which
   they were sent and the time in which they were acknowledged: a receiver that has to wait for a processor acknowledges
   several fragments at once. A sample may lower the rate, slowly, only if the window held data back; otherwise it is no
   more than a lower bound on the rate.
3. The round trip on the idle medium is the minimum of the last few seconds. A continuous flow never leaves the medium
   idle, so the medium is drained from time to time and a small fragment sent alone.

(Rate and delay are measured as in Cardwell and others, "BBR: Congestion-Based Congestion Control", ACM Queue 14(5),
2016, https://doi.org/10.1145/3012426.3022184; the window differs: links at the edge are short and have few flows.)
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Final

QUEUED_S: Final = 0.003
"""Time for which data may wait in the queues before a medium."""

PROBE_BYTES: Final = 4096
"""Largest fragment whose size does not matter to its round trip."""

_FIRST_BYTES: Final = 2**17
_LEAST_BYTES: Final = 2**14
_MOST_BYTES: Final = 2**26
"""The window before the first measurement, and its bounds."""

_FORGET_RATE_S: Final = 1.0
"""Time in which samples replace a higher rate."""

_FORGET_IDLE_S: Final = 5.0
"""Time after which the round trip on the idle medium is measured again."""


@dataclass(frozen=True, slots=True)
class Departure:
    """A sent fragment, with the state of acknowledgements at that time."""

    to: str
    size_bytes: int
    at_s: float
    limited: bool
    """Whether the window held data back."""
    acked_bytes: int
    """Bytes acknowledged before."""
    acked_s: float
    """Time of the last acknowledgement; for a fragment sent alone, the time of sending."""
    acked_sent_s: float
    """Time at which the fragment acknowledged last had been sent."""


class SendWindow:
    """The window of one medium; all times are from one clock."""

    def __init__(self) -> None:
        self._bytes_per_s = 0.0
        self._idle_s: dict[str, tuple[float, float]] = {}
        self._acked_bytes = 0
        self._acked_s = self._acked_sent_s = 0.0

    def bytes(self, to: str) -> float:
        """Return the limit on bytes in flight if the next fragment goes to ``to``."""
        if to not in self._idle_s:
            return _FIRST_BYTES
        span_s = 1.5 * self._idle_s[to][0] + QUEUED_S
        return min(max(self._bytes_per_s * span_s, _LEAST_BYTES), _MOST_BYTES)

    def stale(self, to: str, now_s: float) -> bool:
        """Return whether the round trip to a member on the idle medium is due to be measured."""
        return now_s - self._idle_s.get(to, (0.0, -inf))[1] > _FORGET_IDLE_S

    def sent(self, to: str, size_bytes: int, now_s: float, *, limited: bool, alone: bool) -> Departure:
        """Record a sent fragment; ``alone`` if nothing else is in flight."""
        if alone:
            self._acked_s = self._acked_sent_s = now_s
        return Departure(to, size_bytes, now_s, limited, self._acked_bytes, self._acked_s, self._acked_sent_s)

    def acknowledged(self, sent: Departure, now_s: float) -> None:
        """Update rate and round trip with the acknowledgement of a fragment."""
        self._acked_bytes += sent.size_bytes
        self._acked_s, self._acked_sent_s = now_s, sent.at_s
        took_s, alone = now_s - sent.at_s, sent.acked_s == sent.at_s
        known_s, seen_s = self._idle_s.get(sent.to, (took_s, -inf))
        if alone and sent.size_bytes <= PROBE_BYTES:
            self._idle_s[sent.to] = min(took_s, 2 * known_s), now_s
        else:
            self._idle_s[sent.to] = min(took_s, known_s), seen_s
        over_s = max(now_s - sent.acked_s, sent.at_s - sent.acked_sent_s, 1e-6)
        more_bytes_per_s = (self._acked_bytes - sent.acked_bytes) / over_s - self._bytes_per_s
        if more_bytes_per_s > 0:
            self._bytes_per_s += more_bytes_per_s
        elif sent.limited:
            self._bytes_per_s += more_bytes_per_s * min(over_s / _FORGET_RATE_S, 1.0)

    def forget(self, member: str) -> None:
        """Drop the measurements of a member."""
        self._idle_s.pop(member, None)
