"""Arrays from outside: from a user's program, a file or a stream.

onnxruntime reads the bytes of an array in this machine's byte order whatever the array's dtype says, and so does the
wire. Every array from outside therefore passes through :func:`native`.
"""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np
from numpy.typing import ArrayLike, NDArray

from planner.formats.npy import MAX_BYTES, read_npy


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
