"""Sizes of the attention operators of onnxruntime, whose inputs have several layouts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx

from planner.model.lookup import attribute, has_input


@dataclass(frozen=True)
class AttentionShape:
    """Sizes of an attention over several heads.

    Parameters
    ----------
    batch, queries, keys
        Number of sequences, and of tokens in each that ask and that are looked at, those of the cache included.
    heads, key_heads
        Number of heads of queries, and of keys and values.
    width, value_width
        Length of a key and of a value of one head.
    """

    batch: int
    queries: int
    keys: int
    heads: int
    key_heads: int
    width: int
    value_width: int


def attention_shape(node: onnx.NodeProto, dims: Callable[[int], tuple[int, ...]]) -> AttentionShape:
    """Return the sizes of a ``MultiHeadAttention`` or a ``GroupQueryAttention``.

    Queries, keys and values have their heads in the last axis, in an axis of their own, or are packed into one tensor.

    Parameters
    ----------
    node
        The node.
    dims
        Returns the shape of the input at a position.
    """
    heads: int = attribute(node, "num_heads", 1)
    groups: int = attribute(node, "kv_num_heads", heads)
    query, past = dims(0), 3 if node.op_type == "GroupQueryAttention" else 6
    batch, queries = query[:2]
    before = dims(past)[2] if has_input(node, past) else 0
    if len(query) == 5:  # batch, length, heads, 3, width
        return AttentionShape(batch, queries, before + queries, heads, heads, query[4], query[4])
    if not has_input(node, 1):  # queries, keys and values in the last axis
        width = query[2] // (heads + 2 * groups)
        return AttentionShape(batch, queries, before + queries, heads, groups, width, width)
    key, width = dims(1), query[2] // heads
    if len(key) == 5:  # batch, length, heads, 2, width
        return AttentionShape(batch, queries, before + key[1], heads, groups, width, key[4])
    value = dims(2)
    if len(key) == 4:  # batch, heads, length, width
        return AttentionShape(batch, queries, before + key[2], heads, groups, width, value[3])
    return AttentionShape(batch, queries, before + key[1], heads, groups, width, value[2] // groups)
