"""Sizes of all tensors for given input shapes."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, TypeProto, helper

from planner.errors import Fault, ModelError
from planner.model.axes import (
    Axes,
    contradictions,
    given_sizes,
    is_fixed,
    is_name,
    output_sizes,
    resolve,
    symbols_of,
    with_sizes,
)
from planner.model.chain import TensorSpec
from planner.model.elements import tensor_bytes
from planner.model.graph import WorkGraph
from planner.model.sequences import dims_of
from planner.model.shape_examples import example_sizes
from planner.model.source import ModelSource
from planner.model.walk import ShapeWalk, dense

# Types that onnxruntime's Python interface passes to and from numpy. It returns others as raw bytes, or not at all.
PASSED = frozenset(
    getattr(TensorProto, name)
    for name in "BOOL INT8 INT16 INT32 INT64 UINT8 UINT16 UINT32 UINT64 FLOAT16 FLOAT DOUBLE".split()  # noqa: SIM905
)
PRODUCTS = frozenset({"MatMul", "Gemm"})


@dataclass(frozen=True)
class Shapes:
    """Types and sizes of a model's tensors for given shapes of its inputs, as far as they are known.

    Parameters
    ----------
    specs
        Tensors that can cross a cut: of a size that is known for the given shapes, and of a type that onnxruntime
        passes to numpy.
    types
        Types of all tensors, including those that are not in ``specs`` and those inside bodies.
    fixed
        Results of the ``Shape`` and ``Size`` nodes that have the same value in every run.
    values
        Small tensors whose values follow from constants and shapes.
    refused
        First outputs of the nodes whose types ONNX cannot infer: a branch with one may not be meant for these shapes.
    axes
        Sizes of the axes that the model names.
    """

    specs: Mapping[str, TensorSpec]
    types: Mapping[str, TypeProto]
    fixed: Mapping[str, TensorProto]
    values: Mapping[str, TensorProto]
    refused: frozenset[str]
    axes: Axes

    def unsized_fault(self, name: str, path: Path) -> Fault:
        """Return a fault that explains why a tensor of the model in ``path`` cannot cross a cut."""
        where = f"{path}, tensor {name!r}"
        kind = self.types.get(name, TypeProto())
        if kind.WhichOneof("value") not in {None, "tensor_type"}:
            what = "this value is not a tensor and cannot be sent"
            zipped = kind.sequence_type.elem_type.WhichOneof("value") == "map_type"
            remedy = "; scikit-learn's exporter writes tensors with the option zipmap=False" if zipped else ""
            return Fault(what, where, _kind_name(kind), f"inputs and outputs that are tensors{remedy}")
        if kind.tensor_type.elem_type and dims_of(kind) is not None:
            expected = "booleans, integers of 8 to 64 bits, float16, float32 or float64, as numpy holds them"
            return Fault("this type cannot be sent", where, _kind_name(kind), expected)
        known = kind.tensor_type.HasField("shape")
        value = onnx.ValueInfoProto(name=name, type=kind)
        example = ",".join(map(str, example_sizes(value, onnx.ModelProto()) if known else (1, 10)))
        expected = f"a size that follows from the shapes of the inputs, or one set with --shape {name}={example}"
        return Fault("the size of this tensor is unknown", where, expected=expected)

    def bounded(self, bounds: Mapping[str, tuple[int, int]]) -> Shapes:
        """Return the same with bounds of the values of some tensors."""
        found = {
            name: replace(self.specs[name], bounds=limits) for name, limits in bounds.items() if name in self.specs
        }
        return replace(self, specs={**self.specs, **found})

    def compared(self, other: Shapes) -> Shapes:
        """Return the same with the axes that vary: those of other lengths in ``other``, the shapes of another run."""

        def varying(spec: TensorSpec) -> tuple[int, ...]:
            lengths = other.dims(spec.name)
            if lengths is None or len(lengths) != len(spec.shape):
                return spec.varies
            return tuple(axis for axis, length in enumerate(spec.shape) if lengths[axis] != length)

        return replace(
            self,
            specs={name: replace(spec, varies=varying(spec)) for name, spec in self.specs.items()},
            fixed={name: value for name, value in self.fixed.items() if other.fixed.get(name) == value},
        )

    def uncut_reason(self, name: str) -> str:
        """Return the reason why a tensor cannot cross a cut, in a few words."""
        kind = self.types.get(name, TypeProto())
        if kind.WhichOneof("value") not in {None, "tensor_type"}:
            return f"{_kind_name(kind)}, not a tensor"
        if kind.tensor_type.elem_type and dims_of(kind) is not None:
            return f"{_kind_name(kind)}, which onnxruntime does not pass to numpy"
        return "of unknown size"

    def dims(self, name: str) -> tuple[int, ...] | None:
        """Return the shape of a tensor of any type, or None if it is unknown."""
        return dims_of(self.types.get(name))

    def bytes(self, name: str) -> int:
        """Return the size of a tensor of any type in bytes; 0 if it is unknown."""
        dims = self.dims(name)
        return 0 if dims is None else tensor_bytes(self.types[name].tensor_type.elem_type, dims)

    def type_of(self, name: str) -> TypeProto:
        """Return the type of a tensor that crosses a cut.

        Axes that vary are left open; and all axes if ONNX refuses a branch for these shapes, since onnxruntime would
        refuse it likewise.
        """
        spec = self.specs[name]
        open_axes = range(len(spec.shape)) if self.refused else spec.varies
        shape = [None if axis in open_axes else length for axis, length in enumerate(spec.shape)]
        return helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype)), shape)


def _kind_name(kind: TypeProto) -> str:
    """Return the name of a tensor's element type, or what another value is."""
    form = str(kind.WhichOneof("value")).removesuffix("_type")
    return TensorProto.DataType.Name(kind.tensor_type.elem_type).lower() if form == "tensor" else form


