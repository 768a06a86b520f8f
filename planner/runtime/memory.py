"""Memory that a block takes: what it holds once loaded, and what it needs while it runs."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray

from planner.heap import c_library, trim_heap
from planner.runtime.session import BlockSession

_STATUS: Final = Path("/proc/self/status")
_CLEAR: Final = Path("/proc/self/clear_refs")
_MMAP_THRESHOLD: Final = -3  # M_MMAP_THRESHOLD of the GNU C library, and its smallest and largest default
_NO_HUGE_PAGES: Final = 41  # PR_SET_THP_DISABLE of Linux
_SMALLEST_PIECE_BYTES: Final = 128 * 1024
_LARGEST_PIECE_BYTES: Final = 32 * 1024 * 1024

RUNS: Final = 3
"""Number of runs after which an arena has the size that it keeps."""


@dataclass(frozen=True)
class BlockMemory:
    """Resident memory of a block in bytes.

    Parameters
    ----------
    held_bytes
        Memory of the loaded block between runs: its weights as onnxruntime keeps them, and the session itself.
    peak_bytes
        Memory for tensors and scratch buffers of runs, in addition, with the gaps that onnxruntime's arena leaves.
    """

    held_bytes: int
    peak_bytes: int


def measure_memory(
    model: bytes, tensors: Mapping[str, NDArray[Any]], *, name: str = "", passing: Iterable[str] = ()
) -> BlockMemory | None:
    """Load and run a block on the CPU, and return by how much this process's resident memory rises.

    Parameters
    ----------
    model
        The block model.
    tensors
        Inputs of the block. Their size is added to the peak, because they are alive while the block runs.
    name
        Name of the block in messages.
    passing
        Names of tensors that the worker holds meanwhile, because they cross the cut before the block. They are added to
        the peak, too.

    Returns
    -------
    BlockMemory or None
        Memory of the block, accurate to about 0.25 MiB; None if the system does not let a process reset its
        high-water mark (Linux does).
    """
    with _large_pieces_from_the_system(), _small_pages():
        trim_heap()  # what is freed meanwhile, and free pages of the heap, would hide a rise
        before_bytes = _status_bytes("RssAnon")
        session = BlockSession(model, name=name, shared_arena=False)
        trim_heap()
        held_bytes = _status_bytes("RssAnon") - before_bytes
        try:
            _CLEAR.write_text("5")
        except OSError:
            return None
        idle_bytes = _status_bytes("VmRSS")
        for _ in range(RUNS):
            session.run(tensors)
        risen_bytes = _status_bytes("VmHWM") - idle_bytes
    around_bytes = sum(tensors[name].nbytes for name in {*session.input_names, *passing})
    return BlockMemory(max(held_bytes, 0), max(risen_bytes, 0) + around_bytes)


@contextlib.contextmanager
def _large_pieces_from_the_system() -> Iterator[None]:
    """Let the C library take large pieces of memory from the system, rather than from gaps in its heap.

    Once such a piece has been freed, the library would otherwise keep later ones in its heap, where gaps between them
    count as memory of the block.
    """
    library = c_library()
    if library is not None:
        library.mallopt(_MMAP_THRESHOLD, _SMALLEST_PIECE_BYTES)
    try:
        yield
    finally:
        if library is not None:
            library.mallopt(_MMAP_THRESHOLD, _LARGEST_PIECE_BYTES)


@contextlib.contextmanager
def _small_pages() -> Iterator[None]:
    """Let memory become resident in pages of 4 KiB: numpy asks for pages of 2 MiB, of which a part may be needed."""
    library = c_library()
    if library is None or sys.platform != "linux":
        yield
        return
    library.prctl(_NO_HUGE_PAGES, 1, 0, 0, 0)
    try:
        yield
    finally:
        library.prctl(_NO_HUGE_PAGES, 0, 0, 0, 0)


def _status_bytes(key: str) -> int:
    match = re.search(rf"^{key}:\s+(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
    return int(match[1]) * 1024 if match else 0
