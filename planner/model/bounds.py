"""Values that a model accepts at its inputs, so that inputs can be drawn for a model without data.

An input may be an index: a token, a speaker, a position. The graph is walked from its end to its start. An operator
that looks something up states which values its indices may have, and a cheap operation passes this on: for ``x + 1`` to
be at most 9, ``x`` must be at most 8. Where a branch depends on a comparison with a constant, as a sampling rate, the
values are those that lead to the first branch, or to the second if the first does not fit the shapes.

The result is a guess for everything that is not such an index, and no promise: other operators may want other values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from planner.model.bound_rules import ANY, FALSE, RULES, TRUE, Interval, lookups, unrelated
from planner.model.graph import WorkGraph
from planner.model.inlining import bodies
from planner.model.sequences import dims_of
from planner.model.shapes import Shapes
from planner.model.walk import is_refused

_EPSILON: Final = 1e-9  # bounds are multiplied and divided before they are rounded


def input_bounds(graph: WorkGraph, shapes: Shapes) -> dict[str, tuple[int, int]]:
    """Return smallest and largest value of each input that is an index, or chooses a branch.

    Of several values, those from 0 on are preferred.
    """
    needed = _Bounds(graph, shapes, choose=False).inputs()
    chosen = _Bounds(graph, shapes, choose=True).inputs()
    found = {name: _whole(chosen[name]) or _whole(needed[name]) for name in graph.inputs}
    return {name: bounds for name, bounds in found.items() if bounds is not None}


def _whole(interval: Interval) -> tuple[int, int] | None:
    """Return the ends as whole numbers, from 0 on if possible; None for an empty or an unlimited interval."""
    if interval == ANY or interval.low > interval.high:
        return None
    lowest = max(interval.low, min(0.0, interval.high))
    is_index = math.isfinite(interval.low) and math.isfinite(interval.high)
    highest = interval.high if is_index else min(interval.high, lowest + 1)  # a comparison: values close to the limit
    low, high = math.ceil(lowest - _EPSILON), math.floor(highest + _EPSILON)
    return (low, high) if low <= high else None


@dataclass
class _Bounds:
    """A walk against the direction of a graph.

    Parameters
    ----------
    choose
        Whether conditions of ``If`` nodes are bounded, too.
    allowed
        Values that each tensor may have.
    """

    graph: WorkGraph
    shapes: Shapes
    choose: bool
    allowed: dict[str, Interval] = field(default_factory=dict)

    def inputs(self) -> Mapping[str, Interval]:
        """Return the values that each input of the model may have."""
        self._nodes([node.proto for node in self.graph.nodes])
        return {name: self.allowed.get(name, ANY) for name in self.graph.inputs}

    def limit(self, name: str, interval: Interval) -> None:
        """Limit a tensor's values to an interval."""
        if name:
            self.allowed[name] = self.allowed.get(name, ANY).meet(interval)  # may become empty

    def dims(self, name: str) -> tuple[int, ...] | None:
        """Return the shape of a tensor, if known."""
        return dims_of(self.shapes.types.get(name))

    def range_of(self, name: str) -> Interval | None:
        """Return the smallest and the largest value of a tensor, if known: that of a constant or a truth value."""
        maker = self.graph.maker.get(name)
        if maker is not None and maker.proto.op_type == "Cast" and self._is_bool(maker.proto.input[0]):
            return Interval(0, 1)
        tensor = self.shapes.values.get(name)
        if tensor is None or tensor.data_type == TensorProto.STRING:
            return None
        array = np.asarray(numpy_helper.to_array(tensor), np.float64)
        return Interval(float(array.min()), float(array.max())) if array.size else None

    def _is_bool(self, name: str) -> bool:
        kind = self.shapes.types.get(name)
        return kind is not None and kind.tensor_type.elem_type == TensorProto.BOOL

    def _nodes(self, nodes: Sequence[onnx.NodeProto]) -> None:
        for node in reversed(nodes):
            self._node(node)

    def _node(self, node: onnx.NodeProto) -> None:
        inside = list(bodies(node))
        if node.op_type == "If":
            self._if(node)
        elif inside:
            self._loop(node, inside[0])
        for name, interval in lookups(node, self):
            self.limit(name, interval)
        rule = RULES.get(node.op_type, unrelated)
        for result in node.output:
            if result in self.allowed:
                for name, interval in rule(node, self.allowed[result], self):
                    self.limit(name, interval)

    def _if(self, node: onnx.NodeProto) -> None:
        branches = {attribute.name: attribute.g for attribute in node.attribute}
        if self.choose and node.input:
            unfit = is_refused(branches["then_branch"], self.shapes.refused)
            self.limit(node.input[0], FALSE if unfit else TRUE)
        for body in branches.values():
            for result, inner in zip(node.output, body.output, strict=False):
                self.limit(inner.name, self.allowed.get(result, ANY))
            self._nodes(body.node)

    def _loop(self, node: onnx.NodeProto, body: onnx.GraphProto) -> None:
        # A Loop's body receives step, condition and carried tensors, and returns the condition before the carried ones.
        received, returned = (2, 1) if node.op_type == "Loop" else (0, 0)
        carried = list(zip(node.input[received:], body.input[received:], body.output[returned:], strict=False))
        for _ in range(2):  # what one step returns is what the next receives
            for result, inner in zip(node.output, body.output[returned:], strict=False):
                self.limit(inner.name, self.allowed.get(result, ANY))
            for _, before, after in carried:
                self.limit(after.name, self.allowed.get(before.name, ANY))
            self._nodes(body.node)
        for outer, inner in zip(node.input[received:], body.input[received:], strict=False):
            self.limit(outer, self.allowed.get(inner.name, ANY))
