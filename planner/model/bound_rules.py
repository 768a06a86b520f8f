"""What operators require of their inputs: indices below the rows of a table, and cheap operations that pass it on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import inf
from typing import Final, NamedTuple, Protocol

import numpy as np
import onnx


class Interval(NamedTuple):
    """Numbers from ``low`` to ``high``."""

    low: float
    high: float

    def meet(self, other: Interval) -> Interval:
        """Return the intersection, which may be empty."""
        return Interval(max(self.low, other.low), min(self.high, other.high))

    def scaled(self, factor: float) -> Interval:
        """Return all numbers multiplied by ``factor``."""
        ends = [end * factor if end else 0.0 for end in self]
        return Interval(min(ends), max(ends))

    def shifted(self, low: float, high: float) -> Interval:
        """Return the numbers that stay in the interval if any number from ``low`` to ``high`` is added."""
        return Interval(self.low - low, self.high - high)


ANY: Final = Interval(-inf, inf)
FALSE: Final = Interval(0, 0)
TRUE: Final = Interval(1, 1)


class Known(Protocol):
    """What is known of the tensors of a model."""

    def dims(self, name: str) -> tuple[int, ...] | None:
        """Return the shape of a tensor, if known."""

    def range_of(self, name: str) -> Interval | None:
        """Return the smallest and the largest value of a tensor, if known."""


Found = Iterator[tuple[str, Interval]]
Rule = Callable[[onnx.NodeProto, Interval, Known], Found]
"""Yields, for the values that an output may have, those of the inputs."""


def unrelated(_node: onnx.NodeProto, _interval: Interval, _known: Known) -> Found:
    """Yield nothing: the output's values say nothing about those of the inputs."""
    yield from ()


def _first(node: onnx.NodeProto, interval: Interval, _known: Known) -> Found:
    yield node.input[0], interval


def _all(node: onnx.NodeProto, interval: Interval, _known: Known) -> Found:
    yield from ((name, interval) for name in node.input)


def _where(node: onnx.NodeProto, interval: Interval, _known: Known) -> Found:
    yield from ((name, interval) for name in node.input[1:])


def _scatter(node: onnx.NodeProto, interval: Interval, _known: Known) -> Found:
    yield from ((node.input[index], interval) for index in (0, 2))


def _sum(node: onnx.NodeProto, interval: Interval, known: Known) -> Found:
    constants = [constant for name in node.input if (constant := known.range_of(name))]
    open_names = [name for name in node.input if known.range_of(name) is None]
    rest = interval.shifted(sum(low for low, _ in constants), sum(high for _, high in constants))
    yield from ((name, rest.scaled(1 / len(open_names))) for name in open_names)


def _difference(node: onnx.NodeProto, interval: Interval, known: Known) -> Found:
    left, right = node.input
    if (constant := known.range_of(right)) is not None:
        yield left, interval.shifted(-constant.high, -constant.low)
    elif (constant := known.range_of(left)) is not None:
        yield right, interval.shifted(*constant).scaled(-1)
    else:
        yield left, Interval(max(interval.low, 0), interval.high)
        yield right, Interval(0, max(-interval.low, 0))


def _negative(node: onnx.NodeProto, interval: Interval, _known: Known) -> Found:
    yield node.input[0], interval.scaled(-1)


def _product(node: onnx.NodeProto, interval: Interval, known: Known) -> Found:
    for name, other in (tuple(node.input), tuple(reversed(node.input))):
        factor = known.range_of(other)
        if factor is not None and factor.low == factor.high != 0:
            yield name, interval.scaled(1 / factor.high)
        elif factor is not None:
            yield name, interval.scaled(1 / max(abs(factor.low), abs(factor.high), 1))
        elif known.range_of(name) is None and interval.high >= 0:
            yield name, Interval(0, math.sqrt(interval.high))


def _quotient(node: onnx.NodeProto, interval: Interval, known: Known) -> Found:
    divisor = known.range_of(node.input[1])
    if divisor is not None and divisor.low > 0:
        yield node.input[0], interval.scaled(divisor.low)


