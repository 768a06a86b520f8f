"""Cache of block models in a folder, by content hash."""

from __future__ import annotations

import hashlib
from collections.abc import Container
from pathlib import Path
from typing import BinaryIO, Final

from planner.errors import ExecuteError
from planner.files import write_bytes_atomic

_PIECE_BYTES: Final = 2**20


class BlockCache:
    """A folder of block models, each verified against the hash that names it.

    Models that cannot be written, because the folder is full or read-only, are kept in memory until a run that does not
    need them, so that a run does not depend on the folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._in_memory: dict[str, bytes] = {}

    def path(self, sha256: str) -> Path:
        """Return the path of a block model, whether or not the file exists."""
        return self._folder / f"{sha256}.onnx"

    def __len__(self) -> int:
        """Return the number of cached block models."""
        return len(list(self._folder.glob("*.onnx"))) + len(self._in_memory)

    def block(self, sha256: str) -> Path | bytes:
        """Return a cached block model: the path of its file, or its content if it is in memory."""
        return self._in_memory.get(sha256) or self.path(sha256)

    def forget_others(self, needed: Container[str]) -> None:
        """Drop the block models in memory that are not needed; what is in the folder stays."""
        self._in_memory = {sha256: data for sha256, data in self._in_memory.items() if sha256 in needed}

    def has(self, sha256: str) -> bool:
        """Return whether the block model is cached; its file is read, as it may have been changed or removed."""
        if sha256 in self._in_memory:
            return True
        try:
            with self.path(sha256).open("rb") as file:
                return _sha256(file) == sha256
        except OSError:
            return False

    def add(self, sha256: str, data: bytes) -> str | None:
        """Add a block model; return why it could not be written to the folder, None if it was.

        Raises
        ------
        ExecuteError
            The data has a different hash.
        """
        data_sha256 = hashlib.sha256(data).hexdigest()
        if data_sha256 != sha256:
            raise ExecuteError("damaged block model", where="block_file", value=data_sha256, expected=sha256)
        try:
            write_bytes_atomic(self.path(sha256), data)
        except OSError as error:
            self._in_memory[sha256] = data
            return f"cannot write a block model to {self._folder}, keeping it in memory: {error.strerror}"
        return None


def _sha256(file: BinaryIO) -> str:
    """Return the hash of a file, which is not read into memory as a whole."""
    found = hashlib.sha256()
    while piece := file.read(_PIECE_BYTES):
        found.update(piece)
    return found.hexdigest()
