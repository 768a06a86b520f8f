"""Sizes of the axes that a model names.

Exporters name the axes whose length is open: ``batch``, ``past_sequence_length``. One symbol stands for one size in the
whole model, so that it is given once, with ``--axis`` or by the shape of one input. Other symbols follow: they are sums
and products of known ones (``past + 1``), or the sizes that shape inference finds for tensors whose axes they name.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import onnx
from onnx import TypeProto, helper

from planner.errors import Fault, ModelError
from planner.model.sequences import dims_of
from planner.model.source import ModelSource

OPERATIONS: Final[Mapping[type[ast.operator], Callable[[int, int], int]]] = MappingProxyType(
    {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.FloorDiv: operator.floordiv}
)
BROADCASTS: Final = frozenset({"Add", "Sub", "Mul", "Div", "And", "Or", "Where", "Equal", "Less", "Greater"})

Dims = list[int | str | None]
"""Length, symbol or nothing known, for each axis."""


@dataclass(frozen=True)
class Axes:
    """Sizes of a model's named axes.

    Parameters
    ----------
    given
        Those that the user gave.
    follow
        Those that follow from them.
    """

    given: Mapping[str, int]
    follow: Mapping[str, int]

    @property
    def sizes(self) -> dict[str, int]:
        """All of them."""
        return {**self.given, **self.follow}

    def __str__(self) -> str:
        """Return them as one line: ``batch=1, past=4; total=16 follows``; empty if there are none."""
        given, follow = (
            ", ".join(f"{name}={size}" for name, size in kind.items()) for kind in (self.given, self.follow)
        )
        verb = "follows" if len(self.follow) == 1 else "follow"
        return "; ".join(filter(None, (given, f"{follow} {verb}" if follow else "")))


def given_sizes(
    source: ModelSource, shape: Mapping[str, Sequence[int]], axes: Mapping[str, int]
) -> tuple[dict[str, int], list[Fault]]:
    """Return the sizes that the user gives to named axes: by name, or in the shape of an input.

    Returns
    -------
    sizes, faults
        Sizes by symbol; symbols that are unknown or get several sizes.
    """
    known = {symbol: None for value in _values(source) for symbol in symbols_of(value.type)}
    where = str(source.path)
    expected = f"one of {', '.join(known)}" if known else "a model that names axes; set shapes with --shape"
    faults = [Fault("--axis names an unknown axis", where, name, expected) for name in axes if name not in known]
    faults += [
        Fault(f"not a size of axis {name!r}", where, size, "a whole number of 0 or more")
        for name, size in axes.items()
        if not isinstance(size, int) or size < 0
    ]
    requested = _requested_sizes(source, shape)
    for symbol, found in requested.items():
        wrong = [size for size in found if size != axes.get(symbol, size)]
        if wrong:
            what = f"--axis contradicts --shape of input {found[wrong[0]]!r}"
            faults.append(Fault(what, where, f"{symbol}={axes[symbol]}", f"{symbol}={wrong[0]}"))
    agreed = {symbol: next(iter(found)) for symbol, found in requested.items() if len(found) == 1}
    return {**agreed, **axes}, faults


def several_sizes(source: ModelSource, shape: Mapping[str, Sequence[int]]) -> list[Fault]:
    """Return the named axes that shapes of inputs give several sizes, which one symbol cannot have.

    Some models call different axes by one name and run all the same, so that this alone is no error.
    """
    faults = []
    for symbol, found in _requested_sizes(source, shape).items():
        if len(found) > 1:
            sizes = " and ".join(f"{size} in {name!r}" for size, name in found.items())
            what = f"inputs give axis {symbol!r} several sizes"
            faults.append(Fault(what, str(source.path), sizes, f"one size, as with --axis {symbol}={max(found)}"))
    return faults


def _requested_sizes(source: ModelSource, shape: Mapping[str, Sequence[int]]) -> dict[str, dict[int, str]]:
    """Return the sizes that shapes of inputs give to each symbol, with the first input of each size."""
    sizes: dict[str, dict[int, str]] = {}
    for value in source.proto.graph.input:
        for symbol, size in _requested(value, shape.get(value.name, ())):
            sizes.setdefault(symbol, {}).setdefault(size, value.name)
    return sizes


def _requested(value: onnx.ValueInfoProto, sizes: Sequence[int]) -> Iterator[tuple[str, int]]:
    dims = value.type.tensor_type.shape.dim
    for dim, size in zip(dims, sizes, strict=False):
        if is_name(dim.dim_param) and len(dims) == len(sizes):
            yield dim.dim_param, int(size)


def resolve(
    source: ModelSource,
    given: Mapping[str, int],
    walk: Callable[[Mapping[str, int]], Mapping[str, TypeProto]],
) -> Axes:
    """Return the given sizes with those that follow from them.

    Parameters
    ----------
    walk
        Infers the types of all tensors for sizes of some axes; the others are left open.
    """
    open_symbols = {symbol: None for value in source.proto.graph.input for symbol in symbols_of(value.type)}
    sizes = _calculated(source, given)
    while not open_symbols.keys() <= sizes.keys():
        try:
            types = walk(sizes)
        except ModelError:  # a model that is invalid whatever the sizes are is refused when all of them are known
            break
        found = _found(source, types, sizes)
        if not found:
            break
        sizes = _calculated(source, {**sizes, **found})
    return Axes(dict(given), {name: size for name, size in sizes.items() if name not in given})


def contradictions(
    source: ModelSource, axes: Mapping[str, int], sizes: Mapping[str, int], types: Mapping[str, TypeProto]
) -> Iterator[Fault]:
    """Yield a fault for each axis whose given size is not that of the tensor whose axis it names."""
    where = str(source.path)
    for name, size in axes.items():
        others = {symbol: known for symbol, known in sizes.items() if symbol != name}
        computed = _calculate(name, others)
        if computed not in (None, size):
            expected = f"{computed}, which follows from the other axes"
            yield Fault("--axis contradicts another axis", where, f"{name}={size}", expected)
    for value in (*source.proto.graph.value_info, *source.proto.graph.output):
        inferred = dims_of(types.get(value.name)) or ()
        for symbol, size in _requested(value, inferred):
            if axes.get(symbol, size) != size:
                expected = f"{symbol}={size}, the size of that axis of tensor {value.name!r}"
                yield Fault("--axis contradicts the other sizes", where, f"{symbol}={axes[symbol]}", expected)


def output_sizes(source: ModelSource, types: Mapping[str, TypeProto], known: Mapping[str, int]) -> dict[str, int]:
    """Return the sizes of axes that only the model's outputs name."""
    return {
        symbol: size
        for value in source.proto.graph.output
        for symbol, size in _requested(value, dims_of(types.get(value.name)) or ())
        if symbol not in known
    }


