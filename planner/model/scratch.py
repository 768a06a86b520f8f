"""Scratch memory of operators on a CPU, beside their inputs and outputs.

onnxruntime reports it for each node (``session.collect_node_memory_stats_to_file``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
import onnx

from planner.model.lookup import Lookup, attribute, output_elements, shape_of

Pieces = tuple[int, ...]
"""Sizes in bytes of what is allocated at the same time."""
Rule = Callable[[onnx.NodeProto, Lookup], int | Pieces]

FLOAT_BYTES: Final = 4
POINTER_BYTES: Final = 8
SEGMENT_BYTES: Final = 128 * 128 * FLOAT_BYTES
"""Part of the unrolled input that a convolution with few filters holds at a time, per thread."""

FLASH_BYTES: Final = 2**18
"""Scores that attention holds at a time if it has no mask."""

POINT_BYTES: Final = 56
"""Four places, four weights and a mask of a point that is sampled from an image."""
CACHED_BYTES: Final = 48
"""An entry of a hash table from an integer to a number, with the memory around it and its share of the table."""
SYMMETRIC_GROUPS: Final = 16
"""Depthwise convolutions with 8 bits are computed without sums in memory if their channels come in so many."""


def scratch_pieces(node: onnx.NodeProto, lookup: Lookup, *, integer: bool = False) -> Pieces:
    """Return the sizes of the scratch buffers of a node, which are alive at the same time, in bytes.

    Parameters
    ----------
    node
        The node.
    lookup
        Shapes of tensors.
    integer
        Whether the node computes with 8 bits, because its inputs are dequantised and its output is quantised.

    Raises
    ------
    UnknownShapeError
        If a shape is unknown.
    """
    rule = INTEGER_RULES.get(node.op_type) if integer else RULES.get(node.op_type)
    pieces = rule(node, lookup) if rule else 0
    return tuple(filter(None, pieces if isinstance(pieces, tuple) else (pieces,)))


def heap_bytes(node: onnx.NodeProto, lookup: Lookup) -> int:
    """Return the scratch memory of a node that comes from the heap and not from the arena, in bytes.

    Raises
    ------
    UnknownShapeError
        If a shape is unknown.
    """
    rule = HEAP_RULES.get(node.op_type)
    return rule(node, lookup) if rule else 0


def _conv(node: onnx.NodeProto, lookup: Lookup) -> int:
    """Count the unrolled input of one group (im2col), as a whole if there are more filters than pixels."""
    weight = shape_of(node.input[1], lookup)
    pixels = math.prod(shape_of(node.output[0], lookup)[2:])
    if math.prod(weight[2:]) == 1:
        return 0
    whole = math.prod(weight[1:]) * pixels * FLOAT_BYTES
    filters = weight[0] // attribute(node, "group", 1)
    return whole if filters > pixels else min(whole, SEGMENT_BYTES)


def _conv_transpose(node: onnx.NodeProto, lookup: Lookup) -> int:
    """Count the product of one group's input with its weights, before overlapping pixels are added."""
    weight = shape_of(node.input[1], lookup)
    return math.prod(weight[1:]) * math.prod(shape_of(node.input[0], lookup)[2:]) * FLOAT_BYTES


def _integer_conv(node: onnx.NodeProto, lookup: Lookup, weight: int = 1) -> Pieces:
    """Count the addresses of the pixels under a depthwise kernel, or else the unrolled input.

    Sums of 32 bits are written to memory if the input channels do not come in fours, or those of a depthwise
    convolution in sixteens. (``qlinearconv.cc``, and ``MlasConvSymPackWSize``)
    """
    shape = shape_of(node.input[weight], lookup)
    pixels = math.prod(shape_of(node.output[0], lookup)[2:])
    kernel = math.prod(shape[2:])
    sums = shape[0] * pixels * FLOAT_BYTES
    if shape[1] == 1:
        return (sums if shape[0] % SYMMETRIC_GROUPS else 0, kernel * pixels * POINTER_BYTES)
    return (sums if shape[1] % 4 else 0, shape[1] * kernel * pixels if kernel > 1 else 0)


def _where(node: onnx.NodeProto, lookup: Lookup) -> int:
    """Count both selections, each as large as the condition and the choice together."""
    condition, *choices = (shape_of(name, lookup) for name in node.input)
    return sum(math.prod(np.broadcast_shapes(condition, choice)) for choice in choices) * FLOAT_BYTES


def _outputs(count: int) -> Rule:
    """Return a rule for operators that onnxruntime computes in steps, with so many further results of the same size."""
    return lambda node, lookup: count * output_elements(node, lookup) * FLOAT_BYTES


def _variadic(node: onnx.NodeProto, lookup: Lookup) -> int:
    """Count one partial result if there are more than two inputs."""
    return output_elements(node, lookup) * FLOAT_BYTES if len(node.input) > 2 else 0


def _softmax(node: onnx.NodeProto, lookup: Lookup) -> int:
    """Count copies of input and output with the axis last."""
    shape = shape_of(node.output[0], lookup)
    axis = attribute(node, "axis", -1)
    return 0 if axis in (-1, len(shape) - 1) else 2 * math.prod(shape) * FLOAT_BYTES


