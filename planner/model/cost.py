"""Costs of nodes and of sequences of nodes: FLOP, nominal time, weights and memory.

The nominal time is used to choose even blocks before anything is measured. It is the maximum of the compute time and
the memory transfer time on a nominal small device.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import onnx

from planner.model.buffers import run_bytes
from planner.model.extract import Subgraph, pooled_inputs
from planner.model.flop import MOVES, node_flop
from planner.model.graph import Node, WorkGraph
from planner.model.inlining import bodies
from planner.model.line import FOLLOWERS, WorkOrder
from planner.model.lookup import Lookup
from planner.model.parameters import ParameterRoles, parameter_roles
from planner.model.shapes import Shapes
from planner.model.weights import held_bytes

NOMINAL_FLOP_PER_S = 50e9
NOMINAL_BYTES_PER_S = 10e9
NOMINAL_NODE_S = 2e-6

VIEWS = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Shape", "Size", "Constant"})


@dataclass(frozen=True)
class NodeCosts:
    """Costs of all nodes of a graph.

    Parameters
    ----------
    graph
        The model.
    shapes
        Types and sizes of all tensors.
    flop
        Operations of each node, by node index; 0 for a node without a rule.
    time_s
        Nominal time of each node in seconds, by node index.
    uncounted
        Number of nodes of each operator that has no rule.
    """

    graph: WorkGraph
    shapes: Shapes
    flop: Mapping[int, float]
    time_s: Mapping[int, float]
    uncounted: Mapping[str, int]

    def parameters(self, part: Subgraph) -> int:
        """Return the number of weights in a part."""
        return self._roles.count(self.graph, part)

    def weight_bytes(self, part: Subgraph) -> int:
        """Return the memory that onnxruntime holds for the constants of a part, in bytes."""
        return held_bytes(part.nodes, part.outputs, self.graph.weights, self.shapes.types)

    def peak_bytes(self, line: WorkOrder, first: int, part: Subgraph) -> int:
        """Return the memory for the tensors of a part after cut ``first``, in bytes.

        It includes all tensors that cross the cut: inputs stay until the run ends, and others pass by.
        """
        crossing = sum(map(self.shapes.bytes, (*line.alive[first], *part.state)))
        return crossing + run_bytes(self.graph, self.shapes, part, pooled_inputs(line, part))

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

    @cached_property
    def _roles(self) -> ParameterRoles:
        return parameter_roles(self.graph)


def count_costs(graph: WorkGraph, shapes: Shapes) -> NodeCosts:
    """Return the operations and the nominal time of each node of a graph."""
    counter = _Counter(shapes.dims, Counter())
    flop = {node.index: counter.count(node.proto) for node in graph.nodes}
    time_s = {node.index: _nominal_time_s(node, flop[node.index], shapes) for node in graph.nodes}
    return NodeCosts(graph, shapes, flop, time_s, dict(counter.uncounted))


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
            shape = self.lookup(node.input[-1])
            if shape:
                return shape[0] * sum(inside)
        flop = node_flop(node, self.lookup)
        if flop is None:
            self.uncounted[node.op_type] += 1
        return flop or sum(inside)


def _nominal_time_s(node: Node, flop: float, shapes: Shapes) -> float:
    operator = node.proto.op_type
    if operator in VIEWS:
        return NOMINAL_NODE_S
    written = sum(map(shapes.bytes, node.outputs))
    read = written if operator in MOVES else sum(map(shapes.bytes, node.inputs))
    return NOMINAL_NODE_S + max(flop / NOMINAL_FLOP_PER_S, (written + read) / NOMINAL_BYTES_PER_S)
