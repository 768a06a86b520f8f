"""Inline the functions of a model, and tell what onnxruntime calls the nodes that they become.

onnxruntime numbers the nodes of a graph in the order of the file, without constants. It then inlines the calls of
functions, in passes: first all calls of the graph in order, then all calls that these brought in, and so on. Inlined
nodes get the next numbers, and the prefix of their call before their name in the function: ``_inlfunc_<Function>_`` for
the first call, and ``_inlfunc_<Function>_token_<k>_`` for later ones, where all functions share the counter k. Nodes in
bodies of control flow are numbered apart.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import onnx

from planner.model.inlining import inline_functions

PREFIXES = ("_inlfunc_{}_", "_inline_{}")
"""Prefix of inlined names by onnxruntime, and by its version 1.16."""


@dataclass(frozen=True)
class RuntimeNode:
    """A node of a graph, as onnxruntime knows it once the model's functions are inlined.

    Parameters
    ----------
    op_type
        Its operator.
    index
        Its number; None for a constant, which becomes a weight.
    name
        Name of the node in the file or in its function; empty if it has none.
    inlined
        Names that onnxruntime gives to the node and to the tensors it produces, if a function brought it in.
    """

    op_type: str
    index: int | None
    name: str
    inlined: tuple[str, ...]


def inline(model: onnx.ModelProto, where: str) -> tuple[onnx.ModelProto, tuple[RuntimeNode, ...]]:
    """Return a model with its functions inlined, and for each node of its graph what onnxruntime makes of it.

    The second part is empty if ONNX left some call in place. The given model is changed.

    Raises
    ------
    ModelError
        If a function calls itself, or is called with the wrong inputs.
    """
    inlined = inline_functions(model, where) if model.functions else model
    nodes = _runtime_nodes(model)
    agree = [node.op_type for node in nodes] == [node.op_type for node in inlined.graph.node]
    return inlined, nodes if agree else ()


@dataclass
class _Entry:
    """A node, and if it calls a function, the nodes in its place."""

    proto: onnx.NodeProto
    prefix: str | None
    index: int | None
    inside: list[_Entry] = field(default_factory=list)

    def flat(self) -> Iterator[_Entry]:
        if not self.inside:
            yield self
        for entry in self.inside:
            yield from entry.flat()


def _runtime_nodes(model: onnx.ModelProto) -> tuple[RuntimeNode, ...]:
    functions = {(function.domain, function.name, function.overload): function for function in model.functions}
    numbers, tokens, taken = itertools.count(), itertools.count(), set[str]()

    def numbered(nodes: Iterable[onnx.NodeProto], prefix: str | None = None) -> list[_Entry]:
        return [_Entry(node, prefix, None if node.op_type == "Constant" else next(numbers)) for node in nodes]

    entries = numbered(model.graph.node)
    pending: Sequence[_Entry] = entries
    while pending:
        fresh: list[_Entry] = []
        for call in pending:
            function = functions.get((call.proto.domain, call.proto.op_type, call.proto.overload))
            if function is None:
                continue
            prefix = function.name
            while prefix in taken:
                prefix = f"{function.name}_token_{next(tokens)}"
            taken.add(prefix)
            call.inside = numbered(function.node, prefix)
            fresh += call.inside
        pending = fresh
    return tuple(
        RuntimeNode(entry.proto.op_type, entry.index, entry.proto.name, tuple(_inlined_names(entry)))
        for top in entries
        for entry in top.flat()
    )


def _inlined_names(entry: _Entry) -> Iterator[str]:
    if entry.prefix is not None:
        for prefix in PREFIXES:
            names = (entry.proto.name, *entry.proto.output)  # a damaged file's names may be bytes
            yield from (f"{prefix.format(entry.prefix)}{name}" for name in names if name)
