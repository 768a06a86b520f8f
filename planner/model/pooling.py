"""Sizes of pooled tensors, as onnxruntime and ONNX since opset 22 have them.

With ``ceil_mode``, the formula of earlier opsets also counts a window that would start behind the input, in the padding
at its end. onnxruntime leaves it out whatever the opset.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import onnx
from onnx import TypeProto

from planner.model.lookup import attribute
from planner.model.sequences import dims_of

POOLS: Final = frozenset({"MaxPool", "AveragePool", "LpPool", "QLinearAveragePool", "NhwcMaxPool"})
"""Operators with ``ceil_mode``, of ONNX and of onnxruntime."""


def without_windows_behind(
    node: onnx.NodeProto, types: Mapping[str, TypeProto], inferred: Mapping[str, TypeProto]
) -> Mapping[str, TypeProto]:
    """Return the types of a node's outputs, those of pools without windows that start behind the input.

    Parameters
    ----------
    types
        Types of the node's inputs, by tensor name.
    inferred
        Types of its outputs as ONNX infers them.
    """
    if node.op_type not in POOLS or not attribute(node, "ceil_mode", 0):
        return inferred
    size = dims_of(types.get(node.input[0]))
    if size is None:
        return inferred
    last = node.op_type == "NhwcMaxPool" or bool(attribute(node, "channels_last", 0))
    spatial = size[1:-1] if last else size[2:]
    strides = attribute(node, "strides", [1] * len(spatial))
    explicit = attribute(node, "auto_pad", b"NOTSET") == b"NOTSET"  # otherwise no window starts in the padding
    before = attribute(node, "pads", [0] * 2 * len(spatial)) if explicit else [0] * len(spatial)
    most = [-(-(axis + pad) // stride) for axis, pad, stride in zip(spatial, before, strides, strict=False)]
    return {name: _at_most(kind, 1 if last else 2, most) for name, kind in inferred.items()}


def _at_most(kind: TypeProto, first: int, most: list[int]) -> TypeProto:
    """Return a type whose axes, from the ``first`` one on, are no longer than ``most``."""
    cut = TypeProto()
    cut.CopyFrom(kind)
    for dim, limit in zip(cut.tensor_type.shape.dim[first:], most, strict=False):
        if dim.HasField("dim_value"):
            dim.dim_value = min(dim.dim_value, limit)
    return cut
