"""Memory that a block takes: what it holds once loaded, and what it needs while it runs."""

from __future__ import annotations

import contextlib
import ctypes
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray

from planner.runtime.session import BlockSession

_STATUS: Final = Path("/proc/self/status")
_CLEAR: Final = Path("/proc/self/clear_refs")

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


def measure_memory(model: bytes, tensors: Mapping[str, NDArray[Any]], *, name: str = "") -> BlockMemory | None:
    """Load and run a block on the CPU, and return by how much this process's resident memory rises.

    Parameters
    ----------
    model
        The block model.
    tensors
        Inputs of the block. Their size is added to the peak, because they are alive while the block runs.
    name
        Name of the block in messages.

    Returns
    -------
    BlockMemory or None
        Memory of the block, accurate to about 0.25 MiB; None if the system does not let a process reset its
        high-water mark (Linux does).
    """
    _trim_heap()
    before_bytes = _status_bytes("RssAnon")
    session = BlockSession(model, name=name, shared_arena=False)
    _trim_heap()
    held_bytes = _status_bytes("RssAnon") - before_bytes
    try:
        _CLEAR.write_text("5")
    except OSError:
        return None
    idle_bytes = _status_bytes("VmRSS")
    for _ in range(RUNS):
        session.run(tensors)
    inputs_bytes = sum(tensors[name].nbytes for name in session.input_names)
    return BlockMemory(max(held_bytes, 0), max(_status_bytes("VmHWM") - idle_bytes, 0) + inputs_bytes)


def _trim_heap() -> None:
    # Free pages kept by the C library would hide a rise.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _status_bytes(key: str) -> int:
    match = re.search(rf"^{key}:\s+(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
    return int(match[1]) * 1024 if match else 0
