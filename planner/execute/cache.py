"""Block models by content hash, in a folder."""

from __future__ import annotations

import hashlib
from pathlib import Path

from planner.errors import ExecuteError
from planner.files import write_bytes_atomic


class BlockCache:
    """A folder of block models; what lies in it under a hash has that hash."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._checked: set[str] = set()

    def path(self, sha256: str) -> Path:
        """Give the file of a block model, whether it is there or not."""
        return self._folder / f"{sha256}.onnx"

    def has(self, sha256: str) -> bool:
        """Tell whether the block model is there, whole."""
        if sha256 in self._checked:
            return True
        path = self.path(sha256)
        if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256:
            self._checked.add(sha256)
            return True
        return False

    def add(self, sha256: str, data: bytes) -> None:
        """Keep a block model.

        Raises
        ------
        ExecuteError
            The data has another hash, or the folder cannot be written.
        """
        found = hashlib.sha256(data).hexdigest()
        if found != sha256:
            raise ExecuteError("a block model came damaged", where="block_file", value=found, expected=sha256)
        try:
            write_bytes_atomic(self.path(sha256), data)
        except OSError as error:
            raise ExecuteError("cannot keep a block model", where=str(self._folder), value=error.strerror) from error
        self._checked.add(sha256)
