"""The thread of an agent that sends, the most urgent first, so that the agent itself never waits for a link."""

from __future__ import annotations

import queue
import threading
from itertools import count

from planner.execute.messages import Frame
from planner.execute.transport import LEVELS, Transport


class SenderThread:
    """Sends frames by level, then in order of their coming."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._frames: queue.PriorityQueue[tuple[int, int, tuple[str, Frame] | None]] = queue.PriorityQueue()
        self._sequence = count()
        self._thread = threading.Thread(target=self._work, name="send", daemon=True)
        self._thread.start()

    def send(self, to: str, frame: Frame, level: int) -> None:
        """Add a frame."""
        self._frames.put((level, next(self._sequence), (to, frame)))

    def close(self) -> None:
        """End the thread once all frames have gone."""
        self._frames.put((LEVELS + 1, next(self._sequence), None))
        self._thread.join()

    def _work(self) -> None:
        while True:
            level, _, item = self._frames.get()
            if item is None:
                return
            self._transport.send(*item, level)
