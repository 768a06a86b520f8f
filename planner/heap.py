"""The C library's heap, whose free pages it keeps for this process."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache


@cache
def c_library() -> ctypes.CDLL | None:
    """Return the GNU C library; None on a system with another one."""
    try:
        library = ctypes.CDLL(None)
        return library if library.mallopt and library.malloc_trim else None
    except (OSError, TypeError, AttributeError):
        return None


@contextmanager
def only_new_garbage() -> Iterator[None]:
    """Let collections within pass over all objects that are there now: with a large model, each takes long."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def trim_heap() -> None:
    """Collect garbage, and return the heap's free pages to the system.

    After a model has been read, both are much: few objects refer to large messages, so the collector does not run by
    itself, and free pages between pieces in use stay resident. A process that reads models again and again would grow.
    """
    gc.collect()
    library = c_library()
    if library is not None:
        library.malloc_trim(0)
