"""Costs of nodes and of sequences of nodes: FLOP, nominal time, weights and memory.

The nominal time is used to choose even blocks before anything is measured. It is the maximum of the compute time and
the memory transfer time on a nominal small device.
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
from planner.model.extract import Subgraph
from planner.model.flop import MOVES, Lookup, node_flop
from planner.model.graph import Node, WorkGraph
from planner.model.inlining import bodies
from planner.model.line import FOLLOWERS, WorkOrder
from planner.model.source import node_tensors

NOMINAL_FLOP_PER_S = 50e9
NOMINAL_BYTES_PER_S = 10e9
NOMINAL_NODE_S = 2e-6

VIEWS = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Shape", "Size", "Constant"})
FLOATS = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16})
BYTES = frozenset({TensorProto.INT8, TensorProto.UINT8, TensorProto.INT4, TensorProto.UINT4})
# Positions of operator inputs that do not count as weights: running statistics, scales and zero points.
STATISTICS = {"BatchNormalization": (3, 4), "QuantizeLinear": (1, 2), "DequantizeLinear": (1, 2)}


@dataclass(frozen=True)
class NodeCosts:
    """Costs of all nodes of a graph.

    Parameters
    ----------
    graph
        The model.
    specs
        Tensors of known size.
    flop
        Operations of each node, by node index; 0 for a node without a rule.
    time_s
        Nominal time of each node in seconds, by node index.
    uncounted
        Number of nodes of each operator that has no rule.
    """

    graph: WorkGraph
    specs: Mapping[str, TensorSpec]
    flop: Mapping[int, float]
    time_s: Mapping[int, float]
    uncounted: Mapping[str, int]

    def parameters(self, part: Subgraph) -> int:
        """Return the number of weights in a part, without running statistics, scales, zero points and scalars."""
        statistics, quantised = self._roles
        return sum(
            math.prod(tensor.dims)
            for name, tensor in self._tensors(part)
            if tensor.dims and name not in statistics and (tensor.data_type in FLOATS | BYTES or name in quantised)
        )

    def weight_bytes(self, part: Subgraph) -> int:
        """Return the size of all constants of a part in bytes."""
        return sum(
            math.prod(tensor.dims) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
            for _, tensor in self._tensors(part)
            if tensor.data_type != TensorProto.STRING
        )

    def peak_bytes(self, line: WorkOrder, first: int, last: int) -> int:
        """Return the peak number of bytes alive between two cuts, including tensors that only pass through."""
        return max(
            line.bytes_at(position) + sum(self.specs[name].bytes for name in node.outputs if name in self.specs)
            for position, node in enumerate(line.order[first:last], first)
        )

    def times_s(self, line: WorkOrder) -> list[float]:
        """Return the nominal time of each node of a line in seconds.

        A node that a runtime fuses with the previous node moves no bytes of its own.
        """
        return [
            self.flop[node.index] / NOMINAL_FLOP_PER_S
            if cut in line.fused and node.proto.op_type in FOLLOWERS
            else self.time_s[node.index]
            for cut, node in enumerate(line.order)
        ]

    def _tensors(self, part: Subgraph) -> Iterator[tuple[str, TensorProto]]:
        for name in part.weights:
            tensor = self.graph.weights[name]
            yield name, tensor if isinstance(tensor, TensorProto) else tensor.values
        for node in part.nodes:
            for tensor in node_tensors(node.proto):
                yield node.outputs[0] if node.proto.op_type == "Constant" else tensor.name, tensor

    @cached_property
    def _roles(self) -> tuple[set[str], set[str]]:
        """Names of statistics, and names of tensors that are dequantised."""
        statistics: set[str] = set()
        quantised: set[str] = set()
        for node in self.graph.nodes:
            names = node.proto.input
            statistics.update(
                names[position] for position in STATISTICS.get(node.proto.op_type, ()) if position < len(names)
            )
            if node.proto.op_type == "DequantizeLinear":
                quantised.add(names[0])
        return statistics, quantised


def count_costs(graph: WorkGraph, specs: Mapping[str, TensorSpec]) -> NodeCosts:
    """Return the operations and the nominal time of each node of a graph."""
    counter = _Counter(specs.get, Counter())
    flop = {node.index: counter.count(node.proto) for node in graph.nodes}
    time_s = {node.index: _nominal_time_s(node, flop[node.index], specs) for node in graph.nodes}
    return NodeCosts(graph, specs, flop, time_s, dict(counter.uncounted))


@dataclass(frozen=True)
class _Counter:
    lookup: Lookup
    uncounted: Counter[str]

    def count(self, node: onnx.NodeProto) -> float:
        """Return a node's operations: of an ``If`` its costlier branch, of a ``Scan`` its body for each step."""
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
    written = sum(specs[name].bytes for name in node.outputs if name in specs)
    read = written if operator in MOVES else sum(specs[name].bytes for name in node.inputs if name in specs)
    return NOMINAL_NODE_S + max(flop / NOMINAL_FLOP_PER_S, (written + read) / NOMINAL_BYTES_PER_S)
