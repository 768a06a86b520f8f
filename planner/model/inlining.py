"""Bodies of control-flow nodes and of local functions; inlining that keeps annotations.

onnx's inliner drops the metadata and the device annotations of a call, and leaves the names of tensors in the
annotations of a function's nodes as they were before it renamed the tensors. Before inlining, each annotated call
therefore gets a copy of its function with the call's annotations, and tensors are numbered instead of named.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import onnx
from onnx import checker, inliner

from planner.errors import ModelError

Key = tuple[str, str, str]

NUMBERED: Final = "\N{NUMERO SIGN}"


def bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yield the bodies of a control-flow node."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def all_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Yield nodes and those in their bodies."""
    for node in nodes:
        yield node
        for body in bodies(node):
            yield from all_nodes(body.node)


def inline_functions(model: onnx.ModelProto, where: str) -> onnx.ModelProto:
    """Return a model without local functions; nodes keep the annotations of bodies, and get those of their calls.

    The given model is changed: a copy of its weights may not fit into memory.

    Raises
    ------
    ModelError
        If a function calls itself, or is called with the wrong inputs.
    """
    for nodes in (model.graph.node, *(function.node for function in model.functions)):
        for node in all_nodes(nodes):
            _number_tensors(node)
    functions = {(each.domain, each.name, each.overload): each for each in model.functions}
    if recursive := _recursive(functions):
        raise ModelError("a local function calls itself", where=where, value=recursive, expected="no recursion")
    pending = list(all_nodes(model.graph.node))
    while pending:
        call = pending.pop()
        function = functions.get((call.domain, call.op_type, call.overload))
        if function is not None and (call.metadata_props or call.device_configurations):
            copy = model.functions.add()
            copy.CopyFrom(function)
            copy.overload = call.overload = f"{call.overload}/{len(model.functions)}"
            for node in all_nodes(copy.node):
                _inherit(node, call)
            pending += all_nodes(copy.node)
    try:
        inlined = inliner.inline_local_functions(model)
    except (RuntimeError, ValueError, checker.ValidationError) as error:
        reason = next(iter(str(error).splitlines()), "")
        raise ModelError(f"a local function cannot be inlined ({reason})", where=where) from None
    for node in all_nodes(inlined.graph.node):
        _name_tensors(node)
    return inlined


def _recursive(functions: Mapping[Key, onnx.FunctionProto]) -> str:
    """Return the name of a function that calls itself, maybe by way of others; empty if none does."""
    calls = {
        key: {(each.domain, each.op_type, each.overload) for each in all_nodes(function.node)} & functions.keys()
        for key, function in functions.items()
    }
    while leaves := [key for key, called in calls.items() if not called & calls.keys()]:
        for key in leaves:
            del calls[key]
    return str(next(iter(calls))[1]) if calls else ""


def _inherit(node: onnx.NodeProto, call: onnx.NodeProto) -> None:
    """Copy to a node the annotations of its call that it lacks, without those of tensors, which are not its own."""
    keys = {entry.key for entry in node.metadata_props}
    node.metadata_props.extend(entry for entry in call.metadata_props if entry.key not in keys)
    known = {annotation.configuration_id for annotation in node.device_configurations}
    for annotation in call.device_configurations:
        if annotation.configuration_id not in known:
            copy = node.device_configurations.add()
            copy.CopyFrom(annotation)
            copy.ClearField("sharding_spec")


def _number_tensors(node: onnx.NodeProto) -> None:
    names = [*node.input, *node.output]
    for annotation in node.device_configurations:
        for spec in annotation.sharding_spec:
            if spec.tensor_name in names:
                spec.tensor_name = f"{NUMBERED}{names.index(spec.tensor_name)}"


def _name_tensors(node: onnx.NodeProto) -> None:
    names = [*node.input, *node.output]
    for annotation in node.device_configurations:
        for spec in annotation.sharding_spec:
            number = str(spec.tensor_name).removeprefix(NUMBERED)  # a damaged file's names may be bytes
            if number != spec.tensor_name and number.isdecimal() and int(number) < len(names):
                spec.tensor_name = names[int(number)]
