"""Temporary folders for block models, which the next start removes if nobody uses them any more.

The processes that use a folder share the lock of a file in it, which ends with the last of them, however it ends. A
process that is killed leaves its folder; whoever makes the next one removes it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PREFIX: Final = "planner-"
_LOCK: Final = "in-use"


@dataclass(frozen=True)
class Scratch:
    """A folder, and the descriptors that its users must inherit to keep it."""

    path: Path
    descriptors: tuple[int, ...] = ()


@contextmanager
def scratch_folder() -> Iterator[Scratch]:
    """Make a temporary folder, and remove it at the end; first remove those that nobody uses."""
    _remove_unused()
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as name:
        path = Path(name)
        unlocked = path / f".{_LOCK}"
        descriptor = os.open(unlocked, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            unlocked.rename(path / _LOCK)  # so that no other process ever finds it unlocked
            yield Scratch(path, (descriptor,))
        finally:
            os.close(descriptor)


def _remove_unused() -> None:
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):  # it has just been removed, or the lock is held
            if path.is_symlink() or path.stat().st_uid != os.geteuid():
                continue
            descriptor = os.open(path / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path)
            finally:
                os.close(descriptor)
