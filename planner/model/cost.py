"""What nodes and runs of nodes cost: FLOP, a nominal time, weights, memory.

The nominal time serves to draw even blocks before anything is measured: the larger of computing and of moving the
bytes, on a nominal small device.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import onnx
from onnx import TensorProto, helper

from planner.model.chain import TensorSpec
from planner.model.extract import Part
from planner.model.flop import MOVES, Lookup, node_flop
from planner.model.graph import Graph, Node
from planner.model.line import FOLLOWERS, Line
from planner.model.source import bodies, node_tensors

NOMINAL_FLOP_PER_S = 50e9
NOMINAL_BYTES_PER_S = 10e9
NOMINAL_NODE_S = 2e-6

VIEWS = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Shape", "Size", "Constant"})
FLOATS = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16})
BYTES = frozenset({TensorProto.INT8, TensorProto.UINT8, TensorProto.INT4, TensorProto.UINT4})
# Inputs of these operators, by position, that are no weights: running statistics, scales and zero points.
STATISTICS = {"BatchNormalization": (3, 4), "QuantizeLinear": (1, 2), "DequantizeLinear": (1, 2)}


@dataclass(frozen=True)
class Costs:
    """Costs of all nodes of a graph.

    Parameters
    ----------
    graph
        The model.
    specs
        Tensors of known size.
    flop
        Operations of each node, by its index; 0 for one that has no rule.
    time_s
        Nominal time of each node, by its index.
    uncounted
        Operators without a rule, with how many nodes each has.
    """

    graph: Graph
    specs: Mapping[str, TensorSpec]
    flop: Mapping[int, float]
    time_s: Mapping[int, float]
    uncounted: Mapping[str, int]

    def parameters(self, part: Part) -> int:
        """Count the weights a part uses: running statistics, scales, zero points and scalars are none."""
        statistics, quantised = self._roles
        return sum(
            math.prod(tensor.dims)
            for name, tensor in self._tensors(part)
            if tensor.dims and name not in statistics and (tensor.data_type in FLOATS | BYTES or name in quantised)
        )

    def weight_bytes(self, part: Part) -> int:
        """Size of all constants a part uses."""
        return sum(
            math.prod(tensor.dims) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
            for _, tensor in self._tensors(part)
            if tensor.data_type != TensorProto.STRING
        )

    def peak_bytes(self, line: Line, first: int, last: int) -> int:
        """Give the most bytes alive at once between two cuts of the line, those that only pass through included."""
        return max(
            line.bytes_at(position) + sum(self.specs[name].bytes for name in node.outputs if name in self.specs)
            for position, node in enumerate(line.order[first:last], first)
        )

    def times_s(self, line: Line) -> list[float]:
        """Nominal time of each node of a line; what a runtime fuses with the node before moves no bytes of its own."""
        return [
            self.flop[node.index] / NOMINAL_FLOP_PER_S
            if cut in line.fused and node.proto.op_type in FOLLOWERS
            else self.time_s[node.index]
            for cut, node in enumerate(line.order)
        ]

    def _tensors(self, part: Part) -> Iterator[tuple[str, TensorProto]]:
        for name in part.weights:
            tensor = self.graph.weights[name]
            yield name, tensor if isinstance(tensor, TensorProto) else tensor.values
        for node in part.nodes:
            for tensor in node_tensors(node.proto):
                yield node.outputs[0] if node.proto.op_type == "Constant" else tensor.name, tensor

    @cached_property
    def _roles(self) -> tuple[set[str], set[str]]:
        """Names used as statistics, and names that are dequantised."""
        statistics: set[str] = set()
        quantised: set[str] = set()
        for node in self.graph.nodes:
            names = node.proto.input
            statistics.update(names[at] for at in STATISTICS.get(node.proto.op_type, ()) if at < len(names))
            if node.proto.op_type == "DequantizeLinear":
                quantised.add(names[0])
        return statistics, quantised


def measure_costs(graph: Graph, specs: Mapping[str, TensorSpec]) -> Costs:
    """Count the operations of all nodes and give each a nominal time."""
    counter = _Counter(specs.get, Counter())
    flop = {node.index: counter.count(node.proto) for node in graph.nodes}
    time_s = {node.index: _nominal_time_s(node, flop[node.index], specs) for node in graph.nodes}
    return Costs(graph, specs, flop, time_s, dict(counter.uncounted))


@dataclass(frozen=True)
class _Counter:
    lookup: Lookup
    uncounted: Counter[str]

    def count(self, node: onnx.NodeProto) -> float:
        """Count a node's operations; of a choice the dearer branch, of a loop its body for each step."""
        inside = [sum(self.count(inner) for inner in body.node) for body in bodies(node)]
        if node.op_type == "If":
            return max(inside, default=0.0)
        if node.op_type == "Scan":
            spec = self.lookup(node.input[-1])
            if spec is not None and spec.shape:
                return spec.shape[0] * sum(inside)
        flop = node_flop(node, self.lookup)
        if flop is None:
            self.uncounted[node.op_type] += 1
        return flop or sum(inside)


def _nominal_time_s(node: Node, flop: float, specs: Mapping[str, TensorSpec]) -> float:
    operator = node.proto.op_type
    if operator in VIEWS:
        return NOMINAL_NODE_S
    made = sum(specs[name].bytes for name in node.outputs if name in specs)
    read = made if operator in MOVES else sum(specs[name].bytes for name in node.inputs if name in specs)
    return NOMINAL_NODE_S + max(flop / NOMINAL_FLOP_PER_S, (made + read) / NOMINAL_BYTES_PER_S)
