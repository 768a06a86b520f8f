"""Block models joined to one model, so that one session runs consecutive blocks.

Block models of one chain share the names of its tensors, so their nodes need only stand one after the other. What
several blocks have a copy of is there once. The serialised pieces are taken as they are: nothing of the weights is
copied before the result is written, and agents need no library for ONNX.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias

from planner.errors import ModelError
from planner.model.chain import STATE_METADATA

Buffer: TypeAlias = bytes | memoryview

LIMIT_BYTES: Final = 2**31 - 1
"""Largest size of an ONNX file, which is a protobuf message."""

POOLED: Final = "/blocked"
"""What the name of a tensor ends with that :func:`planner.model.extract.pooled_inputs` has made of another."""

# Numbers of the fields of ModelProto, GraphProto, NodeProto, TensorProto and their parts: part of the ONNX format.
_GRAPH, _MODEL_METADATA = 7, 14
_NODE, _NAME, _INITIALIZER, _INPUT, _OUTPUT, _SPARSE, _METADATA = 1, 2, 5, 11, 12, 15, 16
_NODE_INPUT, _NODE_OUTPUT, _OP_TYPE, _ATTRIBUTE = 1, 2, 4, 5
_TENSOR_NAME, _VALUE_NAME, _SPARSE_VALUES, _KEY = 8, 1, 1, 1
_OF_POOLING: Final = (_NODE_INPUT, _NODE_OUTPUT, _OP_TYPE, _ATTRIBUTE)
_NUMBER, _BYTES = 0, 2
_FIXED: Final = {1: 8, 5: 4}
"""Kinds of fields: numbers of varying length, bytes with their length before them, numbers of so many bytes."""
_ONE_BY_ONE: Final = b"\x0a\x0ckernel_shape\x40\x01\x40\x01\xa0\x01\x07"
"""The attribute ``kernel_shape=[1, 1]``."""


class _Field(NamedTuple):
    """A field of a message: its number, its content (empty for plain numbers), and both as they are serialised."""

    number: int
    content: memoryview
    whole: memoryview


def join_blocks(models: Sequence[Buffer], outputs: Collection[str]) -> list[Buffer]:
    """Return consecutive block models of a chain as one model, in pieces to be written one after the other.

    Parameters
    ----------
    models
        Serialised block models, in order. The result refers to their memory.
    outputs
        Names of the tensors that the result is to return, if it makes them: those of the cut behind the last block.

    Raises
    ------
    ModelError
        If the blocks keep state, or the result would exceed the size limit of an ONNX file.
    """
    whole = [list(_fields(memoryview(model))) for model in models]
    if any(_keeps_state(fields) for fields in whole):
        raise ModelError("blocks that keep state are not joined", where="blocks")
    joined = _Joined(frozenset(outputs))
    for fields in whole:
        for field in fields:
            if field.number == _GRAPH:
                joined.add(field.content)
    frame = [field.whole for field in whole[0] if field.number != _GRAPH]
    size = sum(map(len, joined.pieces))
    if sum(map(len, frame)) + size > LIMIT_BYTES - 16:
        raise ModelError("exceeds the size limit of an ONNX file", where="blocks", value=size, expected="fewer blocks")
    return [*frame, _head(_GRAPH, size), *joined.pieces]


class _Joined:
    """The graph of the result; blocks are added in order."""

    def __init__(self, outputs: frozenset[str]) -> None:
        self.pieces: list[Buffer] = []
        self._outputs = outputs
        self._made: set[str] = set()
        self._given: set[str] = set()
        self._weights: set[str] = set()
        self._returned: set[str] = set()
        self._begun = False

    def add(self, graph: memoryview) -> None:
        """Add the graph of the next block."""
        fields = list(_fields(graph))
        nodes = [list(_fields(field.content)) for field in fields if field.number == _NODE]
        unpooled = dict(pair for node in nodes if (pair := _pooled(node)) and pair[1] in self._made)
        for node in nodes:
            self._add_node(node, unpooled)
        for field in fields:
            if field.number != _NODE and self._wants(field):
                self.pieces.append(field.whole)
        self._begun = True

    def _add_node(self, node: Sequence[_Field], unpooled: Mapping[str, str]) -> None:
        outputs = {_name(field.content) for field in node if field.number == _NODE_OUTPUT} - {""}
        if outputs <= self._made | self._given | unpooled.keys():  # a copy, as of shape arithmetic
            return
        self._made |= outputs
        pieces = [_renamed(field, unpooled) if field.number == _NODE_INPUT else field.whole for field in node]
        self.pieces += [_head(_NODE, sum(map(len, pieces))), *pieces]

    def _wants(self, field: _Field) -> bool:
        """Return whether the result has a field that is no node."""
        if field.number == _INITIALIZER:
            return _is_new(_text(field.content, _TENSOR_NAME), self._weights)
        if field.number == _SPARSE:
            (values,) = (part.content for part in _fields(field.content) if part.number == _SPARSE_VALUES)
            return _is_new(_text(values, _TENSOR_NAME), self._weights)
        if field.number == _INPUT:
            name = _text(field.content, _VALUE_NAME)
            return name not in self._made and _is_new(name, self._given)
        if field.number == _OUTPUT:
            name = _text(field.content, _VALUE_NAME)
            return name in self._outputs and _is_new(name, self._returned)
        return not self._begun or field.number not in {_NAME, _METADATA}


def _is_new(name: str, known: set[str]) -> bool:
    """Return whether a name is not known yet; then it is."""
    new = name not in known
    known.add(name)
    return new


def _pooled(node: Sequence[_Field]) -> tuple[str, str] | None:
    """Return the name of a pooled copy and that of its original, if the node makes one; None for all others."""
    of = {number: [field.content for field in node if field.number == number] for number in _OF_POOLING}
    if of[_OP_TYPE] != [b"AveragePool"] or of[_ATTRIBUTE] != [_ONE_BY_ONE]:
        return None
    (original,), (copy,) = ([_name(name) for name in of[kind]] for kind in (_NODE_INPUT, _NODE_OUTPUT))
    return (copy, original) if copy == original + POOLED else None


def _renamed(field: _Field, names: Mapping[str, str]) -> Buffer:
    name = _name(field.content)
    if name not in names:
        return field.whole
    encoded = names[name].encode(errors="surrogateescape")
    return _head(field.number, len(encoded)) + encoded


def _keeps_state(model: Sequence[_Field]) -> bool:
    entries = (field.content for field in model if field.number == _MODEL_METADATA)
    return any(_text(entry, _KEY) == STATE_METADATA for entry in entries)


def _text(message: memoryview, number: int) -> str:
    """Return a text field of a message; empty if it has none."""
    return next((_name(field.content) for field in _fields(message) if field.number == number), "")


def _name(content: memoryview) -> str:
    return str(content, "utf-8", "surrogateescape")


def _fields(message: memoryview) -> Iterator[_Field]:
    """Yield the fields of a serialised message."""
    at = 0
    while at < len(message):
        begin = at
        tag, at = _varint(message, at)
        kind = tag & 7
        start = at
        if kind == _BYTES:
            length, start = _varint(message, at)
            at = start + length
        elif kind == _NUMBER:
            start = at = _varint(message, at)[1]
        elif kind in _FIXED:
            start = at = at + _FIXED[kind]
        else:
            at = len(message) + 1
        if at > len(message):
            raise ModelError("not an ONNX model", where="blocks", value=f"a field of kind {kind}", expected="protobuf")
        yield _Field(tag >> 3, message[start:at], message[begin:at])


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """Return a number in groups of seven bits, the least significant first, and where it ends."""
    value = 0
    for place, byte in enumerate(message[at : at + 10]):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, at + place + 1
    raise ModelError("not an ONNX model", where="blocks", value="a number without an end", expected="protobuf")


def _head(number: int, length: int) -> bytes:
    """Return what precedes the content of a field: its number and its length."""
    out = bytearray()
    for value in (number << 3 | _BYTES, length):
        left = value
        while left > 0x7F:
            out.append(left & 0x7F | 0x80)
            left >>= 7
        out.append(left)
    return bytes(out)