def with_sizes(kind: TypeProto, requested: Sequence[int] | None, sizes: Mapping[str, int]) -> TypeProto:
    """Return a type with open axes filled in from the requested shape or by name."""
    filled = TypeProto()
    filled.CopyFrom(kind)
    tensor = filled.tensor_type
    if requested is not None and not tensor.HasField("shape"):
        tensor.shape.CopyFrom(onnx.TensorShapeProto(dim=[onnx.TensorShapeProto.Dimension() for _ in requested]))
    for index, dim in enumerate(tensor.shape.dim if kind.HasField("tensor_type") else ()):
        if requested is not None and index < len(requested) and not is_fixed(dim):
            dim.dim_value = requested[index]
        elif dim.dim_param in sizes:
            dim.dim_value = sizes[dim.dim_param]
    return filled


def is_fixed(dim: onnx.TensorShapeProto.Dimension) -> bool:
    """Return whether the file fixes an axis; 0 is a legal length, as that of an empty cache."""
    return dim.HasField("dim_value") and dim.dim_value >= 0


def _values(source: ModelSource) -> Iterator[onnx.ValueInfoProto]:
    graph = source.proto.graph
    yield from (*graph.input, *graph.output, *graph.value_info)


def symbols_of(kind: TypeProto) -> Iterator[str]:
    """Yield the names of a tensor's open axes."""
    for dim in kind.tensor_type.shape.dim:
        if not is_fixed(dim) and is_name(dim.dim_param):
            yield dim.dim_param


def is_name(symbol: str) -> bool:
    """Return whether a symbol names an axis: some exporters write ``?`` or ``-1`` for any open axis."""
    is_text = isinstance(symbol, str)  # a damaged file's may be bytes
    return is_text and any(letter.isalpha() for letter in symbol) and symbol != "None"


def _calculated(source: ModelSource, sizes: Mapping[str, int]) -> dict[str, int]:
    """Return the sizes with those of all symbols that are calculations with known ones."""
    symbols = {symbol: None for value in source.proto.graph.input for symbol in symbols_of(value.type)}
    calculated = {symbol: _calculate(symbol, sizes) for symbol in symbols if symbol not in sizes}
    return {**sizes, **{symbol: size for symbol, size in calculated.items() if size is not None}}


