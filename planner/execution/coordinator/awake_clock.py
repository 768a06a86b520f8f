"""Clocks: one that stands still while this process does, and one that nobody sets."""

from __future__ import annotations

import sys
import time
from typing import Final

_LONGEST_TICK_S: Final = 5.0


def steady_clock_s() -> float:
    """Return the time of a clock that nobody sets, in seconds; on Linux, it goes on while the device sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if sys.platform == "linux" else time.monotonic()


class AwakeClock:
    """Seconds for which this process was awake, as of the last :meth:`tick`.

    A coordinator that was stopped, or whose device slept, must not conclude that everybody else was silent meanwhile.
    """

    def __init__(self) -> None:
        self.now_s = 0.0
        self._ticked_s = time.monotonic()

    def tick(self) -> None:
        """Advance the clock; to be called at least every few seconds."""
        now_s = time.monotonic()
        self.now_s += min(now_s - self._ticked_s, _LONGEST_TICK_S)
        self._ticked_s = now_s
