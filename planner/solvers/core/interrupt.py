"""Ctrl-C ends a search with what it has found, instead of an exception that would lose it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def on_interrupt(stop: threading.Event) -> Iterator[None]:
    """While inside, Ctrl-C sets ``stop``; a second one interrupts as ever.

    Python hands signals to the main thread only; in others nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            signal.default_int_handler(number, frame)
        stop.set()

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
