"""What is known of a node's inputs, for rules that say what types its outputs have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
from onnx import TensorProto, TypeProto, numpy_helper

from planner.model.lookup import UnknownShapeError, attribute, has_input

Dims = tuple[int, ...]
Outputs = Sequence["tuple[int, Dims] | None"]
"""Element type and shape of each output, None where unknown."""


@dataclass(frozen=True)
class Operands:
    """A node with what is known of its inputs.

    Parameters
    ----------
    node
        The node.
    types, values
        Types and values known so far, by tensor name.
    """

    node: onnx.NodeProto
    types: Mapping[str, TypeProto]
    values: Mapping[str, TensorProto]

    def has(self, position: int) -> bool:
        """Return whether an optional input is present."""
        return has_input(self.node, position)

    def dims(self, position: int) -> Dims:
        """Return the shape of an input."""
        shape = self._kind(position).shape
        if not all(dim.HasField("dim_value") for dim in shape.dim):
            raise UnknownShapeError
        return tuple(dim.dim_value for dim in shape.dim)

    def element(self, position: int) -> int:
        """Return the element type of an input."""
        return self._kind(position).elem_type

    def number(self, position: int) -> int:
        """Return the value of an input that holds one integer."""
        name = self.node.input[position] if self.has(position) else ""
        if name not in self.values:
            raise UnknownShapeError
        return int(numpy_helper.to_array(self.values[name]).reshape(-1)[0])

    def attribute(self, name: str, default: Any) -> Any:
        """Return an attribute."""
        return attribute(self.node, name, default)

    def _kind(self, position: int) -> TypeProto.Tensor:
        kind = self.types.get(self.node.input[position]) if self.has(position) else None
        if kind is None or not kind.tensor_type.HasField("shape"):
            raise UnknownShapeError
        return kind.tensor_type


Rule = Callable[[Operands], Outputs]
