"""Frames: messages with tensors, and how they look on the wire.

A frame is a JSON header and the raw bytes of its tensors, one after the other; nothing is ever unpickled. The header
names the version of the format, the kind of message, and dtype and shape of each tensor.
"""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from planner.errors import ExecuteError
from planner.execution.wire.messages import Body

VERSION: Final = 1

_DTYPES: Final = frozenset(
    ["bool", "float16", "float32", "float64"]
    + [f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)]
)


@dataclass(frozen=True, slots=True)
class _Tensor:
    __pydantic_config__ = ConfigDict(extra="forbid")
    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Header:
    """A data class, since one is made for each frame, and of a model that takes several times as long."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    v: int
    body: Annotated[Body, Field(discriminator="kind")]
    tensors: tuple[_Tensor, ...] = ()


_BUILDING: Final = threading.Lock()


@functools.cache
def _headers() -> TypeAdapter[_Header]:
    with _BUILDING:
        return TypeAdapter(_Header)


def prepare() -> None:
    """Build what makes, reads and writes messages; it takes a moment, which a member has before the first one comes."""
    _headers()
    with _BUILDING:
        for body in get_args(Body):
            body.model_rebuild()


Tensors: TypeAlias = Mapping[str, NDArray[Any]]

Payload: TypeAlias = bytes | memoryview
"""The bytes of a frame's tensors, one after the other."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A message with its tensors."""

    body: Body
    tensors: Tensors = field(default_factory=dict)
    sender: str = ""
    """Who sent it, as the transport says; empty on a frame that has not travelled yet."""
    arrived_s: float = 0.0
    """When it came, by this process's monotonic clock and before it waited for anybody."""


@functools.cache
def _dtype_name(dtype: np.dtype[Any]) -> str:
    return dtype.name


def encode(frame: Frame) -> tuple[bytes, Payload]:
    """Give header and payload of a frame; the payload of a single tensor is a view of it."""
    arrays = {name: np.asarray(tensor, order="C") for name, tensor in frame.tensors.items()}
    specs = tuple(_Tensor(name, _dtype_name(array.dtype), array.shape) for name, array in arrays.items())
    pieces = [array.data.cast("B") for array in arrays.values() if array.size]
    header = _headers().dump_json(_Header(VERSION, frame.body, specs), by_alias=False)
    return header, pieces[0] if len(pieces) == 1 else b"".join(pieces)


def decode(header: bytes, payload: Payload, sender: str = "", arrived_s: float = 0.0) -> Frame:
    """Read what :func:`encode` wrote and ``sender`` sent; the tensors are read-only views of ``payload``.

    Raises
    ------
    ExecuteError
        Another version, a malformed header, a dtype that does not travel, or a payload of the wrong size.
    """
    try:
        parsed = _headers().validate_json(header)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ExecuteError(f"malformed header: {first['msg']}", where=where or "header") from error
    if parsed.v != VERSION:
        raise ExecuteError("another wire format", where="header", value=parsed.v, expected=f"version {VERSION}")
    tensors: dict[str, NDArray[Any]] = {}
    offset = 0
    for spec in parsed.tensors:
        if spec.dtype not in _DTYPES or min(spec.shape, default=0) < 0:
            raise ExecuteError("a tensor that cannot travel", where=spec.name, value=f"{spec.dtype} {spec.shape}")
        dtype = np.dtype(spec.dtype)
        count = math.prod(spec.shape)
        end = offset + count * dtype.itemsize
        if end > len(payload):
            break
        tensors[spec.name] = np.frombuffer(payload, dtype, count, offset).reshape(spec.shape)
        offset = end
    if offset != len(payload) or len(tensors) != len(parsed.tensors):
        raise ExecuteError("the payload has another size than its header says", where="frame", value=len(payload))
    return Frame(parsed.body, tensors, sender, arrived_s)
