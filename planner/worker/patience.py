"""How long a source waits for a result before it starts a sample again."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf


@dataclass(frozen=True)
class Patience:
    """How long a source waits for a result before it tries again, and how often it tries."""

    first_s: float = 30.0
    """Wait for the first attempt while nothing says how long results take; each further one waits twice as long.
    Infinite where nothing gets lost unnoticed."""
    least_s: float = 3.0
    """Shortest wait for the first attempt, however fast results come back."""
    max_attempts: int = 4
    """Number of time-outs after which a sample is given up."""


class Delays:
    """Recent delays of one source's results, and how long to wait for the next one because of them.

    As TCP does for its segments (RFC 6298, section 2): smoothed delay plus four times its smoothed deviation. This
    counts only while results come back: a class that starves behind others has lost nothing.
    """

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._smoothed_s = 0.0
        self._deviation_s = 0.0
        self._last_s = -inf

    def back(self, now_s: float, started_s: float) -> None:
        """Record that the result of a sample that was started only once is back."""
        delay_s = now_s - started_s
        if self._last_s == -inf:
            self._smoothed_s, self._deviation_s = delay_s, delay_s / 2
        else:
            self._deviation_s += (abs(self._smoothed_s - delay_s) - self._deviation_s) / 4
            self._smoothed_s += (delay_s - self._smoothed_s) / 8
        self._last_s = now_s

    def due_s(self, started_s: float, time_outs: int) -> float:
        """Return the time at which a sample that started at ``started_s`` counts as lost, by what is known now."""
        comes_back = self._last_s > started_s
        least_s = self._patience.least_s if comes_back else self._patience.first_s
        return started_s + max(least_s, self._smoothed_s + 4 * self._deviation_s) * 2.0**time_outs

    def look_s(self, now_s: float, started_s: float, time_outs: int) -> float:
        """Return the time at which to look again whether a sample is due."""
        step_s = min(self._patience.least_s, self._patience.first_s) * 2.0**time_outs
        return min(now_s + step_s, self.due_s(started_s, time_outs))
