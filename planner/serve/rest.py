"""Requests and responses of the REST protocol: JSON with tensors as numbers, or as binary data after the JSON."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeAlias

from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from planner.serve.gateway import VERSION, InferenceRequest
from planner.serve.refusals import Reason, RefusalError
from planner.serve.tensors import DATATYPES, from_bytes, from_list, to_bytes, to_list

HEADER_LENGTH: Final = "Inference-Header-Content-Length"
"""Header with the length of the JSON, where binary data follows it."""

Parameters: TypeAlias = dict[str, bool | int | float | str | None]
_Length: TypeAlias = Annotated[int, Field(ge=0, lt=2**62)]

_WBITS: Final = {"gzip": 31, "deflate": 15}
"""Windows of zlib by the name of the encoding; a deflated body has zlib's header, as HTTP wants it."""


class _Model(BaseModel):
    model_config = ConfigDict(strict=True, defer_build=True)

    name: str
    parameters: Parameters = {}


class _Input(_Model):
    datatype: str
    shape: list[_Length]
    data: list[Any] | None = None


class _Request(BaseModel):
    model_config = ConfigDict(strict=True, defer_build=True)

    id: str = ""
    parameters: Parameters = {}
    inputs: list[_Input]
    outputs: list[_Model] | None = None


_REQUEST: Final = TypeAdapter(_Request)


@dataclass(frozen=True)
class ReadRequest:
    """A request with the form in which each output is wanted."""

    request: InferenceRequest
    binary: Mapping[str, bool]
    """Whether an output is wanted as binary data; others by ``binary_by_default``."""
    binary_by_default: bool


@dataclass(frozen=True)
class Response:
    """Body of a response, and its headers."""

    body: bytes
    headers: Mapping[str, str]


def decompressed(body: bytes, encoding: str, limit_bytes: int) -> bytes:
    """Return a body without its encoding.

    Raises
    ------
    RefusalError
        If the encoding is not supported, the body is not in it, or it is larger than the limit.
    """
    if encoding in {"", "identity"}:
        return body
    if encoding not in _WBITS:
        message = f"unsupported Content-Encoding; found {encoding!r}; expected gzip or deflate"
        raise RefusalError(Reason.ENCODING, message)
    reader = zlib.decompressobj(_WBITS[encoding])
    try:
        plain = reader.decompress(body, limit_bytes + 1)
    except zlib.error as error:
        raise RefusalError(Reason.INVALID, f"the body is not in {encoding}: {error}") from error
    if len(plain) > limit_bytes:
        raise too_large(limit_bytes)
    if not reader.eof or reader.unused_data:
        raise RefusalError(Reason.INVALID, f"the body is not one complete {encoding} stream")
    return plain


def compressed(response: Response, accepted: str) -> Response:
    """Return a response in the encoding that the client asks for.

    A client that lists several, as most libraries do by themselves, gets the body as it is, which is faster: tensors
    hardly shrink.
    """
    encoding = accepted.strip().lower()
    if encoding not in _WBITS:
        return response
    writer = zlib.compressobj(level=1, wbits=_WBITS[encoding])
    body = writer.compress(response.body) + writer.flush()
    return Response(body, {**response.headers, "Content-Encoding": encoding, "Vary": "Accept-Encoding"})


def too_large(limit_bytes: int) -> RefusalError:
    """Return the refusal of a body that is larger than any request of the model."""
    return RefusalError(Reason.TOO_LARGE, f"the request is too large; expected at most {limit_bytes} bytes")


def read_request(model: str, version: str, body: bytes, header_length: str | None, received_s: float) -> ReadRequest:
    """Read the body of an inference request.

    Raises
    ------
    RefusalError
        If it does not follow the protocol, or asks for what this service does not offer.
    """
    length = _header_length(header_length, len(body))
    try:
        parsed = _REQUEST.validate_json(body[:length])
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "request"
        raise RefusalError(Reason.INVALID, f"not an inference request: {place}: {first['msg']}") from error
    binary = memoryview(body)[length:]
    inputs: dict[str, NDArray[Any]] = {}
    offset = 0
    for entry in parsed.inputs:
        refuse_shared_memory(f"input {entry.name}", entry.parameters)
        if entry.name in inputs:
            raise RefusalError(Reason.INVALID, f"input {entry.name}: it is there twice")
        size = entry.parameters.get("binary_data_size")
        if size is None:
            inputs[entry.name] = from_list(entry.name, entry.datatype, entry.shape, entry.data or [])
            continue
        if entry.data is not None or type(size) is not int or not 0 <= size <= len(binary) - offset:
            message = f"input {entry.name}: binary_data_size is not that of binary data in the body; found {size!r}"
            raise RefusalError(Reason.INVALID, message)
        inputs[entry.name] = from_bytes(entry.name, entry.datatype, entry.shape, binary[offset : offset + size])
        offset += size
    if offset != len(binary):
        message = f"the binary data is longer than its inputs; found {len(binary)} bytes; expected {offset}"
        raise RefusalError(Reason.INVALID, message)
    return _with_parameters(model, version, parsed, inputs, received_s)