def _calculate(symbol: str, sizes: Mapping[str, int]) -> int | None:
    """Return the value of a symbol such as ``past + 1``, or None if it is none, or a part is unknown."""

    def value(part: ast.expr) -> int:
        if isinstance(part, ast.BinOp):
            return OPERATIONS[type(part.op)](value(part.left), value(part.right))
        if isinstance(part, ast.Constant) and type(part.value) is int:
            return part.value
        return sizes[ast.unparse(part)]

    try:
        size = value(ast.parse(symbol.strip(), mode="eval").body)
    except (SyntaxError, ValueError, KeyError, ZeroDivisionError, RecursionError, MemoryError):
        return None
    return size if size >= 0 else None


def _found(source: ModelSource, types: Mapping[str, TypeProto], sizes: Mapping[str, int]) -> dict[str, int]:
    """Return the sizes that the walk found for open symbols; none for a symbol with several."""
    found: dict[str, set[int]] = {}
    stated = ((_dims(value.type) or [], _dims(types.get(value.name)) or []) for value in _values(source))
    pairs = [pair for pair in stated if len(pair[0]) == len(pair[1])]
    for node in source.proto.graph.node:
        pairs += _equal_dims(node, types)
    for first, second in pairs:
        for one, other in (*zip(first, second, strict=True), *zip(second, first, strict=True)):
            if isinstance(one, str) and isinstance(other, int) and one not in sizes:
                found.setdefault(one, set()).add(other)
    return {symbol: values.pop() for symbol, values in found.items() if len(values) == 1}


def _dims(kind: TypeProto | None) -> Dims | None:
    if kind is None or not (kind.HasField("tensor_type") and kind.tensor_type.HasField("shape")):
        return None
    return [
        dim.dim_value if is_fixed(dim) else dim.dim_param if is_name(dim.dim_param) else None
        for dim in kind.tensor_type.shape.dim
    ]


def _equal_dims(node: onnx.NodeProto, types: Mapping[str, TypeProto]) -> Iterable[tuple[Dims, Dims]]:
    """Return lists of axes that have the same lengths, because a node joins them."""
    dims = [_dims(types.get(name)) for name in node.input]
    known = [each for each in dims if each is not None]
    if node.op_type == "GroupQueryAttention":
        return _cache_dims(node, dims, types)
    if len(known) < len(dims):
        return ()
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    if node.op_type == "MatMul" and min(map(len, known)) >= 2:
        return [(known[0][-1:], known[1][-2:-1])]
    if node.op_type == "Concat" and len({len(each) for each in known}) == 1:
        axis = attributes["axis"] % len(known[0])
        others = [[*each[:axis], *each[axis + 1 :]] for each in known]
        return [(others[0], other) for other in others[1:]]
    return list(_aligned(known)) if node.op_type in BROADCASTS else ()


def _aligned(operands: Sequence[Dims]) -> Iterator[tuple[Dims, Dims]]:
    """Yield the axes of operands that are extended to a common shape; one of length 1 says nothing of the others."""
    for first in operands:
        for second in operands:
            pairs = zip(reversed(first), reversed(second), strict=False)
            kept = [(one, other) for one, other in pairs if isinstance(one, str) and other != 1]
            yield [one for one, _ in kept], [other for _, other in kept]


def _cache_dims(
    node: onnx.NodeProto, dims: Sequence[Dims | None], types: Mapping[str, TypeProto]
) -> Iterator[tuple[Dims, Dims]]:
    """Yield the axes of the caches of onnxruntime's ``GroupQueryAttention``: new keys are put behind the past ones."""
    attributes = {attribute.name: attribute.i for attribute in node.attribute}
    heads, key_heads = attributes.get("num_heads", 0), attributes.get("kv_num_heads", 0)
    query, key, past = (dims[position] if position < len(dims) else None for position in (0, 1, 3))
    if not (query and past and len(query) == 3 and len(past) == 4 and heads > 0 and key_heads > 0):
        return
    hidden, parts = query[2], heads if key is not None else heads + 2 * key_heads
    width = hidden // parts if isinstance(hidden, int) else None
    yield past, [query[0], key_heads, None, width]
    before, new = past[2], query[1]
    total = before + new if isinstance(before, int) and isinstance(new, int) else None
    for name in node.output[1:3]:
        present = _dims(types.get(name))
        if present is not None and len(present) == 4:
            yield present, [query[0], key_heads, total, width]