def _total(node: onnx.NodeProto, interval: Interval, known: Known) -> Found:
    before, after = known.dims(node.input[0]), known.dims(node.output[0])
    if before is not None and after is not None and 0 not in before:
        yield node.input[0], interval.scaled(float(np.prod(after) / np.prod(before)))


def _running_total(node: onnx.NodeProto, interval: Interval, known: Known) -> Found:
    dims, axis = known.dims(node.input[0]), known.range_of(node.input[1])
    if dims and axis is not None and 0 not in dims:
        yield node.input[0], Interval(interval.low, interval.high / dims[int(axis.low)])


def _not(node: onnx.NodeProto, interval: Interval, _known: Known) -> Found:
    yield node.input[0], Interval(1 - interval.high, 1 - interval.low)


def _and(node: onnx.NodeProto, interval: Interval, known: Known) -> Found:
    if interval == TRUE:
        yield from _all(node, interval, known)


def _or(node: onnx.NodeProto, interval: Interval, known: Known) -> Found:
    if interval == FALSE:
        yield from _all(node, interval, known)


_OPPOSITES: Final = {
    "Less": "GreaterOrEqual", "GreaterOrEqual": "Less", "Greater": "LessOrEqual", "LessOrEqual": "Greater",
    "Equal": "Unequal",
}  # fmt: skip
_MIRRORED: Final = {
    "Less": "Greater", "Greater": "Less", "LessOrEqual": "GreaterOrEqual", "GreaterOrEqual": "LessOrEqual"
}  # fmt: skip


def _comparison(node: onnx.NodeProto, interval: Interval, known: Known) -> Found:
    if interval not in (TRUE, FALSE):
        return
    left, right = node.input
    kind, name, constant = node.op_type, left, known.range_of(right)
    if constant is None:
        kind, name, constant = _MIRRORED.get(kind, kind), right, known.range_of(left)
    if constant is None or constant.low != constant.high:
        return
    holds = {
        "Equal": constant,
        "Unequal": Interval(constant.high + 1, inf),
        "Less": Interval(-inf, math.ceil(constant.low) - 1),
        "LessOrEqual": Interval(-inf, constant.low),
        "Greater": Interval(math.floor(constant.high) + 1, inf),
        "GreaterOrEqual": Interval(constant.high, inf),
    }
    yield name, holds[kind if interval == TRUE else _OPPOSITES[kind]]


RULES: Final[Mapping[str, Rule]] = {
    **dict.fromkeys(
        (
            "Identity", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Flatten", "Expand", "Tile", "Slice", "Split",
            "Cast", "CastLike", "Gather", "GatherElements", "GatherND", "Abs", "Ceil", "Floor", "Round", "Clip", "Mod",
            "ReduceMax", "ReduceMin", "ReduceMean", "Pad", "Compress", "TopK", "Trilu", "DepthToSpace", "SpaceToDepth",
        ),
        _first,
    ),
    **dict.fromkeys(("Concat", "Max", "Min", "Mean"), _all),
    **dict.fromkeys(("ScatterElements", "ScatterND", "Scatter"), _scatter),
    **dict.fromkeys(("Add", "Sum"), _sum),
    **dict.fromkeys(_OPPOSITES, _comparison),
    "Where": _where,
    "Sub": _difference,
    "Neg": _negative,
    "Mul": _product,
    "Div": _quotient,
    "ReduceSum": _total,
    "CumSum": _running_total,
    "Not": _not,
    "And": _and,
    "Or": _or,
}  # fmt: skip


class _Table(NamedTuple):
    """Indices of an operator, and the input and axis that they count."""

    indices: int
    table: int
    axis: int | str
    """Number, or name of the attribute with the number, 0 by default."""
    first: int = 0
    """The smallest index: 1 if it is the length of a sequence, which is at most that of the axis."""