def _lrn(node: onnx.NodeProto, lookup: Lookup) -> int:
    """Count the squares, and the squares with further channels at both ends."""
    batch, channels, *image = shape_of(node.output[0], lookup)
    size: int = attribute(node, "size", 1)
    return (2 * batch * channels + size) * math.prod(image) * FLOAT_BYTES


def _einsum(node: onnx.NodeProto, lookup: Lookup) -> int:
    """Count the inputs and the output, each with its axes in another order."""
    return sum(math.prod(shape_of(name, lookup)) for name in (*node.input, node.output[0])) * FLOAT_BYTES


def _resize(node: onnx.NodeProto, lookup: Lookup) -> int:
    """Count two positions and two weights for each row and column."""
    mode = attribute(node, "mode", b"nearest")
    return 4 * FLOAT_BYTES * sum(shape_of(node.output[0], lookup)[2:]) if mode == b"linear" else 0


def _cubic_resize(node: onnx.NodeProto, lookup: Lookup) -> int:
    """Count the hash table of the rows of a channel that are interpolated along the other axis.

    Four rows of the input for each of the output, and no more than there are, with those beyond the edges.
    """
    image = shape_of(node.output[0], lookup)[-2:]
    if attribute(node, "mode", b"nearest") != b"cubic" or len(image) < 2:
        return 0
    return min(shape_of(node.input[0], lookup)[-2] + 3, 4 * image[0]) * image[1] * CACHED_BYTES


def _grid_sample(node: onnx.NodeProto, lookup: Lookup) -> int:
    """Count what is known of each point of an image, if it is interpolated linearly with zeros around it."""
    points = shape_of(node.output[0], lookup)[2:]
    mode, around = attribute(node, "mode", b"linear"), attribute(node, "padding_mode", b"zeros")
    planned = mode in (b"linear", b"bilinear") and around == b"zeros" and not attribute(node, "align_corners", 0)
    return math.prod(points) * POINT_BYTES if planned and len(points) == 2 else 0


def _scatter(node: onnx.NodeProto, lookup: Lookup) -> int:
    """Count the indices, which become offsets."""
    return math.prod(shape_of(node.input[1], lookup)) * POINTER_BYTES


def _recurrent(gates: int) -> Rule:
    """Return a rule for a recurrent operator: all gates of all steps, and a reversed copy of input and output."""

    def count(node: onnx.NodeProto, lookup: Lookup) -> int:
        steps, batch, features = shape_of(node.input[0], lookup)
        directions, _, hidden = shape_of(node.input[2], lookup)
        elements = directions * batch * hidden * (gates * steps + gates + 2)
        if attribute(node, "direction", b"forward") != b"forward":
            elements += steps * batch * (features + hidden)
        return elements * FLOAT_BYTES

    return count


def _attention(node: onnx.NodeProto, lookup: Lookup) -> Pieces:
    """Count the scores of all pairs of queries and keys, and the mask."""
    query, key = (shape_of(name, lookup) for name in node.input[:2])
    heads = query[1] if len(query) == 4 else attribute(node, "q_num_heads", 1)
    pairs = query[-2] * key[-2]
    return (query[0] * heads * pairs * FLOAT_BYTES, pairs * FLOAT_BYTES)


def _multi_head_attention(node: onnx.NodeProto, lookup: Lookup) -> int:
    """Count queries, keys and values by head; the scores too if there is a mask, else those of a few rows."""
    shapes = [shape_of(name, lookup) for name in node.input[:3] if name]
    heads: int = attribute(node, "num_heads", 1)
    scores = shapes[0][0] * heads * shapes[0][1] * shapes[-1][1] * FLOAT_BYTES
    if not any(node.input[3:]):
        scores = min(scores, FLASH_BYTES)
    return sum(map(math.prod, shapes)) * FLOAT_BYTES + scores


RULES: Final[Mapping[str, Rule]] = {
    "Attention": _attention,
    "Conv": _conv,
    "ConvInteger": _integer_conv,
    "ConvTranspose": _conv_transpose,
    "Einsum": _einsum,
    "FusedConv": _conv,
    "GRU": _recurrent(3),
    "GroupNormalization": _outputs(3),
    "HardSwish": _outputs(1),
    "LRN": _lrn,
    "LSTM": _recurrent(4),
    "LogSoftmax": _softmax,
    "Max": _variadic,
    "Mean": _variadic,
    "Min": _variadic,
    "Mish": _outputs(1),
    "MultiHeadAttention": _multi_head_attention,
    "QLinearConv": lambda node, lookup: _integer_conv(node, lookup, 3),
    "RNN": _recurrent(1),
    "Resize": _resize,
    "ScatterElements": _scatter,
    "Softmax": _softmax,
    "Sum": _variadic,
    "Where": _where,
}
HEAP_RULES: Final[Mapping[str, Callable[[onnx.NodeProto, Lookup], int]]] = {
    "GridSample": _grid_sample,
    "Resize": _cubic_resize,
}
INTEGER_RULES: Final[Mapping[str, Rule]] = {"Conv": _integer_conv}
