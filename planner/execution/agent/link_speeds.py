"""Speed of the links to other agents, from the transfers of a run's own data; nothing is sent to measure it."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Final

from planner.execution.wire.diagnostics import LinkSpeed

_RECENT: Final = 5
"""The fastest of this many transfers counts, for others may share the medium."""


class LinkSpeeds:
    """Collects the transfers of an agent; usable from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._recent: dict[str, deque[float]] = {}
        self._transfers: dict[str, int] = {}
        self._last_s: dict[str, float] = {}

    def add(self, to: str, size_bytes: int, took_s: float) -> None:
        """Add a transfer, with its duration without the round trip of a small message.

        One that took no measurable time tells nothing.
        """
        if took_s <= 0:
            return
        with self._lock:
            self._recent.setdefault(to, deque(maxlen=_RECENT)).append(size_bytes / took_s)
            self._transfers[to] = self._transfers.get(to, 0) + 1
            self._last_s[to] = time.monotonic()

    def describe(self) -> dict[str, LinkSpeed]:
        """Return the speed of the link to each agent that large data was sent to."""
        now_s = time.monotonic()
        with self._lock:
            return {
                to: LinkSpeed(bytes_per_s=max(speeds), transfers=self._transfers[to], age_s=now_s - self._last_s[to])
                for to, speeds in self._recent.items()
            }
