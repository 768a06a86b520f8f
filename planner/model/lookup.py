"""What the FLOP rules ask about a node: shapes of its tensors, and attributes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import onnx

Lookup = Callable[[str], tuple[int, ...] | None]
"""Returns a tensor's shape, or None if it is unknown."""

Rule = Callable[[onnx.NodeProto, Lookup], int]
"""Returns the operations of a node."""


class UnknownShapeError(Exception):
    """A rule needs the shape of a tensor whose shape is unknown, or an attribute that is not of its type."""


MISFITS = (UnknownShapeError, ArithmeticError, LookupError, TypeError, ValueError)
"""Errors of rules on nodes that do not fit their operator; onnxruntime says what is wrong with them."""


def shape_of(name: str, lookup: Lookup) -> tuple[int, ...]:
    """Return the shape of a tensor."""
    shape = lookup(name)
    if shape is None:
        raise UnknownShapeError
    return shape


def output_elements(node: onnx.NodeProto, lookup: Lookup) -> int:
    """Return the number of elements of a node's first output."""
    return math.prod(shape_of(node.output[0], lookup))


def has_input(node: onnx.NodeProto, position: int) -> bool:
    """Return whether an optional input is present."""
    return position < len(node.input) and bool(node.input[position])


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """Return an attribute of a node, which has the type of its default."""
    value = next((onnx.helper.get_attribute_value(item) for item in node.attribute if item.name == name), default)
    if default is not None and not isinstance(value, type(default)):
        raise UnknownShapeError
    return value
