"""Sizes of elements and of tensors in memory."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from onnx import TensorProto, helper

STRING_OBJECT_BYTES = 32
"""Size of a ``std::string``, in which onnxruntime holds a text; one of at most 15 bytes lies in the object itself."""


def element_bits(data_type: int) -> int:
    """Return the size of an element of an ONNX type in bits; of a string, that of an object with a short text."""
    if data_type == TensorProto.STRING:
        return 8 * STRING_OBJECT_BYTES
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(data_type))
    if dtype.isbuiltin == 1:
        return 8 * dtype.itemsize
    import ml_dtypes  # a dependency of onnx

    describe = ml_dtypes.iinfo if "int" in dtype.name else ml_dtypes.finfo
    return int(describe(dtype).bits)


def tensor_bytes(data_type: int, dims: Iterable[int]) -> int:
    """Return the size of a dense tensor in bytes; elements of less than a byte are packed."""
    return -(-math.prod(dims) * element_bits(data_type) // 8)
