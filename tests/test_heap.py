"""Free pages of the heap go back to the system."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from planner.heap import c_library, trim_heap

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
