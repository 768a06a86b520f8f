"""Free pages of the heap go back to the system."""

from __future__ import annotations

import gc
import os
import sys
import weakref
from pathlib import Path

import pytest

from planner.heap import c_library, only_new_garbage, trim_heap

PIECE_BYTES = 2**16
PIECES = 1000


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(sys.platform != "linux" or c_library() is None, reason="another C library than GNU's")
def test_free_pages_below_a_piece_in_use_are_returned() -> None:
    trim_heap()
    pieces = [bytearray(PIECE_BYTES) for _ in range(PIECES)]
    full_bytes = resident_bytes()
    del pieces[:-1]  # the last one keeps the heap's end where it is
    trim_heap()
    assert full_bytes - resident_bytes() > 0.9 * PIECES * PIECE_BYTES
    assert len(pieces) == 1


class Cycle:
    def __init__(self) -> None:
        self.itself = self


def test_garbage_of_before_and_of_within_is_collected_and_nothing_stays_frozen() -> None:
    before = gc.get_freeze_count()
    old = weakref.ref(Cycle())
    with only_new_garbage():
        assert old() is None
        assert gc.get_freeze_count() > before
        kept = Cycle()
        new, held = weakref.ref(Cycle()), weakref.ref(kept)
        trim_heap()
        assert new() is None
        assert held() is kept
        del kept
        with pytest.raises(ZeroDivisionError), only_new_garbage():
            _ = 1 // 0
    assert gc.get_freeze_count() == 0
