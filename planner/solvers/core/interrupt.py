"""Ctrl-C ends a search with its best incumbent, instead of an exception that would lose it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_open: list[threading.Event] = []


@contextmanager
def on_interrupt(stop: threading.Event) -> Iterator[None]:
    """Let Ctrl-C set ``stop`` inside the context; a second Ctrl-C raises ``KeyboardInterrupt`` as usual.

    Contexts may be nested: Ctrl-C sets the ``stop`` of all that are open, so that a series of searches ends as well.
    Python delivers signals to the main thread only; in any other thread this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            signal.default_int_handler(number, frame)
        for each in _open:
            each.set()

    _open.append(stop)
    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        _open.remove(stop)
