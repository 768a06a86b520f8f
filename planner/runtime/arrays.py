"""Arrays from outside: from a user's program, a file or a stream.

onnxruntime reads the bytes of an array in this machine's byte order whatever the array's dtype says, and so does the
wire. Every array from outside therefore passes through :func:`native`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final
from zipfile import ZipFile

import numpy as np
from numpy.typing import ArrayLike, NDArray

from planner.errors import PlannerError, RuntimeSessionError, explain

_SUFFIX: Final = ".npy"


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


def read_array(stream: BinaryIO) -> NDArray[Any]:
    """Return the next array of a stream in ``.npy`` format.

    Raises
    ------
    ValueError
        If the stream ends early, is damaged, is not in that format, holds Python objects, or does not fit in memory.
    """
    try:
        return native(np.lib.format.read_array(stream, allow_pickle=False))
    except Exception as error:  # NumPy and what decompresses for it raise a dozen types for damaged data
        raise ValueError(explain(error)) from error


def read_stand_in(stream: BinaryIO) -> NDArray[Any]:
    """Return an array of dtype and shape of the next one of a stream, of which only the header is read.

    All its elements are one zero in memory, whatever its shape.

    Raises
    ------
    ValueError
        If the stream does not begin with a header in ``.npy`` format.
    """
    try:
        version = np.lib.format.read_magic(stream)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(stream)
        return np.broadcast_to(np.zeros((), dtype.newbyteorder("=")), shape)
    except Exception as error:  # as above
        raise ValueError(explain(error)) from error


class ArrayFile:
    """An open ``.npz`` file, of which only those arrays are decompressed that are read; see :func:`open_arrays`."""

    def __init__(self, archive: ZipFile) -> None:
        self._archive = archive
        self.names = tuple(name.removesuffix(_SUFFIX) for name in archive.namelist())

    def read(self, name: str) -> NDArray[Any]:
        """Return an array."""
        with self._open(name) as stream:
            return read_array(stream)

    def stand_in(self, name: str) -> NDArray[Any]:
        """Return what :func:`read_stand_in` does of an array."""
        with self._open(name) as stream:
            return read_stand_in(stream)

    def _open(self, name: str) -> Any:
        member = name + _SUFFIX
        return self._archive.open(member if member in self._archive.namelist() else name)


@contextmanager
def open_arrays(path: Path) -> Iterator[ArrayFile]:
    """Open an ``.npz`` file.

    Raises
    ------
    RuntimeSessionError
        If the file cannot be read, is damaged or is no ``.npz`` file; also while it is open.
    """
    try:
        with path.open("rb") as file, ZipFile(file) as archive:
            yield ArrayFile(archive)
    except PlannerError:
        raise
    except Exception as error:  # zipfile raises a dozen types for damaged files
        raise RuntimeSessionError(
            "not an .npz file", where=str(path), value=explain(error), expected="arrays by name"
        ) from error
