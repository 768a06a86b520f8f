"""Ctrl-C ends a search with its best incumbent, instead of an exception that would lose it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def on_interrupt(stop: threading.Event) -> Iterator[None]:
    """Let Ctrl-C set ``stop`` inside the context; a second Ctrl-C raises ``KeyboardInterrupt`` as usual.

    In a context within another one, it sets the ``stop`` of both.

    Python delivers signals to the main thread only; in any other thread this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            signal.default_int_handler(number, frame)
        stop.set()
        if callable(before) and before is not signal.default_int_handler:
            before(number, frame)

    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
