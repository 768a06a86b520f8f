"""NumPy's files: ``.npy``, one array, and ``.npz``, an archive of arrays by name.

What an array is, its header says before the data are read, so that an array that is not wanted costs no memory. Arrays
of Python objects, which a file could only hold as a program, are refused.
"""

from __future__ import annotations

import lzma
import math
import struct
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from tokenize import TokenError
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

MAX_AXES: Final = 32
"""Axes of an array in every supported version of NumPy."""

MAX_BYTES: Final = 2**34
"""Largest array that is read."""

_MAX_HEADER: Final = 10_000
_PIECE_BYTES: Final = 2**24


_HEADER_FAULTS: Final = (
    ValueError, SyntaxError, TokenError, TypeError, LookupError, RecursionError, MemoryError, EOFError,
)  # fmt: skip
"""What NumPy and Python's parser raise for a header that is no dictionary of a dtype and a shape."""

_DAMAGES: Final = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError, EOFError, NotImplementedError, RuntimeError, ValueError,
    LookupError, struct.error, MemoryError,
)  # fmt: skip
"""What Python's readers of archives and of packed data raise for damaged ones."""


class NpyError(ValueError):
    """Data are not in one of NumPy's formats, or are truncated or damaged."""


def read_npy(stream: BinaryIO, limit_bytes: int = MAX_BYTES) -> NDArray[Any]:
    """Return the next array of a stream in ``.npy`` format.

    Memory is taken as data arrive, whatever the header says.

    Raises
    ------
    NpyError
        The stream is not in that format, ends early, holds Python objects, or an array larger than ``limit_bytes``.
    """
    shape, fortran, dtype = _header(stream)
    items = math.prod(shape)
    if max(math.prod(max(size, 1) for size in shape), 1) * max(dtype.itemsize, 1) > limit_bytes:
        raise NpyError(f"an array of {items * dtype.itemsize} bytes; at most {limit_bytes} are read")
    array = (
        np.frombuffer(_data(stream, items * dtype.itemsize), dtype, items) if dtype.itemsize else np.empty(items, dtype)
    )
    return array.reshape(shape[::-1]).transpose() if fortran else array.reshape(shape)


def read_npy_stand_in(stream: BinaryIO) -> NDArray[Any]:
    """Return an array of dtype and shape of the next one of a stream, of which only the header is read.

    Its byte order is that of this machine, and all its elements are one zero in memory, whatever its shape.

    Raises
    ------
    NpyError
        The stream does not begin with the header of an array that :func:`read_npy` reads.
    """
    shape, _, dtype = _header(stream)
    try:
        return np.broadcast_to(np.zeros((), dtype.newbyteorder("=")), shape)
    except ValueError as error:  # more elements than an index can tell apart
        raise NpyError("an impossible shape") from error


def _header(stream: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    try:
        version = npy.read_magic(stream)
        read: Any = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
        if read is None and version != (3, 0):
            raise NpyError(f"version {version} of the format")
        # Version 3 differs from 2 only in the encoding of names of fields, which no array of a sample has.
        shape, fortran, dtype = (read or npy.read_array_header_2_0)(stream, max_header_size=_MAX_HEADER)
    except _HEADER_FAULTS as error:
        raise NpyError(f"not a .npy header ({type(error).__name__})") from error
    if dtype.hasobject:
        raise NpyError("an array of Python objects")
    if len(shape) > MAX_AXES or any(type(size) is not int or size < 0 for size in shape):
        raise NpyError("an impossible shape")
    return shape, bool(fortran), dtype


def _data(stream: BinaryIO, size: int) -> bytearray:
    data = bytearray()
    while len(data) < size:
        piece = stream.read(min(_PIECE_BYTES, size - len(data)))
        if not piece:
            raise NpyError(f"the data end after {len(data)} of {size} bytes")
        data += piece
    return data


class Npz:
    """The arrays of an open ``.npz`` file; each is read when it is asked for."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self.names: Collection[str] = {name.removesuffix(".npy"): None for name in archive.namelist()}.keys()
        """Names of the arrays."""

    def read(self, name: str, limit_bytes: int = MAX_BYTES) -> NDArray[Any]:
        """Return an array.

        Raises
        ------
        NpyError
            As for :func:`read_npy`; or the archive is damaged here, or packed in a way that is not supported.
        """
        with self._open(name) as stream:
            return read_npy(stream, limit_bytes)

    def stand_in(self, name: str) -> NDArray[Any]:
        """Return what :func:`read_npy_stand_in` does of an array; raise what :meth:`read` does."""
        with self._open(name) as stream:
            return read_npy_stand_in(stream)

    @contextmanager
    def _open(self, name: str) -> Iterator[Any]:
        member = f"{name}.npy" if f"{name}.npy" in self._archive.namelist() else name
        with _damage(name), self._archive.open(member) as stream:
            yield stream


@contextmanager
def open_npz(path: Path) -> Iterator[Npz]:
    """Open an ``.npz`` file.

    Raises
    ------
    OSError
        The file cannot be read.
    NpyError
        It is not an archive.
    """
    with path.open("rb") as file:
        with _damage("archive"):
            archive = zipfile.ZipFile(file)
        with archive:
            yield Npz(archive)


@contextmanager
def _damage(where: str) -> Iterator[None]:
    """Turn what Python's reader of archives raises for a damaged one into :class:`NpyError`."""
    try:
        yield
    except NpyError as error:
        raise NpyError(f"{where}: {error}") from error
    except _DAMAGES as error:
        raise NpyError(f"{where}: damaged, or packed in a way that is not supported ({error})") from error
