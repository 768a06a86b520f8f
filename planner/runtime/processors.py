"""On which processors of this machine something runs."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from planner.errors import RuntimeSessionError


def available_processors() -> tuple[int, ...]:
    """Give the numbers of the processors that this process may use; none where the system does not let it choose."""
    return tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ()


def read_processors(text: str, where: str) -> tuple[int, ...]:
    """Read numbers of processors, such as ``0,2-3``.

    Raises
    ------
    RuntimeSessionError
        It is no such list, or names processors that this process may not use.
    """
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not (first.isdecimal() and (last.isdecimal() if dash else True)):
            raise RuntimeSessionError("no list of processors", where=where, value=text, expected="such as 0,2-3")
        found |= set(range(int(first), int(last or first) + 1))
    available = available_processors()
    if not found or not found.issubset(available):
        expected = f"some of {', '.join(map(str, available))}" if available else "none: this system does not let choose"
        raise RuntimeSessionError("not the processors of this machine", where=where, value=text, expected=expected)
    return tuple(sorted(found))


@contextmanager
def on_processors(processors: Collection[int]) -> Iterator[None]:
    """Keep this thread, and those that it starts meanwhile, on some processors; with none named leave it as it is."""
    if not processors:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, processors)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
