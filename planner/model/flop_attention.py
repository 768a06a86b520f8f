"""Floating-point operations of attention, of ONNX and of onnxruntime.

All pairs of queries and keys count: causality, windows and masks only hide results. An attention thus counts as much as
the products and the softmax that it replaces. The keys include those of a cache.
"""

from __future__ import annotations

import math
from dataclasses import replace

import onnx

from planner.model.attention import AttentionShape, attention_shape
from planner.model.lookup import Lookup, Rule, attribute, has_input, shape_of

SOFTMAX = 5
ROTATION = 3  # for each element: two products and a sum
CONTRIBUTED = "com.microsoft"


def _core(shape: AttentionShape) -> int:
    """Count the products of queries and keys, the softmax, and the products with the values."""
    pairs = shape.batch * shape.heads * shape.queries * shape.keys
    return pairs * (2 * shape.width + SOFTMAX + 2 * shape.value_width)


def _attention(node: onnx.NodeProto, lookup: Lookup) -> int:
    """Count ``Attention`` of ONNX, with or without a separate axis for heads, or that of onnxruntime."""
    if node.domain == CONTRIBUTED:
        return _projected_attention(node, lookup)
    query, key, value = (shape_of(node.input[index], lookup) for index in range(3))
    heads: int = query[1] if len(query) == 4 else attribute(node, "q_num_heads", 1)
    width = query[-1] if len(query) == 4 else query[-1] // heads
    kv_heads: int = key[1] if len(key) == 4 else attribute(node, "kv_num_heads", heads)
    value_width = value[-1] if len(value) == 4 else value[-1] // kv_heads
    past = shape_of(node.input[4], lookup)[2] if has_input(node, 4) else 0
    return _core(AttentionShape(query[0], query[-2], past + key[-2], heads, kv_heads, width, value_width))


def _projected_attention(node: onnx.NodeProto, lookup: Lookup) -> int:
    """Count onnxruntime's ``Attention`` and ``QAttention``, which project their input to queries, keys and values."""
    batch, queries, hidden = shape_of(node.input[0], lookup)
    columns = shape_of(node.input[1], lookup)[1]
    sizes: list[int] = attribute(node, "qkv_hidden_sizes", None) or [columns // 3] * 3
    heads: int = attribute(node, "num_heads", 1)
    past = 8 if node.op_type == "QAttention" else 4
    keys = queries + (shape_of(node.input[past], lookup)[3] if has_input(node, past) else 0)
    shape = AttentionShape(batch, queries, keys, heads, heads, sizes[0] // heads, sizes[2] // heads)
    return 2 * batch * queries * hidden * columns + _core(shape)


def _cached_attention(node: onnx.NodeProto, lookup: Lookup) -> int:
    """Count ``MultiHeadAttention`` and ``GroupQueryAttention``, whose caches may already have room for the new keys."""
    shape = attention_shape(node, lambda position: shape_of(node.input[position], lookup))
    if len(node.output) > 1 and node.output[1]:
        shape = replace(shape, keys=shape_of(node.output[1], lookup)[2])
    if not attribute(node, "do_rotary", 0):
        return _core(shape)
    rotated = 2 * shape_of(node.input[7], lookup)[-1]
    return _core(shape) + ROTATION * shape.batch * shape.queries * (shape.heads + shape.key_heads) * rotated


def _rotary(node: onnx.NodeProto, lookup: Lookup) -> int:
    """Count the rotation of the first elements of each head: as many as the tables of cosines and sines have twice."""
    contributed = node.domain == CONTRIBUTED
    shape = shape_of(node.input[0], lookup)
    rotated = 2 * shape_of(node.input[2 if contributed else 1], lookup)[-1]
    heads: int = attribute(node, "num_heads", 0)
    width = shape[-1] if len(shape) == 4 else shape[-1] // heads if heads else rotated
    return ROTATION * math.prod(shape) * min(rotated, width) // width


# Operations for each element of the state in addition to the update with key and value: decay, and retrieval.
STATE_UPDATES = {b"linear": 0, b"gated": 1, b"delta": 2, b"gated_delta": 3}


def _linear_attention(node: onnx.NodeProto, lookup: Lookup) -> int:
    """Count update and reading of the state for each token; operations on single vectors are left out."""
    batch, length, width = shape_of(node.input[0], lookup)
    heads, groups = attribute(node, "q_num_heads", 1), attribute(node, "kv_num_heads", 1)
    state = width // heads * (shape_of(node.input[2], lookup)[-1] // groups)
    rule: bytes = attribute(node, "update_rule", b"gated_delta")
    return int(batch * length * state * (groups * (2 + STATE_UPDATES[rule]) + heads * 2))


ATTENTION_RULES: dict[str, Rule] = {
    "Attention": _attention,
    "GroupQueryAttention": _cached_attention,
    "LinearAttention": _linear_attention,
    "MultiHeadAttention": _cached_attention,
    "QAttention": _projected_attention,
    "RotaryEmbedding": _rotary,
}
