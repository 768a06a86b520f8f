"""Block models: a run of a line's nodes as a self-contained ONNX model.

The model is put together from serialised pieces, so that weights are copied once, straight into the result, and the
same run gives the same bytes each time.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx
from onnx import TensorProto, helper

from planner.errors import ModelError
from planner.model.graph import Node
from planner.model.line import Line
from planner.model.shapes import Shapes
from planner.model.source import ModelSource

# ONNX models are protobuf messages: these field numbers are part of the format.
MODEL_GRAPH = onnx.ModelProto.DESCRIPTOR.fields_by_name["graph"].number
GRAPH_FIELDS = {name: field.number for name, field in onnx.GraphProto.DESCRIPTOR.fields_by_name.items()}
PROTOBUF_LIMIT_BYTES = 2**31 - 1
SUMS = frozenset({"Add", "Sum"})
LENGTH_BYTES = 5  # holds any length below the limit, so it can be filled in afterwards


@dataclass(frozen=True)
class Part:
    """What a run of nodes needs and makes.

    Parameters
    ----------
    nodes
        Its work and the free nodes it uses, in the order in which they run.
    weights
        Names of the initializers and fixed shapes it uses.
    inputs
        The tensors it uses of those that cross the cut before it.
    outputs
        The tensors it makes of those that cross the cut behind it, then the exits it makes.
    """

    nodes: tuple[Node, ...]
    weights: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def select(line: Line, first: int, last: int) -> Part:
    """Give the part of a line between cut ``first`` and cut ``last``."""
    graph = line.graph
    before = line.alive[first]
    given = set(before)
    outputs = [name for name in line.alive[last] if name not in given]
    outputs += [name for name, cut in line.exits.items() if first < cut <= last]
    nodes = {node.index: node for node in line.order[first:last]}
    stack = [*outputs, *(name for node in nodes.values() for name in node.inputs)]
    used: set[str] = set()
    while stack:
        name = stack.pop()
        if name in used:
            continue
        used.add(name)
        node = graph.maker.get(name)
        if name not in given and name not in graph.weights and node is not None and node.index not in nodes:
            nodes[node.index] = node
            stack.extend(node.inputs)
    return Part(
        nodes=tuple(sorted(nodes.values(), key=line.rank)),
        weights=tuple(name for name in graph.weights if name in used and name not in given),
        inputs=tuple(name for name in before if name in used),
        outputs=tuple(outputs),
    )


def serialise(source: ModelSource, line: Line, shapes: Shapes, part: Part, name: str) -> bytes:
    """Write a part as an ONNX model of its own.

    Raises
    ------
    ModelError
        If it is larger than an ONNX file can be.
    """
    frame = onnx.ModelProto(ir_version=max(source.proto.ir_version, 4), opset_import=source.proto.opset_import)
    frame.producer_name = "planner"
    buffer = io.BytesIO()  # gives its contents without a copy
    buffer.write(frame.SerializeToString(deterministic=True))
    buffer.write(_varint(MODEL_GRAPH << 3 | 2))
    length_at = buffer.tell()
    buffer.write(bytes(LENGTH_BYTES))
    for field, message in _pieces(source, line, shapes, part, name):
        data = message if isinstance(message, bytes) else message.SerializeToString(deterministic=True)
        buffer.write(_varint(GRAPH_FIELDS[field] << 3 | 2) + _varint(len(data)))
        buffer.write(data)
    size = buffer.tell()
    if size > PROTOBUF_LIMIT_BYTES:
        raise ModelError("is larger than an ONNX file can be", where=name, value=size, expected="more, smaller blocks")
    buffer.seek(length_at)
    buffer.write(_varint(size - length_at - LENGTH_BYTES, LENGTH_BYTES))
    return buffer.getvalue()


def _pieces(
    source: ModelSource, line: Line, shapes: Shapes, part: Part, name: str
) -> Iterator[tuple[str, onnx.NodeProto | TensorProto | onnx.SparseTensorProto | onnx.ValueInfoProto | bytes]]:
    blocked = _blocked(line, part)
    for given, pooled in blocked.items():
        yield "node", helper.make_node("AveragePool", [given], [pooled], kernel_shape=[1, 1])
    for node in part.nodes:
        proto = source.embedded_node(node.proto)
        yield "node", _reading(proto, blocked) if proto.op_type in SUMS else proto
    yield "name", name.encode()
    for weight in part.weights:
        tensor = line.graph.weights[weight]
        if isinstance(tensor, TensorProto):
            yield "initializer", source.embedded(tensor)
        else:
            yield "sparse_initializer", tensor
    for field, names in (("input", part.inputs), ("output", part.outputs)):
        for tensor_name in names:
            yield field, onnx.ValueInfoProto(name=tensor_name, type=shapes.type_of(tensor_name))


def _blocked(line: Line, part: Part) -> dict[str, str]:
    """Give the inputs that need onnxruntime's blocked layout (NCHWc) for a sum, each with a name for it in that layout.

    A convolution takes in the sum behind it, as in a residual network, only if the other summand has that layout. What
    enters a block has not, but what a pooling makes has: so the shortcut is pooled, over one element, which keeps it as
    it is.
    """
    convolved = any(node.proto.op_type == "Conv" for node in part.nodes)
    summands = {name for node in part.nodes if node.proto.op_type in SUMS for name in node.proto.input}
    return {
        name: f"{name}/blocked"
        for name in part.inputs
        if convolved and name in summands and line.specs[name].dtype == "float32" and len(line.specs[name].shape) == 4
    }


def _reading(node: onnx.NodeProto, names: Mapping[str, str]) -> onnx.NodeProto:
    """Give a copy of the node that reads the tensors of other names."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.input[:] = [names.get(name, name) for name in node.input]
    return copy


def _varint(value: int, width: int = 1) -> bytes:
    """Give a number in at least ``width`` groups of seven bits, least significant first, all but the last marked."""
    out = bytearray()
    while value > 0x7F or len(out) < width - 1:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
