"""Where threads run."""

from __future__ import annotations

import os
import threading

import pytest

from planner.errors import RuntimeSessionError
from planner.runtime.processors import available_processors, on_processors, read_processors

AVAILABLE = available_processors()
pytestmark = pytest.mark.skipif(not AVAILABLE, reason="this system does not let a process choose its processors")


def test_lists_of_processors() -> None:
    first, last = AVAILABLE[0], AVAILABLE[-1]
    assert read_processors(f"{first}", "--processors") == (first,)
    assert read_processors(f"{last}, {first},{first}", "--processors") == tuple(sorted({first, last}))
    if tuple(range(first, last + 1)) == AVAILABLE:
        assert read_processors(f"{first}-{last}", "--processors") == AVAILABLE


@pytest.mark.parametrize("text", ["", "one", "0,,1", "0-", "-1", "0-one"])
def test_what_is_no_list_is_refused(text: str) -> None:
    with pytest.raises(RuntimeSessionError, match="--processors: no list of processors"):
        read_processors(text, "--processors")


@pytest.mark.parametrize("text", ["100000", f"{AVAILABLE[-1] + 1}" if AVAILABLE else "", "1-0"])
def test_processors_that_are_not_there_are_refused(text: str) -> None:
    with pytest.raises(RuntimeSessionError, match=f"found '{text}'; expected some of {AVAILABLE[0]}"):
        read_processors(text, "--processors")


def test_a_thread_and_those_it_starts_stay_where_they_are_told_to() -> None:
    own, found = AVAILABLE[-1:], []

    def look() -> None:
        found.append(os.sched_getaffinity(0))

    def work() -> None:
        with on_processors(own):
            look()
            inner = threading.Thread(target=look)
            inner.start()
            inner.join()
        look()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [set(own), set(own), set(AVAILABLE)]
    assert os.sched_getaffinity(0) == set(AVAILABLE)
    with on_processors(()):
        assert os.sched_getaffinity(0) == set(AVAILABLE)