def infer_shapes(
    source: ModelSource, graph: WorkGraph, shape: Mapping[str, Sequence[int]], axes: Mapping[str, int]
) -> Shapes:
    """Infer the types and sizes of a model's tensors.

    Parameters
    ----------
    source, graph
        The model.
    shape
        Shapes of inputs with dynamic axes, and of other tensors that ONNX cannot infer.
    axes
        Sizes of named axes, by symbol.

    Raises
    ------
    ModelError
        If ``shape`` names an unknown tensor, contradicts the shape of an input or leaves an axis of an input open, if
        ``axes`` names an unknown symbol or contradicts other sizes, or if the model multiplies matrices of incompatible
        shapes.
    """
    unknown = [name for name in shape if name not in graph.inputs and name not in graph.maker]
    expected = f"one of the inputs {', '.join(graph.inputs)}"
    faults = [Fault("--shape names an unknown tensor", str(source.path), name, expected) for name in unknown]
    given, wrong = given_sizes(source, shape, axes)
    if faults + wrong:
        raise ModelError(faults + wrong)

    def walk(sizes: Mapping[str, int]) -> ShapeWalk:
        return _walk(source, graph, shape, sizes)

    resolved = resolve(source, given, lambda sizes: walk(sizes).types)
    if faults := _input_faults(source, graph, shape, resolved.sizes):
        raise ModelError(faults)
    walked = walk(resolved.sizes)
    misfits = [fault for node in graph.nodes if (fault := _product_fault(node.proto, walked))]
    if faults := [*contradictions(source, axes, resolved.sizes, walked.types), *misfits]:
        raise ModelError(faults)
    resolved = replace(resolved, follow={**resolved.follow, **output_sizes(source, walked.types, resolved.sizes)})
    specs = {name: spec for name, kind in walked.types.items() if (spec := _spec(name, kind))}
    shape_nodes = [node for node in graph.nodes if node.is_shape and walked.asserted.isdisjoint(node.inputs)]
    fixed = {name: walked.values[name] for node in shape_nodes for name in node.outputs if name in walked.values}
    return Shapes(specs, walked.types, fixed, walked.values, frozenset(walked.refused), resolved)


