"""State that a model keeps from one run to the next: caches of attention, states of recurrent layers.

Such a model has pairs of an input and an output: the state before a run and after it. In a chain, a pair stays with the
block that uses it. It crosses no cut; instead, the small tensor :data:`SEQUENCE` does, which tells the block whose
state a run continues.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

import onnx
from google.protobuf.message import DecodeError

from planner.errors import Fault, ModelError
from planner.model.axes import is_fixed, is_name
from planner.model.chain import STATE_METADATA, StatePair
from planner.model.graph import WorkGraph
from planner.model.shapes import Shapes, infer_shapes
from planner.model.source import ModelSource

CONVENTIONS: Final[Sequence[tuple[str, Sequence[str]]]] = (
    # Optimum, and the builder of onnxruntime-genai
    (r"past_key_values\.(.+)", (r"present.\1", r"present_key_values.\1")),
    (r"past_key_values_(.+)", (r"present_key_values_\1", r"present_\1")),
    (r"past\.(.+)", (r"present.\1",)),
    (r"past_(.+)", (r"present_\1",)),
    # recurrent models, such as voice detectors
    (r"(state)", (r"\1N", r"\1_out")),
)
"""Patterns of an input's name, and what the output that belongs to it may be called."""

FITTING: Final = "equal types; one axis may grow"
"""What the state before and after a run has to be."""

FURTHER: Final = (3, 5)
"""By how much the lengths of an input and of the state differ in the second walk, which tells what axes vary."""


def find_state(
    source: ModelSource, graph: WorkGraph, shapes: Shapes, named: Mapping[str, str] | None
) -> dict[str, str]:
    """Return the outputs with the state after a run, by the inputs with the state before it.

    Parameters
    ----------
    named
        The pairs by their names; empty for none. By default those of :data:`CONVENTIONS` that fit.

    Raises
    ------
    ModelError
        If a named pair does not exist, or its tensors do not fit each other.
    """
    if named is None:
        found = {name: output for name in graph.inputs for output in _by_convention(name, graph)}
        return {
            name: output
            for name, output in found.items()
            if not graph.is_free(output) and _misfit(shapes, name, output) is None
        }
    where = str(source.path)
    faults = [replace(fault, where=where) for _, fault in named_faults(graph.inputs, graph.outputs, named)]
    faults += [
        Fault("this output is no state, since it depends on constants and shapes only", where, name)
        for name in named.values()
        if name in graph.outputs and (name in graph.inputs or graph.is_free(name))
    ]
    if not faults:
        misfits = ((name, output, _misfit(shapes, name, output)) for name, output in named.items())
        faults = [
            Fault(f"the state {name!r} does not fit {output!r}", where, misfit, FITTING)
            for name, output, misfit in misfits
            if misfit is not None
        ]
    if faults:
        raise ModelError(faults)
    return dict(named)


class Declared(NamedTuple):
    """Element type of a tensor, and its lengths, 0 where a length is open; None for an unknown rank."""

    dtype: str
    shape: tuple[int, ...] | None

    @classmethod
    def of(cls, value: onnx.ValueInfoProto) -> Declared:
        """Return that of an input or output."""
        tensor = value.type.tensor_type
        shape = tuple(dim.dim_value for dim in tensor.shape.dim) if tensor.HasField("shape") else None
        return cls(onnx.TensorProto.DataType.Name(tensor.elem_type).lower(), shape)

    def __str__(self) -> str:
        return f"{self.dtype} {list(self.shape) if self.shape is not None else 'of any shape'}"

    def fits(self, after: Declared) -> bool:
        """Return whether this may be the state before a run, and ``after`` that after it."""
        if self.dtype != after.dtype or self.shape is None or after.shape is None:
            return self.dtype == after.dtype
        pairs = list(zip(self.shape, after.shape, strict=False))
        growth = [later - length for length, later in pairs if length and later]
        return (
            len(self.shape) == len(after.shape)
            and min(growth, default=0) >= 0
            and sum(length > 0 for length in growth) <= 1
        )


def type_faults(
    inputs: Mapping[str, Declared], outputs: Mapping[str, Declared], named: Mapping[str, str]
) -> Iterator[tuple[str, Fault]]:
    """Yield which pairs do not fit by their declared types, each with the input of the pair."""
    for name, output in named.items():
        if not inputs[name].fits(outputs[output]):
            found = f"{inputs[name]} and {outputs[output]}"
            yield name, Fault(f"the state {name!r} does not fit {output!r}", None, found, FITTING)


def named_faults(
    inputs: Collection[str], outputs: Collection[str], named: Mapping[str, str]
) -> Iterator[tuple[str, Fault]]:
    """Yield what is wrong with the names of pairs, each with the input of the pair."""
    after = list(named.values())
    for name, output in named.items():
        if name not in inputs:
            yield name, Fault("the state names an unknown input", None, name, f"one of {', '.join(inputs)}")
        if output not in outputs:
            yield name, Fault("the state names an unknown output", None, output, f"one of {', '.join(outputs)}")
        if after.count(output) > 1 and after.index(output) == list(named).index(name):
            yield name, Fault("two inputs have the same state", None, output, "one output each")


