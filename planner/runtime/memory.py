"""Memory that a block needs while it runs, in addition to its weights."""

from __future__ import annotations

import contextlib
import ctypes
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray

from planner.runtime.session import BlockSession

_STATUS: Final = Path("/proc/self/status")
_CLEAR: Final = Path("/proc/self/clear_refs")


def peak_activation_bytes(model: bytes, tensors: Mapping[str, NDArray[Any]], *, name: str = "") -> int | None:
    """Run a block on the CPU, and return by how much this process's resident memory rises.

    Parameters
    ----------
    model
        The block model.
    tensors
        Inputs of the block. Their size is added, because they are alive while the block runs.
    name
        Name of the block in messages.

    Returns
    -------
    int or None
        Peak size of tensors and scratch buffers in bytes, accurate to about 0.25 MiB; None if the system does not
        let a process reset its high-water mark (Linux does).
    """
    # Without the arena, each buffer is freed after its last use, so the rise equals the block's need.
    session = BlockSession(model, name=name, arena=False)
    before_bytes = 0
    for _ in range(2):  # the first run also allocates memory that is kept permanently
        _trim_heap()
        try:
            _CLEAR.write_text("5")
            before_bytes = _status_bytes("VmRSS")
        except OSError:
            return None
        session.run(tensors)
    inputs_bytes = sum(tensors[name].nbytes for name in session.input_names)
    return max(_status_bytes("VmHWM") - before_bytes, 0) + inputs_bytes


def _trim_heap() -> None:
    # Free pages kept by the C library would hide a rise.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _status_bytes(key: str) -> int:
    match = re.search(rf"^{key}:\s+(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
    return int(match[1]) * 1024 if match else 0
