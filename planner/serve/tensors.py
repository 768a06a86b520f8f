"""Tensors of the Open Inference Protocol: datatypes, raw bytes and lists of numbers.

Raw bytes are little-endian and in C order. Values are never converted on the way: a number that its datatype cannot
hold is refused.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from planner.model.chain import TensorSpec
from planner.serve.refusals import Reason, RefusalError

DATATYPES: Final = {
    "bool": "BOOL",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    **{f"{kind}int{bits}": f"{kind.upper()}INT{bits}" for kind in ("", "u") for bits in (8, 16, 32, 64)},
}
"""Datatypes of the protocol by the dtypes of models. Those of text (BYTES) and BF16 are not among them."""

DTYPES: Final = {datatype: np.dtype(dtype) for dtype, datatype in DATATYPES.items()}

RAW_ONLY: Final = frozenset({"FP16"})
"""Datatypes that the protocol represents as raw bytes only."""

_BYTES_OF_NUMBER: Final = 32
"""Length of a number as text with what separates it from the next, at most."""


def datatype_of(spec: TensorSpec) -> str:
    """Return the datatype of a model's tensor.

    Raises
    ------
    RefusalError
        If the protocol has none, or this service does not offer it.
    """
    if spec.dtype not in DATATYPES:
        raise RefusalError(Reason.UNSUPPORTED, f"{spec.name}: tensors of {spec.dtype} cannot be sent or received here")
    return DATATYPES[spec.dtype]


def largest_text_bytes(specs: Iterable[TensorSpec]) -> int:
    """Return the size of tensors as text, at most."""
    return sum(_BYTES_OF_NUMBER * math.prod(spec.shape) for spec in specs)


def check_tensor(name: str, datatype: str, shape: Sequence[int]) -> np.dtype[Any]:
    """Return the dtype of a tensor of a request.

    Raises
    ------
    RefusalError
        If there is no such datatype, or none that this service accepts, or the shape is none.
    """
    if datatype not in DTYPES:
        known = ", ".join(DTYPES)
        hint = "; text and BF16 are not accepted" if datatype in {"BYTES", "BF16"} else ""
        message = f"input {name}: unsupported datatype; found {datatype!r}; expected one of {known}{hint}"
        raise RefusalError(Reason.INVALID, message)
    if any(length < 0 for length in shape):
        message = f"input {name}: a shape has no negative lengths; found {list(shape)}"
        raise RefusalError(Reason.INVALID, message)
    return DTYPES[datatype]


def from_bytes(name: str, datatype: str, shape: Sequence[int], data: bytes | memoryview) -> NDArray[Any]:
    """Return the array of a tensor in raw bytes, of which it is a view where possible.

    Raises
    ------
    RefusalError
        If the number of bytes is not that of datatype and shape, or a BOOL is neither 0 nor 1.
    """
    dtype = check_tensor(name, datatype, shape)
    expected = math.prod(shape) * dtype.itemsize
    if len(data) != expected:
        message = f"input {name}: wrong number of bytes; found {len(data)}; expected {expected} for {datatype}"
        raise RefusalError(Reason.INVALID, f"{message} {list(shape)}")
    if dtype == np.bool_ and expected and np.frombuffer(data, np.uint8).max() > 1:
        raise RefusalError(Reason.INVALID, f"input {name}: a BOOL is a byte 0 or 1")
    return np.frombuffer(data, dtype.newbyteorder("<")).reshape(shape)


def to_bytes(array: NDArray[Any]) -> bytes | memoryview:
    """Return the raw bytes of an array."""
    if sys.byteorder == "big":
        array = array.astype(array.dtype.newbyteorder("<"))
    contiguous = np.ascontiguousarray(array)
    return contiguous.data.cast("B") if contiguous.size else b""


def from_list(name: str, datatype: str, shape: Sequence[int], data: Sequence[Any]) -> NDArray[Any]:
    """Return the array of a tensor given as numbers, flat in C order or nested as its shape.

    Raises
    ------
    RefusalError
        If the numbers are not as many as in the shape, or not values of the datatype, or the protocol represents it
        as raw bytes only.
    """
    dtype = check_tensor(name, datatype, shape)
    if datatype in RAW_ONLY:
        raise RefusalError(Reason.INVALID, f"input {name}: {datatype} is sent as binary data only")
    flat = _flattened(name, shape, data)
    types = set(map(type, flat))
    allowed = {bool} if dtype.kind == "b" else {int, float} if dtype.kind == "f" else {int}
    if not types <= allowed:
        found = ", ".join(sorted(kind.__name__ for kind in types - allowed))
        raise RefusalError(Reason.INVALID, f"input {name}: not values of {datatype}; found {found}")
    if dtype.kind in "iu" and flat:
        limits = np.iinfo(dtype)
        if min(flat) < limits.min or max(flat) > limits.max:
            message = f"input {name}: out of range; found {min(flat)} to {max(flat)}"
            raise RefusalError(Reason.INVALID, f"{message}; expected {limits.min} to {limits.max}")
    try:
        with np.errstate(over="ignore"):
            array = np.array(flat, dtype)
    except OverflowError:  # an integer that no float can hold
        array = np.array([math.inf])
    if dtype.kind == "f" and not np.isfinite(array).all():
        message = f"input {name}: a number that JSON or {datatype} cannot hold; send binary data"
        raise RefusalError(Reason.INVALID, message)
    return array.reshape(shape)


def _flattened(name: str, shape: Sequence[int], data: Sequence[Any]) -> Sequence[Any]:
    flat, axis = data, 0
    while flat and type(flat[0]) is list:
        axis += 1
        lengths = {len(part) if type(part) is list else -1 for part in flat}
        if axis >= len(shape) or lengths != {shape[axis]}:
            message = f"input {name}: the data is not nested as its shape; expected {list(shape)}"
            raise RefusalError(Reason.INVALID, message)
        flat = list(itertools.chain.from_iterable(flat))
    if len(flat) != math.prod(shape):
        message = f"input {name}: wrong number of values; found {len(flat)}; expected {math.prod(shape)}"
        raise RefusalError(Reason.INVALID, f"{message} for {list(shape)}")
    return flat


def to_list(name: str, array: NDArray[Any]) -> list[Any]:
    """Return the values of an array, flat in C order.

    Raises
    ------
    RefusalError
        If JSON cannot hold them.
    """
    datatype = DATATYPES[array.dtype.name]
    if datatype in RAW_ONLY:
        raise RefusalError(Reason.INVALID, f"output {name}: {datatype} is returned as binary data only: ask for it")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        message = f"output {name}: it has values that are no numbers, which JSON cannot hold; ask for binary data"
        raise RefusalError(Reason.INVALID, message)
    flat: list[Any] = array.ravel().tolist()
    return flat
