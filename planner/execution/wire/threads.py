"""Threads and callbacks that never lose an exception: each is logged with its cause, then reported or survived."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable
from typing import ParamSpec

_LOG = logging.getLogger(__name__)

_P = ParamSpec("_P")


def start_thread(
    name: str, work: Callable[[], None], on_failure: Callable[[Exception], None], *, awaited_at_exit: bool = False
) -> threading.Thread:
    """Start a thread.

    Parameters
    ----------
    on_failure
        Called in that thread with the exception that ended ``work``, after it has been logged.
    awaited_at_exit
        Whether the process waits for the thread before it ends, however its main thread ends. A thread that calls
        onnxruntime needs this: the process aborts if the interpreter is gone when the call returns.
    """

    def guarded() -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - it is logged and reported
            _LOG.exception("the thread %r failed", name)
            on_failure(error)

    thread = threading.Thread(target=guarded, name=name, daemon=not awaited_at_exit)
    thread.start()
    return thread


def surviving(call: Callable[_P, None]) -> Callable[_P, None]:
    """Wrap a callback of a library so that its exceptions are logged and not propagated."""

    @functools.wraps(call)
    def guarded(*args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            call(*args, **kwargs)
        except Exception:  # noqa: BLE001 - it is logged
            _LOG.exception("%s failed", call.__qualname__)

    return guarded
