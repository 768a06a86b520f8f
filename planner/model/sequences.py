"""Types of the elements of sequences whose length is known.

ONNX infers one type for all elements of a sequence, so it loses the sizes of unequal ones, and does not know how many
there are. What is cut out of a sequence or joined from it would have no size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import onnx
from onnx import TensorProto, TypeProto, helper, numpy_helper

Elements = Sequence[TypeProto]


def dims_of(kind: TypeProto | None) -> tuple[int, ...] | None:
    """Return the shape of a tensor type, or None unless every axis is known."""
    if kind is None or not (kind.HasField("tensor_type") and kind.tensor_type.HasField("shape")):
        return None
    dims = kind.tensor_type.shape.dim
    known = all(dim.HasField("dim_value") and dim.dim_value >= 0 for dim in dims)
    return tuple(dim.dim_value for dim in dims) if known else None


@dataclass
class SequenceWalk:
    """Follows sequences through a graph.

    Parameters
    ----------
    types, values
        Types and values known so far, by tensor name.
    """

    types: Mapping[str, TypeProto]
    values: Mapping[str, TensorProto]
    elements: dict[str, Elements] = field(default_factory=dict)
    """Types of the elements of each sequence of known length, by name."""

    def node(self, node: onnx.NodeProto) -> TypeProto | None:
        """Record a node's sequence; return the type of its tensor if that follows from a recorded one."""
        for name in node.output:
            self.elements.pop(name, None)  # branches may use the same names
        follow = self._OPERATORS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if follow is None:
            return None
        try:
            found = follow(self, node)
        except (KeyError, IndexError, ValueError):  # something is unknown, or ONNX forbids it
            return None
        if isinstance(found, TypeProto):
            return found
        self.elements[node.output[0]] = found
        return None

    def _value(self, node: onnx.NodeProto, index: int, absent: Any) -> Any:
        """Return the value of an optional input as nested lists."""
        given = len(node.input) > index and node.input[index]
        return numpy_helper.to_array(self.values[node.input[index]]).tolist() if given else absent

    def _construct(self, node: onnx.NodeProto) -> Elements:
        return [self.types[name] for name in node.input]

    def _same(self, node: onnx.NodeProto) -> Elements:
        return self.elements[node.input[0]]

    def _insert(self, node: onnx.NodeProto) -> Elements:
        before = list(self.elements[node.input[0]])
        position = self._value(node, 2, len(before))
        before.insert(position, self.types[node.input[1]])
        return before

    def _erase(self, node: onnx.NodeProto) -> Elements:
        before = list(self.elements[node.input[0]])
        del before[self._value(node, 1, -1)]
        return before

    def _split(self, node: onnx.NodeProto) -> Elements:
        kind = self.types[node.input[0]]
        dims, axis, keep = _known(kind), _attribute(node, "axis", 0), _attribute(node, "keepdims", 1)
        axis += len(dims) if axis < 0 else 0
        size, split = dims[axis], self._value(node, 1, None)
        if split is None:
            single = [*dims[:axis], *([1] if keep else []), *dims[axis + 1 :]]
            return [_tensor(kind, single)] * size
        if isinstance(split, int):
            split = [min(split, size - first) for first in range(0, size, split)]
        return [_tensor(kind, [*dims[:axis], part, *dims[axis + 1 :]]) for part in split]

    def _at(self, node: onnx.NodeProto) -> TypeProto:
        element = self.elements[node.input[0]][self._value(node, 1, None)]
        return _tensor(element, _known(element))

    def _concat(self, node: onnx.NodeProto) -> TypeProto:
        elements = self.elements[node.input[0]]
        shapes, axis = [list(_known(kind)) for kind in elements], _attribute(node, "axis", 0)
        dims = shapes[0]
        if _attribute(node, "new_axis", 0):
            dims.insert(axis + (len(dims) + 1 if axis < 0 else 0), len(shapes))
        else:
            dims[axis] = sum(shape[axis] for shape in shapes)
        return _tensor(elements[0], dims)

    _OPERATORS: ClassVar[Mapping[str, Callable[[SequenceWalk, onnx.NodeProto], Elements | TypeProto]]] = {
        "SequenceConstruct": _construct,
        "SequenceEmpty": _construct,
        "SequenceInsert": _insert,
        "SequenceErase": _erase,
        "SplitToSequence": _split,
        "Identity": _same,
        "SequenceAt": _at,
        "ConcatFromSequence": _concat,
    }


def _known(kind: TypeProto) -> tuple[int, ...]:
    dims = dims_of(kind)
    if dims is None:
        raise ValueError
    return dims


def _tensor(kind: TypeProto, dims: Sequence[int]) -> TypeProto:
    return helper.make_tensor_type_proto(kind.tensor_type.elem_type, dims)


def _attribute(node: onnx.NodeProto, name: str, absent: int) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == name), absent)
