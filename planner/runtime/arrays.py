"""Arrays from outside: from a user's program, a file or a stream.

onnxruntime reads the bytes of an array in this machine's byte order whatever the array's dtype says, and so does the
wire. Every array from outside therefore passes through :func:`native`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import ArrayLike, NDArray

from planner.errors import RuntimeSessionError
from planner.formats.npy import MAX_BYTES, NpyError, Npz, open_npz, read_npy, read_npy_stand_in


def native(array: ArrayLike) -> NDArray[Any]:
    """Return an array of the same values in this machine's byte order and in C order; a copy only if it is neither.

    Parameters
    ----------
    array
        Array of any dtype, shape and memory layout.
    """
    plain = np.asarray(array)
    if plain.dtype.isnative and plain.flags.c_contiguous and plain.flags.aligned:
        return plain
    return np.require(plain, plain.dtype.newbyteorder("="), ("C", "A"))


def read_array(stream: BinaryIO, limit_bytes: int = MAX_BYTES) -> NDArray[Any]:
    """Return the next array of a stream in ``.npy`` format.

    Raises
    ------
    NpyError
        As for :func:`~planner.formats.npy.read_npy`.
    """
    return native(read_npy(stream, limit_bytes))


def read_stand_in(stream: BinaryIO) -> NDArray[Any]:
    """Return an array of dtype and shape of the next one of a stream, of which only the header is read.

    All its elements are one zero in memory, whatever its shape.

    Raises
    ------
    NpyError
        If the stream does not begin with a header in ``.npy`` format.
    """
    return read_npy_stand_in(stream)


class ArrayFile:
    """An open ``.npz`` file, of which only those arrays are decompressed that are read; see :func:`open_arrays`."""

    def __init__(self, archive: Npz) -> None:
        self._archive = archive
        self.names = tuple(archive.names)

    def read(self, name: str) -> NDArray[Any]:
        """Return an array."""
        return native(self._archive.read(name))

    def stand_in(self, name: str) -> NDArray[Any]:
        """Return what :func:`read_stand_in` does of an array."""
        return self._archive.stand_in(name)


@contextmanager
def open_arrays(path: Path) -> Iterator[ArrayFile]:
    """Open an ``.npz`` file.

    Raises
    ------
    RuntimeSessionError
        If the file cannot be read, is damaged or is no ``.npz`` file; also while it is open.
    """
    try:
        with open_npz(path) as archive:
            yield ArrayFile(archive)
    except (OSError, NpyError) as error:
        value = error.strerror if isinstance(error, OSError) else str(error)
        raise RuntimeSessionError(
            "not an .npz file", where=str(path), value=value, expected="arrays by name"
        ) from error
