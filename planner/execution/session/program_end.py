"""Notices that the program has ended without leaving what it holds open.

The threads of the transport keep a process alive until it is closed, and functions that are registered for the exit of
a process are only called once these threads have ended. So a thread looks from time to time whether anybody is left who
could close it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final
from weakref import WeakSet

from planner.execution.wire.threads import start_thread

_LOOK_S: Final = 0.3

_OURS: Final[WeakSet[threading.Thread]] = WeakSet()
"""Threads of transports, and those of this module; none of them closes anything."""


class ProgramEnd:
    """Calls a function once the program has ended; to be created before what is to be closed is opened.

    The program has ended when its main thread has, and every other thread that would keep it alive, except those that
    come with what is opened.

    Parameters
    ----------
    close
        Called in a thread of this object, at most once.
    """

    def __init__(self, close: Callable[[], None]) -> None:
        self._close = close
        self._before = set(threading.enumerate())
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def watch(self) -> None:
        """Begin to watch; what is to be closed is open now."""
        _OURS.update(set(threading.enumerate()) - self._before)
        self._before.clear()
        self._thread = start_thread("end of program", self._look, lambda _error: None, awaited_at_exit=True)
        _OURS.add(self._thread)

    def _look(self) -> None:
        while not self._over.wait(_LOOK_S):
            if not any(_keeps_alive(thread) for thread in threading.enumerate()):
                self._over.set()
                self._close()

    def stop(self) -> None:
        """Watch no more."""
        self._over.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()


def _keeps_alive(thread: threading.Thread) -> bool:
    return thread.is_alive() and not thread.daemon and thread not in _OURS