def declared(path: Path) -> tuple[dict[str, Declared], dict[str, Declared]] | None:
    """Return what a model file says of its inputs and outputs; None if it cannot be read, which others report."""
    try:
        graph = onnx.load(path, load_external_data=False).graph
    except (OSError, DecodeError):
        return None
    weights = {tensor.name for tensor in graph.initializer}
    inputs = {it.name: Declared.of(it) for it in graph.input if it.name not in weights}
    return inputs, {it.name: Declared.of(it) for it in graph.output}


def _by_convention(name: str, graph: WorkGraph) -> Iterator[str]:
    for pattern, outputs in CONVENTIONS:
        match = re.fullmatch(pattern, name)
        if match:
            yield from [output for output in map(match.expand, outputs) if output in graph.outputs][:1]
            return


def _misfit(shapes: Shapes, name: str, output: str) -> str | None:
    """Return how two tensors differ that cannot be the same state before and after a run; None if they can."""
    first, second = shapes.specs.get(name), shapes.specs.get(output)
    if first is None or second is None:
        return "tensors of unknown size"
    if first.dtype == second.dtype and len(first.shape) == len(second.shape):
        growth = [after - before for before, after in zip(first.shape, second.shape, strict=True)]
        if min(growth, default=0) >= 0 and sum(length > 0 for length in growth) <= 1:
            return None
    return f"{first.dtype} {list(first.shape)} and {second.dtype} {list(second.shape)}"


def with_varying_axes(
    source: ModelSource,
    graph: WorkGraph,
    shapes: Shapes,
    state: Mapping[str, str],
    shape: Mapping[str, Sequence[int]],
) -> Shapes:
    """Return shapes that say which axes have other lengths in other runs of a sequence.

    A prompt is longer than a step, and a state grows. So sizes are inferred once more for other lengths: an axis varies
    if its length differs. If the model does not name these axes, or does not fit other lengths, none varies.

    Parameters
    ----------
    state
        The model's state.
    shape
        The shapes that were given for inputs.
    """
    sizes, axes = _further(source, graph, shapes, state)
    given = {**{name: size for name, size in shapes.axes.given.items() if name not in sizes}, **sizes}
    stated = {value.name: value.type.tensor_type.shape.dim for value in source.proto.graph.input}
    requested = {
        name: [sizes.get(dim.dim_param, length) for dim, length in zip(stated[name], lengths, strict=True)]
        if name in stated and len(stated[name]) == len(lengths)
        else lengths
        for name, lengths in shape.items()
    }
    if not axes:
        return shapes
    try:
        other = infer_shapes(source, graph, requested, given)
    except ModelError:
        return shapes
    return shapes.compared(other)


def _further(
    source: ModelSource, graph: WorkGraph, shapes: Shapes, state: Mapping[str, str]
) -> tuple[dict[str, int], set[str]]:
    """Return other sizes for the axes of inputs that a run may choose, and the names of these axes."""
    names = {value.name: _names(value) for value in (*source.proto.graph.input, *source.proto.graph.output)}
    known = shapes.axes.sizes
    growing: set[str] = set()
    totals: set[str] = set()
    for before, after in state.items():
        lengths = zip(shapes.dims(before) or (), shapes.dims(after) or (), strict=True)
        for axis, (first, second) in enumerate(lengths):
            if first != second:
                growing.update(names[before][axis : axis + 1])
                totals.update(names[after][axis : axis + 1])
    growing, totals = growing - {""}, totals - {""} - growing
    others = {name for each in graph.inputs if each not in state for name in names[each][1:] if name}
    steps = {name for name in others - growing - totals if name in known and not re.search(r"[+*/-]", name)}
    step, past = FURTHER
    sizes = {name: known[name] + past for name in growing if name in known}
    sizes |= {name: known[name] + step for name in steps}
    sizes |= {name: known[name] + step + past for name in totals if name in known and name.isidentifier()}
    return sizes, growing | steps


def _names(value: onnx.ValueInfoProto) -> list[str]:
    """Return the name of each axis of a tensor; empty for one that has none."""
    dims = value.type.tensor_type.shape.dim
    return [dim.dim_param if not is_fixed(dim) and is_name(dim.dim_param) else "" for dim in dims]


def pairs_of(shapes: Shapes, state: Mapping[str, str]) -> tuple[StatePair, ...]:
    """Return the state with its types."""
    return tuple(StatePair(shapes.specs[before], after) for before, after in state.items())


def described(model: bytes, pairs: Sequence[StatePair]) -> bytes:
    """Return a serialised model with its state described in its metadata."""
    # Protobuf messages one after the other are merged.
    return model + bytes(onnx.ModelProto(metadata_props=[metadata(pairs)]).SerializeToString(deterministic=True))


def metadata(pairs: Sequence[StatePair]) -> onnx.StringStringEntryProto:
    """Return the description of the state of a block model, for its metadata."""
    described = [
        {
            "before": pair.before.name,
            "after": pair.after,
            "dtype": pair.before.dtype,
            "shape": pair.before.shape,
            "varies": pair.before.varies,
        }
        for pair in pairs
    ]
    return onnx.StringStringEntryProto(key=STATE_METADATA, value=json.dumps(described))
