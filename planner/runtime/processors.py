"""CPU affinity of threads."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from planner.errors import RuntimeSessionError


def available_processors() -> tuple[int, ...]:
    """Return the numbers of the CPUs that this process may use; empty if the system does not support CPU affinity."""
    return tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ()


def parse_cpu_list(text: str, where: str) -> tuple[int, ...]:
    """Parse a CPU list such as ``0,2-3``.

    Raises
    ------
    RuntimeSessionError
        If the text is not a CPU list, or names CPUs that this process may not use.
    """
    numbers: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not (first.isdecimal() and (last.isdecimal() if dash else True)):
            raise RuntimeSessionError("not a CPU list", where=where, value=text, expected="a list such as 0,2-3")
        numbers |= set(range(int(first), int(last or first) + 1))
    available = available_processors()
    if not numbers or not numbers.issubset(available):
        expected = (
            f"some of {', '.join(map(str, available))}"
            if available
            else "none: this system does not support CPU affinity"
        )
        raise RuntimeSessionError("these CPUs are not available", where=where, value=text, expected=expected)
    return tuple(sorted(numbers))


@contextmanager
def pinned_to(processors: Collection[int]) -> Iterator[None]:
    """Pin this thread, and threads that it starts meanwhile, to ``processors``; do nothing if there are none."""
    if not processors:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, processors)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
