"""Block models: consecutive nodes of a line as a self-contained ONNX model.

The model is assembled from serialised pieces, so that weights are copied only once, directly into the result. The same
nodes always produce the same bytes.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx
from onnx import TensorProto, helper

from planner.errors import ModelError
from planner.model.graph import Node
from planner.model.line import WorkOrder
from planner.model.shapes import Shapes
from planner.model.source import ModelSource
from planner.model.state import metadata, pairs_of

# ONNX models are protobuf messages; these field numbers are part of the format.
MODEL_GRAPH = onnx.ModelProto.DESCRIPTOR.fields_by_name["graph"].number
GRAPH_FIELDS = {name: field.number for name, field in onnx.GraphProto.DESCRIPTOR.fields_by_name.items()}
PROTOBUF_LIMIT_BYTES = 2**31 - 1
SUMS = frozenset({"Add", "Sum"})
LENGTH_BYTES = 5  # enough for any length below the limit, so that the length can be filled in afterwards


@dataclass(frozen=True)
class Subgraph:
    """Consecutive nodes of a line with the tensors that they need and produce.

    Parameters
    ----------
    nodes
        The work nodes and the free nodes that they use, in execution order.
    weights
        Names of the initializers and fixed shapes used.
    inputs
        Tensors used of those that cross the cut before the part, followed by the state before a run.
    outputs
        Tensors produced of those that cross the cut after the part, followed by the exits and the state produced.
    state
        The inputs that are state.
    """

    nodes: tuple[Node, ...]
    weights: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    state: tuple[str, ...] = ()


def extract_subgraph(line: WorkOrder, first: int, last: int) -> Subgraph:
    """Return the part of a line between cut ``first`` and cut ``last``."""
    graph = line.graph
    crossing, state = line.alive[first], line.state_in(first, last)
    available = {*crossing, *state}
    outputs = [name for name in line.alive[last] if name not in available]
    outputs += [name for name, cut in line.exits.items() if first < cut <= last]
    outputs += [after for before in state if (after := graph.state[before]) not in outputs]
    nodes = {node.index: node for node in line.order[first:last]}
    stack = [*outputs, *(name for node in nodes.values() for name in node.inputs)]
    used: set[str] = set()
    while stack:
        name = stack.pop()
        if name in used:
            continue
        used.add(name)
        node = graph.maker.get(name)
        if name not in available and name not in graph.weights and node is not None and node.index not in nodes:
            nodes[node.index] = node
            stack.extend(node.inputs)
    return Subgraph(
        nodes=tuple(sorted(nodes.values(), key=line.rank)),
        weights=tuple(name for name in graph.weights if name in used and name not in available),
        inputs=(*(name for name in crossing if name in used), *state),
        outputs=tuple(outputs),
        state=state,
    )


def serialise(source: ModelSource, line: WorkOrder, shapes: Shapes, part: Subgraph, name: str) -> bytes:
    """Return a part as a self-contained ONNX model.

    Raises
    ------
    ModelError
        If the model exceeds the size limit of an ONNX file.
    """
    frame = onnx.ModelProto(ir_version=max(source.proto.ir_version, 4), opset_import=source.proto.opset_import)
    frame.producer_name = "planner"
    frame.metadata_props.extend(source.proto.metadata_props)
    if part.state:
        frame.metadata_props.append(metadata(pairs_of(shapes, {name: line.graph.state[name] for name in part.state})))
    frame.configuration.extend(source.proto.configuration)
    buffer = io.BytesIO()  # returns its contents without a copy
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
        raise ModelError(
            "exceeds the size limit of an ONNX file", where=name, value=size, expected="more, smaller blocks"
        )
    buffer.seek(length_at)
    buffer.write(_varint(size - length_at - LENGTH_BYTES, LENGTH_BYTES))
    return buffer.getvalue()


def _pieces(
    source: ModelSource, line: WorkOrder, shapes: Shapes, part: Subgraph, name: str
) -> Iterator[
    tuple[
        str,
        onnx.NodeProto
        | TensorProto
        | onnx.SparseTensorProto
        | onnx.ValueInfoProto
        | onnx.StringStringEntryProto
        | bytes,
    ]
]:
    renamed = pooled_inputs(line, part)
    for original, pooled in renamed.items():
        yield "node", helper.make_node("AveragePool", [original], [pooled], kernel_shape=[1, 1])
    for node in part.nodes:
        proto = source.embedded_node(node.proto)
        yield "node", _with_inputs(proto, renamed) if proto.op_type in SUMS else proto
    yield "name", name.encode()
    for entry in source.proto.graph.metadata_props:
        yield "metadata_props", entry
    for weight in part.weights:
        tensor = line.graph.weights[weight]
        if isinstance(tensor, TensorProto):
            yield "initializer", source.embedded(tensor)
        else:
            yield "sparse_initializer", tensor
    for field, names in (("input", part.inputs), ("output", part.outputs)):
        for tensor_name in names:
            yield field, onnx.ValueInfoProto(name=tensor_name, type=shapes.type_of(tensor_name))


def pooled_inputs(line: WorkOrder, part: Subgraph) -> dict[str, str]:
    """Return names for the copies, in onnxruntime's blocked layout (NCHWc), of inputs that a sum needs in that layout.

    onnxruntime fuses a convolution with the sum that follows it, as in a residual network, only if the other summand
    has the blocked layout. Inputs of a block do not have it, but outputs of a pooling do. The shortcut is therefore
    pooled over one element, which leaves its values unchanged.
    """
    has_convolution = any(node.proto.op_type == "Conv" for node in part.nodes)
    summands = {name for node in part.nodes if node.proto.op_type in SUMS for name in node.proto.input}
    return {
        name: f"{name}/blocked"
        for name in part.inputs
        if has_convolution
        and name in summands
        and line.specs[name].dtype == "float32"
        and len(line.specs[name].shape) == 4
    }


def _with_inputs(node: onnx.NodeProto, names: Mapping[str, str]) -> onnx.NodeProto:
    """Return a copy of a node with its inputs, also in its annotations, renamed according to ``names``."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.input[:] = [names.get(name, name) for name in node.input]
    for annotation in copy.device_configurations:
        for spec in annotation.sharding_spec:
            spec.tensor_name = names.get(spec.tensor_name, spec.tensor_name)
    return copy


def _varint(value: int, width: int = 1) -> bytes:
    """Return a protobuf varint of at least ``width`` bytes: groups of seven bits, least significant first."""
    out = bytearray()
    while value > 0x7F or len(out) < width - 1:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
