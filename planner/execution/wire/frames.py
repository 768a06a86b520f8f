"""Frames: messages with tensors, and their format on the wire.

A frame consists of a JSON header and the raw bytes of its tensors, one after the other; nothing is ever unpickled. The
header contains the version of the format, the message, and the name, dtype and shape of each tensor.
"""

from __future__ import annotations

import functools
import math
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from planner.errors import ExecuteError
from planner.execution.wire.messages import Body
from planner.formats.json import parse_json
from planner.runtime.arrays import native

VERSION: Final = 4
"""Version of the messages and their format; members of different versions do not understand each other."""

_DTYPES: Final = frozenset(
    ["bool", "float16", "float32", "float64"]
    + [f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)]
)

_MAX_AXES: Final = 32
"""Axes of an array in every supported version of NumPy."""

_MAX_ITEMS: Final = 2**59
"""More items of eight bytes would be more bytes than an array can have."""

_LARGE_EXPONENT: Final = re.compile(rb"[eE]\+?\d{3}")
_LONG_NUMBER: Final = re.compile(rb"\d{300}")


@dataclass(frozen=True, slots=True)
class _Tensor:
    __pydantic_config__ = ConfigDict(extra="forbid")
    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Header:
    """The header of a frame; a dataclass, since creating a pydantic model per frame takes several times as long."""

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
    """Build validators and serializers of all messages, so that the first message is not delayed by that."""
    _headers()
    with _BUILDING:
        for body in get_args(Body):
            body.model_rebuild()


Tensors: TypeAlias = Mapping[str, NDArray[Any]]

Payload: TypeAlias = bytes | memoryview
"""Concatenated bytes of a frame's tensors."""


def address_of(member: str, process: str) -> str:
    """Return the address of one process of a member; its name where the transport tells no processes apart."""
    return f"{member}/{process}" if process else member


@dataclass(frozen=True, slots=True)
class Frame:
    """A message with its tensors."""

    body: Body
    tensors: Tensors = field(default_factory=dict)
    sender: str = ""
    """The sender by the transport's account; empty on an outbound frame."""
    process: str = ""
    """Which of the members of the sender's name has sent it, as the sender by the transport's account."""
    arrived_s: float = 0.0
    """Arrival by this process's monotonic clock, before any queueing here."""

    @property
    def origin(self) -> str:
        """The address of the sender, to which an answer goes."""
        return address_of(self.sender, self.process)


def _sendable(name: str, tensor: NDArray[Any]) -> NDArray[Any]:
    """Return a tensor in C order and native byte order, which its header takes for granted."""
    array = native(tensor)
    if _dtype_name(array.dtype) not in _DTYPES:
        expected = f"one of {', '.join(sorted(_DTYPES))}"
        raise ExecuteError(
            "a tensor of a dtype that cannot be sent", where=name, value=str(array.dtype), expected=expected
        )
    return array


@functools.cache
def _dtype_name(dtype: np.dtype[Any]) -> str:
    return dtype.name


def encode(frame: Frame) -> tuple[bytes, Payload]:
    """Return header and payload of a frame; the payload of a single tensor is a view of it.

    Raises
    ------
    ExecuteError
        The dtype of a tensor cannot be sent.
    """
    arrays = {name: _sendable(name, tensor) for name, tensor in frame.tensors.items()}
    specs = tuple(_Tensor(name, _dtype_name(array.dtype), array.shape) for name, array in arrays.items())
    pieces = [array.data.cast("B") for array in arrays.values() if array.size]
    header = _headers().dump_json(_Header(VERSION, frame.body, specs), by_alias=False)
    return header, pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _is_possible(shape: tuple[int, ...]) -> bool:
    """Return whether an array can have this shape, even if it is empty: NumPy counts its other axes, too."""
    return len(shape) <= _MAX_AXES and min(shape, default=0) >= 0 and math.prod(map(_one_or_more, shape)) < _MAX_ITEMS


def _one_or_more(size: int) -> int:
    return max(size, 1)


def _maybe_infinite(header: bytes) -> bool:
    """Return whether a header needs a closer look: it does if it has a number that is not finite, but few others do."""
    # One pattern with all of these takes three times as long.
    return (
        b"NaN" in header
        or b"Infinity" in header
        or _LARGE_EXPONENT.search(header) is not None
        or _LONG_NUMBER.search(header) is not None
    )


def decode(header: bytes, payload: Payload, sender: str = "", process: str = "", arrived_s: float = 0.0) -> Frame:
    """Decode a frame of :func:`encode`; its tensors are read-only views of ``payload``.

    Raises
    ------
    ExecuteError
        Unsupported version, malformed header, dtype that cannot be sent, or payload of the wrong size.
    """
    try:
        if _maybe_infinite(header):
            parse_json(header)
    except ValueError as error:
        raise ExecuteError(f"malformed header: {error}", where="header") from error
    try:
        parsed = _headers().validate_json(header)
    except ValidationError as error:
        _refuse_version(header)
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ExecuteError(f"malformed header: {first['msg']}", where=where or "header") from error
    if parsed.v != VERSION:
        raise unlike_version("header", parsed.v)
    tensors: dict[str, NDArray[Any]] = {}
    offset = 0
    for spec in parsed.tensors:
        if spec.dtype not in _DTYPES or not _is_possible(spec.shape):
            raise ExecuteError("a tensor that cannot be sent", where=spec.name, value=f"{spec.dtype} {spec.shape}")
        dtype = np.dtype(spec.dtype)
        count = math.prod(spec.shape)
        end = offset + count * dtype.itemsize
        if end > len(payload):
            break
        tensors[spec.name] = np.frombuffer(payload, dtype, count, offset).reshape(spec.shape)
        offset = end
    if offset != len(payload) or len(tensors) != len(parsed.tensors):
        raise ExecuteError("the size of the payload does not match its header", where="frame", value=len(payload))
    return Frame(parsed.body, tensors, sender, process, arrived_s)


def _refuse_version(header: bytes) -> None:
    """Refuse a header of another version, which need not have the fields of this one."""
    try:
        version = parse_json(header).get("v")
    except (ValueError, AttributeError):
        return
    if isinstance(version, int) and version != VERSION:
        raise unlike_version("header", version)


def unlike_version(where: str, version: int) -> ExecuteError:
    """Return the error that a member speaks another version of the wire format."""
    return ExecuteError(
        "another version of the wire format",
        where=where,
        value=version,
        expected=f"{VERSION}; install the same version of planner on all devices",
    )
