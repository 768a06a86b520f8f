"""Models whose first axis is the batch: several samples can be put one after the other and run as one.

The axis has to be open, that is of no fixed size, in every input and output of the model and in every tensor at a cut.
Sizes are inferred once more for one sample more: an axis is open where its length then grows in proportion.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import onnx

from planner.errors import Fault, ModelError
from planner.model.axes import is_fixed, is_name
from planner.model.chain import Chain
from planner.model.graph import WorkGraph
from planner.model.shapes import Shapes, infer_shapes
from planner.model.source import ModelSource

EXPECTED = "a first axis of no fixed size, which counts samples"


def with_open_batch(
    source: ModelSource, graph: WorkGraph, shapes: Shapes, shape: Mapping[str, Sequence[int]]
) -> Shapes:
    """Return shapes that say which axes grow with the number of samples.

    Parameters
    ----------
    shape
        The shapes that were given for inputs and other tensors.

    Raises
    ------
    ModelError
        If the first axis of an input is not open, or the model does not fit one sample more.
    """
    values = {value.name: value for value in source.proto.graph.input if value.name in graph.inputs}
    where = str(source.path)
    if graph.state:
        raise ModelError("a model that keeps state runs no batches", where=where)
    if faults := [*_closed(values, shapes, where)]:
        raise ModelError(faults)
    samples = {shapes.specs[name].shape[0] for name in values}
    if len(samples) != 1 or 0 in samples:
        found = " and ".join(map(str, sorted(samples)))
        raise ModelError("the first axes of the inputs have several lengths", where=where, value=found, expected="one")
    more = samples.pop() + 1
    requested = {name: (more, *shapes.specs[name].shape[1:]) for name in values}
    symbols = {_symbol(value) for value in values.values()} - {""}
    axes = {**shapes.axes.given, **dict.fromkeys(symbols, more)}
    try:
        return shapes.compared(infer_shapes(source, graph, {**shape, **requested}, axes))
    except ModelError as error:
        raise ModelError([replace(fault, what=f"no batches: {fault.what}") for fault in error.faults]) from error


def checked_for_batches(chain: Chain, where: str) -> Chain:
    """Return a chain whose cuts are open for batches, as it is for one sample.

    Raises
    ------
    ModelError
        If the first axis of a tensor at a cut does not count samples, or another one varies, or there are exits.
    """
    if chain.exits:
        raise ModelError("a model with early exits runs no batches", where=where, value=chain.exits[0].name)
    for cut in chain.cuts:
        for tensor in cut.tensors:
            if tensor.varies != (0,):
                what = "the batch is not the only open axis of a tensor between blocks"
                raise ModelError(what, where=f"{where}, cut {cut.index}", value=tensor.name, expected=EXPECTED)
    cuts = (replace(cut, tensors=tuple(replace(tensor, varies=()) for tensor in cut.tensors)) for cut in chain.cuts)
    return replace(chain, cuts=tuple(cuts))


def _closed(values: Mapping[str, onnx.ValueInfoProto], shapes: Shapes, where: str) -> Iterator[Fault]:
    for name, value in values.items():
        dims = value.type.tensor_type.shape.dim
        if name not in shapes.specs or not shapes.specs[name].shape or (dims and is_fixed(dims[0])):
            found = [dim.dim_value if is_fixed(dim) else dim.dim_param or "?" for dim in dims]
            yield Fault("the batch axis of this input is not open", f"{where}, input {name!r}", found, EXPECTED)


def _symbol(value: onnx.ValueInfoProto) -> str:
    dims = value.type.tensor_type.shape.dim
    return dims[0].dim_param if dims and is_name(dims[0].dim_param) else ""
