"""Threads and callbacks whose exceptions are never lost: each is logged with its cause, and told or survived."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable
from typing import ParamSpec

_LOG = logging.getLogger(__name__)

_P = ParamSpec("_P")


def start_thread(name: str, work: Callable[[], None], on_failure: Callable[[Exception], None]) -> threading.Thread:
    """Start a daemon thread.

    Parameters
    ----------
    on_failure
        Told, in that thread, of the exception that ended ``work``, after it has been logged.
    """

    def guarded() -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - it is logged and told
            _LOG.exception("the thread %r ends", name)
            on_failure(error)

    thread = threading.Thread(target=guarded, name=name, daemon=True)
    thread.start()
    return thread


def surviving(call: Callable[_P, None]) -> Callable[_P, None]:
    """Return ``call``, for threads of a library: what it raises is logged, and goes no further."""

    @functools.wraps(call)
    def guarded(*args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            call(*args, **kwargs)
        except Exception:  # noqa: BLE001 - it is logged
            _LOG.exception("%s fails", call.__qualname__)

    return guarded