_TABLES: Final[Mapping[str, Sequence[_Table]]] = {
    **dict.fromkeys(("Gather", "GatherElements", "ScatterElements", "Scatter"), (_Table(1, 0, "axis"),)),
    **dict.fromkeys(("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"), (_Table(1, 0, 1),)),
    **dict.fromkeys(("RNN", "GRU", "LSTM"), (_Table(4, 0, "layout", first=1),)),
    "ArrayFeatureExtractor": (_Table(1, 0, -1),),
    "ReverseSequence": (_Table(1, 0, "time_axis", first=1),),
    "RoiAlign": (_Table(2, 0, 0),),
    # com.microsoft
    "EmbedLayerNormalization": (_Table(0, 2, 0), _Table(1, 4, 0), _Table(8, 3, 0)),
    "GatherBlockQuantized": (_Table(1, 0, "gather_axis"),),
    "GroupQueryAttention": (_Table(9, 7, 0),),
}


def lookups(node: onnx.NodeProto, known: Known) -> Found:
    """Yield the values that a node's own inputs may have, whatever its outputs are used for."""
    attributes = {attribute.name: attribute.i for attribute in node.attribute}
    for table in _TABLES.get(node.op_type, ()):
        dims = known.dims(_input(node, table.table)) or ()
        axis = attributes.get(table.axis, 0) if isinstance(table.axis, str) else table.axis
        if -len(dims) <= axis < len(dims):
            yield _input(node, table.indices), Interval(table.first, dims[axis] - 1 + table.first)
    yield from _SPECIAL.get(node.op_type, _nothing)(node, known)


def _input(node: onnx.NodeProto, index: int) -> str:
    """Return the name of an input, empty if it is absent."""
    return node.input[index] if index < len(node.input) else ""


def _nothing(_node: onnx.NodeProto, _known: Known) -> Found:
    yield from ()


def _points(node: onnx.NodeProto, known: Known) -> Found:
    """Yield the indices of ``GatherND`` and ``ScatterND``, tuples along the last axis, below the shortest axis."""
    dims, indices = known.dims(node.input[0]), known.dims(node.input[1])
    skipped = next((attribute.i for attribute in node.attribute if attribute.name == "batch_dims"), 0)
    axes = dims[skipped : skipped + indices[-1]] if dims and indices else ()
    if axes:
        yield node.input[1], Interval(0, min(axes) - 1)


def _classes(node: onnx.NodeProto, known: Known) -> Found:
    depth = known.range_of(node.input[1])
    if depth is not None:
        yield node.input[0], Interval(0, depth.low - 1)


def _positions(node: onnx.NodeProto, known: Known) -> Found:
    """Yield the positions of a rotary embedding: of all tokens, or in onnxruntime's also of the first one only."""
    positions, cache = (1, 2) if node.domain == "com.microsoft" else (3, 1)
    rows, data = known.dims(_input(node, cache)), known.dims(node.input[0])
    if rows and data:
        first_only = positions == 1 and known.dims(node.input[1]) == (1,)
        yield _input(node, positions), Interval(0, rows[0] - (data[-2] if first_only else 1))


def _lengths(node: onnx.NodeProto, known: Known) -> Found:
    """Yield the last position of each sequence with a cache: all tokens count, as far as their number is known."""
    total = known.range_of(_input(node, 6))
    if total is not None:
        yield node.input[5], Interval(total.low - 1, total.low - 1)


def _mask(node: onnx.NodeProto, _known: Known) -> Found:
    yield _input(node, 7), Interval(0, 1)


def _written(node: onnx.NodeProto, known: Known) -> Found:
    """Yield where ``TensorScatter`` may begin to write into a cache."""
    cache, update = (known.dims(name) for name in node.input[:2])
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), -2)
    if cache and update:
        yield _input(node, 2), Interval(0, cache[axis] - update[axis])


_SPECIAL: Final[Mapping[str, Callable[[onnx.NodeProto, Known], Found]]] = {
    "GatherND": _points,
    "ScatterND": _points,
    "OneHot": _classes,
    "RotaryEmbedding": _positions,
    "GroupQueryAttention": _lengths,
    "EmbedLayerNormalization": _mask,
    "TensorScatter": _written,
}