def _walk(
    source: ModelSource, graph: WorkGraph, shape: Mapping[str, Sequence[int]], sizes: Mapping[str, int]
) -> ShapeWalk:
    """Walk the graph with the requested shapes and sizes of named axes; the types hold what follows."""
    inputs = {
        value.name: with_sizes(value.type, shape.get(value.name), sizes)
        for value in source.proto.graph.input
        if value.name in graph.inputs
    }
    asserted = set(shape) - set(graph.inputs)
    walk = ShapeWalk(source, _stated_types(source, shape, sizes), inputs, asserted=asserted)
    for name, tensor in graph.weights.items():
        walk.weight(name, tensor if isinstance(tensor, TensorProto) else dense(tensor))
    walk.nodes(node.proto for node in graph.nodes)
    return walk


def _product_fault(node: onnx.NodeProto, walk: ShapeWalk) -> Fault | None:
    """Return a fault if matrices of known shapes cannot be multiplied: onnxruntime would not load such a model."""
    if node.op_type not in PRODUCTS or node.domain not in ("", "ai.onnx") or node.output[0] not in walk.refused:
        return None
    dims = [dims_of(walk.types.get(name)) for name in node.input if name]
    if None in dims:
        return None
    where = f"{walk.source.path}, node {node.name or node.op_type!r}"
    shapes = " and ".join(str(list(shape)) for shape in dims if shape is not None)
    return Fault(
        f"ONNX rejects this node ({walk.refused[node.output[0]]})", where, shapes, "matrices of compatible shapes"
    )


def _spec(name: str, kind: TypeProto) -> TensorSpec | None:
    """Return the spec of a tensor that can cross a cut."""
    dims, element = dims_of(kind), kind.tensor_type.elem_type
    if dims is None or element not in PASSED:
        return None
    return TensorSpec(name, np.dtype(helper.tensor_dtype_to_np_dtype(element)).name, dims)


def _stated_types(
    source: ModelSource, shape: Mapping[str, Sequence[int]], sizes: Mapping[str, int]
) -> dict[str, TypeProto]:
    """Return the types that the file states for other tensors, completed by the requested shapes."""
    graph = source.proto.graph
    return {
        value.name: with_sizes(value.type, shape.get(value.name), sizes)
        for values in (graph.value_info, graph.output)
        for value in values
    }


def _input_faults(
    source: ModelSource, graph: WorkGraph, shape: Mapping[str, Sequence[int]], sizes: Mapping[str, int]
) -> list[Fault]:
    """Return a fault for each input that has no fixed shape; of those that name the same open axes, for the first."""
    faults: list[Fault] = []
    told: set[str] = set()
    for value in source.proto.graph.input:
        if value.name in graph.inputs:
            requested = shape.get(value.name)
            filled = with_sizes(value.type, requested, sizes)
            symbols = set(symbols_of(filled))
            if requested is not None or not symbols or not symbols <= told:
                faults += _input_fault(value, filled, requested, source)
            told |= symbols
    return faults


def _input_fault(
    value: onnx.ValueInfoProto, filled: TypeProto, requested: Sequence[int] | None, source: ModelSource
) -> Iterable[Fault]:
    where = f"{source.path}, input {value.name!r}"
    if not value.type.HasField("tensor_type"):
        return [Fault("this input is not a tensor", where, expected="inputs that are tensors")]
    dims = value.type.tensor_type.shape.dim
    stated = [dim.dim_value if is_fixed(dim) else dim.dim_param or "?" for dim in dims]
    if requested is not None and dims_of(filled) != tuple(requested):
        return [Fault("--shape does not match this input", where, list(requested), f"shape {stated}")]
    if dims_of(filled) is None:
        sizes = example_sizes(value, source.proto)
        expected = f"a fixed shape, for example --shape {value.name}={','.join(map(str, sizes))}"
        symbols = dict.fromkeys(symbols_of(filled))
        if symbols and all(is_fixed(dim) or is_name(dim.dim_param) for dim in filled.tensor_type.shape.dim):
            by_name = {dim.dim_param: size for dim, size in zip(dims, sizes, strict=True)}
            expected += f" or {' '.join(f'--axis {shlex.quote(name)}={by_name.get(name, 1)}' for name in symbols)}"
        return [Fault("this input has dynamic axes", where, stated, expected)]
    return []