def _with_parameters(
    model: str, version: str, parsed: _Request, inputs: Mapping[str, NDArray[Any]], received_s: float
) -> ReadRequest:
    outputs = parsed.outputs or None
    for entry in outputs or ():
        check_output(entry.name, entry.parameters)
    priority, timeout_us = request_options(parsed.parameters)
    names = [entry.name for entry in outputs] if outputs else None
    request = InferenceRequest(model, version, parsed.id, inputs, names, priority, timeout_us, received_s)
    binary = {entry.name: _flag(entry.parameters, "binary_data") for entry in outputs or ()}
    known = {name: wish for name, wish in binary.items() if wish is not None}
    return ReadRequest(request, known, _flag(parsed.parameters, "binary_data_output") or False)


def request_options(parameters: Mapping[str, object]) -> tuple[int, float]:
    """Return priority and timeout in microseconds of a request's parameters; both 0 by default.

    Raises
    ------
    RefusalError
        If one is not a whole number, or the request is part of a sequence.
    """
    if parameters.get("sequence_id"):
        raise RefusalError(Reason.UNSUPPORTED, "sequences are not offered: each request stands for itself")
    values = []
    for name in ("priority", "timeout"):
        value = parameters.get(name)
        if value is None:
            value = 0
        if type(value) is not int or not 0 <= value < 2**63:
            raise RefusalError(Reason.INVALID, f"parameter {name}: not a whole number from 0; found {value!r}")
        values.append(value)
    return values[0], float(values[1])


def check_output(name: str, parameters: Mapping[str, object]) -> None:
    """Refuse what this service does not offer for an output.

    Raises
    ------
    RefusalError
        If the output is wanted in shared memory, or as classification.
    """
    refuse_shared_memory(f"output {name}", parameters)
    if parameters.get("classification"):
        raise RefusalError(Reason.UNSUPPORTED, f"output {name}: classification is not offered; ask for the tensor")


def refuse_shared_memory(where: str, parameters: Mapping[str, object]) -> None:
    """Refuse a tensor in shared memory.

    Raises
    ------
    RefusalError
        If the parameters name a region.
    """
    if any(key.startswith("shared_memory_") for key in parameters):
        raise RefusalError(
            Reason.UNSUPPORTED, f"{where}: shared memory is not offered; send and receive the data itself"
        )


def _header_length(text: str | None, total: int) -> int:
    if text is None:
        return total
    if not (text.isascii() and text.isdigit() and int(text) <= total):
        message = f"{HEADER_LENGTH} is not the length of the JSON in the body; found {text!r}; expected 0 to {total}"
        raise RefusalError(Reason.INVALID, message)
    return int(text)


def _flag(parameters: Parameters, name: str) -> bool | None:
    value = parameters.get(name)
    if value is not None and type(value) is not bool:
        raise RefusalError(Reason.INVALID, f"parameter {name}: not true or false; found {value!r}")
    return value


def write_response(read: ReadRequest, outputs: Mapping[str, NDArray[Any]]) -> Response:
    """Return the response to a request.

    Raises
    ------
    RefusalError
        If an output cannot be returned as it is wanted.
    """
    entries: list[dict[str, Any]] = []
    pieces: list[bytes | memoryview] = []
    for name, array in outputs.items():
        entry: dict[str, Any] = {"name": name, "datatype": DATATYPES[array.dtype.name], "shape": list(array.shape)}
        if read.binary.get(name, read.binary_by_default):
            entry["parameters"] = {"binary_data_size": array.nbytes}
            pieces.append(to_bytes(array))
        else:
            entry["data"] = to_list(name, array)
        entries.append(entry)
    request = read.request
    document = {"model_name": request.model, "model_version": VERSION, "outputs": entries}
    if request.id:
        document["id"] = request.id
    head = json.dumps(document, allow_nan=False, separators=(",", ":")).encode()
    if not any("parameters" in entry for entry in entries):
        return Response(head, {"Content-Type": "application/json"})
    headers = {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(len(head))}
    return Response(b"".join([head, *pieces]), headers)


def tensors_document(specs: Sequence[Any]) -> list[dict[str, Any]]:
    """Return the metadata of tensors."""
    return [{"name": spec.name, "datatype": DATATYPES[spec.dtype], "shape": list(spec.shape)} for spec in specs]
