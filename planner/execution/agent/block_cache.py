"""Block models by content hash, in a folder."""

from __future__ import annotations

import hashlib
from pathlib import Path

from planner.errors import ExecuteError
from planner.files import write_bytes_atomic


class BlockCache:
    """A folder of block models; what lies in it under a hash has that hash.

    What it cannot take, because it is full or may not be written, is kept in memory: a run needs no folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._checked: set[str] = set()
        self._in_memory: dict[str, bytes] = {}

    def path(self, sha256: str) -> Path:
        """Give the file of a block model, whether it is there or not."""
        return self._folder / f"{sha256}.onnx"

    def __len__(self) -> int:
        """Count the block models that are there."""
        return len(list(self._folder.glob("*.onnx"))) + len(self._in_memory)

    def block(self, sha256: str) -> Path | bytes:
        """Give a block model that is there: its file, or what would be in it."""
        return self._in_memory.get(sha256) or self.path(sha256)

    def has(self, sha256: str) -> bool:
        """Tell whether the block model is there, whole."""
        if sha256 in self._checked or sha256 in self._in_memory:
            return True
        path = self.path(sha256)
        if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256:
            self._checked.add(sha256)
            return True
        return False

    def add(self, sha256: str, data: bytes) -> str | None:
        """Keep a block model; say why the folder does not take it, if it does not.

        Raises
        ------
        ExecuteError
            The data has another hash.
        """
        found = hashlib.sha256(data).hexdigest()
        if found != sha256:
            raise ExecuteError("a block model came damaged", where="block_file", value=found, expected=sha256)
        try:
            write_bytes_atomic(self.path(sha256), data)
        except OSError as error:
            self._in_memory[sha256] = data
            return f"{self._folder} takes no block model, which stays in memory: {error.strerror}"
        self._checked.add(sha256)
        return None
