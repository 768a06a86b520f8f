"""Number of weights of a part of a model, as it is published: without running statistics, scales and tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import onnx
from onnx import TensorProto

from planner.model.extract import Subgraph
from planner.model.graph import WorkGraph
from planner.model.lookup import MISFITS, attribute, has_input
from planner.model.source import node_tensors
from planner.model.walk import constant_value

COUNTED = frozenset(
    value
    for name, value in TensorProto.DataType.items()
    if "FLOAT" in name or name == "DOUBLE" or name.removeprefix("U") in ("INT2", "INT4", "INT8")
)
# Positions of inputs that are no weights: running statistics, scales and zero points, tables of cosines and sines.
STATISTICS = {
    "BatchNormalization": (3, 4),
    "ConvInteger": (2, 3),
    "DequantizeLinear": (1, 2),
    "DynamicQuantizeLSTM": (8, 9, 10, 11),
    "DynamicQuantizeMatMul": (2, 3),
    "GatherBlockQuantized": (2, 3),
    "GroupQueryAttention": (7, 8, 12, 13),
    "MatMulBnb4": (2,),
    "MatMulInteger": (2, 3),
    "MatMulIntegerToFloat": (2, 3, 4, 5),
    "MatMulNBits": (2, 3, 4),
    "QAttention": (3, 4, 6, 7),
    "QEmbedLayerNormalization": tuple(range(8, 18)),
    "QGemm": (1, 2, 4, 5, 7, 8),
    "QLinearAdd": (1, 2, 4, 5, 6, 7),
    "QLinearConv": (1, 2, 4, 5, 6, 7),
    "QLinearMatMul": (1, 2, 4, 5, 6, 7),
    "QLinearMul": (1, 2, 4, 5, 6, 7),
    "QMoE": (3, 6, 9, 11, 12, 13),
    "QuantizeLinear": (1, 2),
    "RotaryEmbedding": (1, 2, 3),
}
# Inputs that hold several weights in each byte.
PACKED = {"GatherBlockQuantized": (0,), "MatMulBnb4": (1,), "MatMulNBits": (1,), "QMoE": (2, 5, 8)}
QUANTISED = {"DequantizeLinear": (0,), "QLinearConv": (8,), "QGemm": (6,)}  # weights and biases, of any integer type


@dataclass(frozen=True)
class ParameterRoles:
    """Names of constants by their role.

    Parameters
    ----------
    statistics
        Constants that are no weights.
    quantised
        Constants that are weights although their type is that of indices.
    packed
        Number of weights of constants with several in each byte.
    """

    statistics: frozenset[str]
    quantised: frozenset[str]
    packed: dict[str, int]

    def count(self, graph: WorkGraph, part: Subgraph) -> int:
        """Return the number of weights in a part; scalars are none."""
        return sum(
            self.packed.get(name, math.prod(tensor.dims))
            for name, tensor in _tensors(graph, part)
            if tensor.dims and name not in self.statistics and (tensor.data_type in COUNTED or name in self.quantised)
        )


def parameter_roles(graph: WorkGraph) -> ParameterRoles:
    """Return the roles of a model's constants."""
    packed = {
        weight.name: _packed(node.proto, weight)
        for node in graph.nodes
        for position in PACKED.get(node.proto.op_type, ())
        if has_input(node.proto, position)
        and isinstance(weight := graph.weights.get(node.proto.input[position]), TensorProto)
    }
    return ParameterRoles(frozenset(_inputs(graph, STATISTICS)), frozenset(_inputs(graph, QUANTISED)), packed)


def _inputs(graph: WorkGraph, positions: Mapping[str, tuple[int, ...]]) -> Iterable[str]:
    for node in graph.nodes:
        for position in positions.get(node.proto.op_type, ()):
            if has_input(node.proto, position):
                yield node.proto.input[position]


def _packed(node: onnx.NodeProto, weight: TensorProto) -> int:
    """Return the number of weights in an input of several in each byte; without a valid width, one in each byte."""
    elements: int = math.prod(weight.dims)
    try:
        if attribute(node, "K", 0):  # the last block of a row may be padded
            return int(attribute(node, "K", 0)) * int(attribute(node, "N", 0))
        bits: int = attribute(node, "bits", 0) or attribute(node, "expert_weight_bits", 4)
        return elements * (8 // bits) if weight.data_type == TensorProto.UINT8 else elements
    except MISFITS:
        return elements


def _tensors(graph: WorkGraph, part: Subgraph) -> Iterator[tuple[str, TensorProto]]:
    for name in part.weights:
        tensor = graph.weights[name]
        yield name, tensor if isinstance(tensor, TensorProto) else tensor.values
    for node in part.nodes:
        constant = constant_value(node.proto)
        if constant is None:
            yield from ((tensor.name, tensor) for tensor in node_tensors(node.proto))
        else:  # the values of a sparse tensor come first, before their positions
            yield node.outputs[0], next(node_tensors(node.proto), constant)
