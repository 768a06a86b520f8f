"""Products with weights of 2 or 8 bits that onnxruntime fuses to ``MatMulNBits``, and unpacks in every run.

The unpacked weights lie outside the arena and are returned at once. Products with 4 bits use them packed.

Source: ``DQMatMulNodeGroupSelector`` in ``qdq_selectors.cc``, and ``ComputeBUnpacked`` in ``matmul_nbits.cc``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

from onnx import TensorProto, TypeProto

from planner.model.graph import Node
from planner.model.lookup import attribute
from planner.model.shapes import Shapes

KINDS: Final = frozenset({TensorProto.INT8, TensorProto.UINT8, TensorProto.INT2, TensorProto.UINT2})
LEAST_BLOCK: Final = 16
CLIPS: Final = frozenset({"Relu", "Clip"})


def unpacked_bytes(
    node: Node,
    makers: Mapping[str, Node],
    users: Mapping[str, Sequence[Node]],
    outputs: Sequence[str],
    shapes: Shapes,
) -> int:
    """Return the size of the weights that a node unpacks in every run, in bytes; 0 for one that is not fused so.

    Parameters
    ----------
    node
        The node.
    makers, users
        Nodes that make each tensor, and those that read it.
    outputs
        Tensors that the part returns.
    shapes
        Shapes and types of all tensors.
    """
    if node.proto.op_type not in ("MatMul", "Gemm") or len(node.inputs) < 2 or not _is_plain(node):
        return 0
    unpacking = [
        makers[name] for name in node.inputs if name in makers and _operator(makers[name]) == "DequantizeLinear"
    ]
    if len(unpacking) != 1 or unpacking[0].outputs[0] != node.inputs[1]:
        return 0
    if len(users.get(node.inputs[1], ())) != 1 or node.inputs[1] in outputs:
        return 0
    followers = users.get(node.outputs[0], ())
    if any(_operator(follower) == "QuantizeLinear" for follower in followers):
        return 0
    if len(followers) == 1 and _operator(followers[0]) in CLIPS and node.outputs[0] not in outputs:
        after = followers[0].outputs[0]
        if after not in outputs and len(users.get(after, ())) == 1:
            return 0
    return _weight_bytes(unpacking[0], shapes)


def _weight_bytes(unpacking: Node, shapes: Shapes) -> int:
    weight, scale = (shapes.dims(name) for name in unpacking.inputs[:2])
    kind = shapes.types.get(unpacking.inputs[0], TypeProto()).tensor_type.elem_type
    if weight is None or scale is None or len(weight) != 2 or kind not in KINDS:
        return 0
    block = attribute(unpacking.proto, "block_size", 0)
    axis = attribute(unpacking.proto, "axis", 1)
    by_block = block >= LEAST_BLOCK and block & (block - 1) == 0 and axis == 0
    by_column = not block and (len(scale) == 0 or (len(scale) == 1 and scale[0] == weight[1] and axis == 1))
    return 4 * math.prod(weight) if by_block or by_column else 0


def _operator(node: Node) -> str:
    return node.proto.op_type


def _is_plain(node: Node) -> bool:
    """Return whether a Gemm is a product with at most a bias."""
    usual = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0}
    return all(attribute(node.proto, name, value) == value for name, value in usual.items())
