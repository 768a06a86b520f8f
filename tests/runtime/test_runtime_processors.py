"""CPU affinity of threads."""

from __future__ import annotations

import os
import threading

import pytest

from planner.errors import RuntimeSessionError
from planner.runtime.processors import available_processors, parse_cpu_list, pinned_to

AVAILABLE = available_processors()
pytestmark = pytest.mark.skipif(not AVAILABLE, reason="this system does not let a process choose its processors")


def test_lists_of_processors() -> None:
    first, last = AVAILABLE[0], AVAILABLE[-1]
    assert parse_cpu_list(f"{first}", "--processors") == (first,)
    assert parse_cpu_list(f"{last}, {first},{first}", "--processors") == tuple(sorted({first, last}))
    if tuple(range(first, last + 1)) == AVAILABLE:
        assert parse_cpu_list(f"{first}-{last}", "--processors") == AVAILABLE


@pytest.mark.parametrize("text", ["", "one", "0,,1", "0-", "-1", "0-one"])
def test_invalid_lists_are_rejected(text: str) -> None:
    with pytest.raises(RuntimeSessionError, match="--processors: not a CPU list"):
        parse_cpu_list(text, "--processors")


@pytest.mark.parametrize("text", ["100000", f"{AVAILABLE[-1] + 1}" if AVAILABLE else "", "1-0"])
def test_unavailable_processors_are_rejected(text: str) -> None:
    with pytest.raises(RuntimeSessionError, match=f"found '{text}'; expected some of {AVAILABLE[0]}"):
        parse_cpu_list(text, "--processors")


def test_a_thread_and_the_threads_it_starts_are_pinned() -> None:
    pinned, observed = AVAILABLE[-1:], []

    def observe() -> None:
        observed.append(os.sched_getaffinity(0))

    def work() -> None:
        with pinned_to(pinned):
            observe()
            inner = threading.Thread(target=observe)
            inner.start()
            inner.join()
        observe()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert observed == [set(pinned), set(pinned), set(AVAILABLE)]
    assert os.sched_getaffinity(0) == set(AVAILABLE)
    with pinned_to(()):
        assert os.sched_getaffinity(0) == set(AVAILABLE)
