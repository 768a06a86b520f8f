"""Types and shapes of all tensors, by ONNX's shape inference on a copy of the model without its weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from planner.errors import Fault, ModelError
from planner.model.chain import TensorSpec
from planner.model.graph import Graph, Node
from planner.model.source import ModelSource, bodies

# Shape inference looks into tensors that hold shapes, axes and lengths: they are small.
SMALL_ELEMENTS = 64
NUMPY_KINDS = frozenset("biufc")


@dataclass(frozen=True)
class Shapes:
    """What is known of the model's tensors.

    Parameters
    ----------
    types
        As the model states and ONNX infers them: dynamic axes stay dynamic.
    specs
        With the shapes asked for: tensors of known size and of a type that numpy has.
    """

    types: Mapping[str, onnx.TypeProto]
    specs: Mapping[str, TensorSpec]

    def type_of(self, name: str) -> onnx.TypeProto:
        """Give the type of a tensor that crosses a cut, with dynamic axes where the model has them."""
        if name in self.types:
            return self.types[name]
        return helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(np.dtype(self.specs[name].dtype)), None)

    def fixed_shape(self, node: Node) -> TensorProto | None:
        """Give the result of a ``Shape`` or ``Size`` node if the model itself fixes it, else None."""
        dims = _dims(self.types[node.inputs[0]]) if node.is_shape and node.inputs[0] in self.types else None
        if dims is None:
            return None
        limits = {attribute.name: attribute.i for attribute in node.proto.attribute}
        result = math.prod(dims) if node.proto.op_type == "Size" else dims[limits.get("start", 0) : limits.get("end")]
        return numpy_helper.from_array(np.array(result, np.int64), node.outputs[0])


def infer(source: ModelSource, graph: Graph, shape: Mapping[str, Sequence[int]]) -> Shapes:
    """Infer types and shapes.

    Parameters
    ----------
    source, graph
        The model.
    shape
        Shapes of inputs with dynamic axes.

    Raises
    ------
    ModelError
        If ``shape`` names no input or contradicts one, or leaves an axis open.
    """
    skeleton = _skeleton(source, graph)
    fixed = _fixed_inputs(source, graph, shape)
    types = _types(skeleton)
    known = types
    if any(value.type != fixed[value.name] for value in skeleton.graph.input if value.name in fixed):
        for value in skeleton.graph.input:
            if value.name in fixed:
                value.type.CopyFrom(fixed[value.name])
        for value in (*skeleton.graph.output, *skeleton.graph.value_info):
            for dim in value.type.tensor_type.shape.dim:
                dim.ClearField("dim_param")  # else the stated name would win over the size inferred
        known = _types(skeleton)
    specs = {name: spec for name, kind in known.items() if (spec := _spec(name, kind))}
    specs |= {
        name: _weight_spec(name, tensor) for name, tensor in graph.weights.items() if isinstance(tensor, TensorProto)
    }
    return Shapes(types, specs)


def _weight_spec(name: str, tensor: TensorProto) -> TensorSpec:
    return TensorSpec(name, np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type)).name, tuple(tensor.dims))


def _skeleton(source: ModelSource, graph: Graph) -> onnx.ModelProto:
    """Copy the model without its weights: a large one becomes an input of its type."""
    model = onnx.ModelProto(ir_version=max(source.proto.ir_version, 4), opset_import=source.proto.opset_import)
    skeleton = model.graph
    skeleton.name = "skeleton"
    proto = source.proto.graph
    skeleton.input.extend(value for value in proto.input if value.name not in graph.weights)
    skeleton.output.extend(proto.output)
    skeleton.value_info.extend(proto.value_info)
    for name, tensor in graph.weights.items():
        if isinstance(tensor, TensorProto):
            _add_weight(source, skeleton, name, tensor)
    for node in graph.nodes:
        value = _constant_tensor(node)
        if value is None:
            skeleton.node.append(node.proto)
        else:
            _add_weight(source, skeleton, node.outputs[0], value)
    return model


def _constant_tensor(node: Node) -> TensorProto | None:
    if node.proto.op_type != "Constant" or node.proto.domain not in ("", "ai.onnx"):
        return None
    return next((attribute.t for attribute in node.proto.attribute if attribute.name == "value"), None)


def _add_weight(source: ModelSource, skeleton: onnx.GraphProto, name: str, tensor: TensorProto) -> None:
    if int(np.prod(tensor.dims)) <= SMALL_ELEMENTS:
        copy = skeleton.initializer.add()
        copy.CopyFrom(source.embedded(tensor))
        copy.name = name
    else:
        skeleton.input.append(helper.make_tensor_value_info(name, tensor.data_type, list(tensor.dims)))


def _types(skeleton: onnx.ModelProto) -> dict[str, onnx.TypeProto]:
    try:
        inferred = onnx.shape_inference.infer_shapes(skeleton, data_prop=True)
    except (onnx.shape_inference.InferenceError, RuntimeError) as error:
        raise ModelError(f"ONNX cannot infer its shapes ({error})") from None
    types: dict[str, onnx.TypeProto] = {}
    stack = [inferred.graph]
    while stack:  # bodies too: their tensors count for FLOP
        graph = stack.pop()
        types |= {
            value.name: value.type for values in (graph.input, graph.value_info, graph.output) for value in values
        }
        stack.extend(body for node in graph.node for body in bodies(node))
    return types


def _dims(kind: onnx.TypeProto) -> tuple[int, ...] | None:
    if not (kind.HasField("tensor_type") and kind.tensor_type.HasField("shape")):
        return None
    dims = kind.tensor_type.shape.dim
    return tuple(dim.dim_value for dim in dims) if all(dim.HasField("dim_value") for dim in dims) else None


def _spec(name: str, kind: onnx.TypeProto) -> TensorSpec | None:
    """Give the spec of a tensor that can cross a cut: one whose size is known and whose type numpy has."""
    dims = _dims(kind)
    if dims is None or kind.tensor_type.elem_type in (TensorProto.UNDEFINED, TensorProto.STRING):
        return None
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(kind.tensor_type.elem_type))
    return TensorSpec(name, dtype.name, dims) if dtype.kind in NUMPY_KINDS and dtype.isbuiltin == 1 else None


def _fixed_inputs(source: ModelSource, graph: Graph, shape: Mapping[str, Sequence[int]]) -> dict[str, onnx.TypeProto]:
    """Give the inputs' types with the shapes asked for; an axis named alike in two inputs is given once."""
    values = [value for value in source.proto.graph.input if value.name in graph.inputs]
    where = str(source.path)
    faults = [
        Fault("--shape names no input of the model", where, name, f"one of {', '.join(graph.inputs)}")
        for name in shape
        if name not in graph.inputs
    ]
    named: dict[str, int] = {}
    for value in values:
        for dim, size in zip(value.type.tensor_type.shape.dim, shape.get(value.name, ()), strict=False):
            if dim.dim_param:
                named.setdefault(dim.dim_param, int(size))
    fixed = {}
    for value in values:
        fixed[value.name] = onnx.TypeProto()
        fixed[value.name].CopyFrom(value.type)
        faults += _fix(fixed[value.name], value.name, shape.get(value.name), named, where)
    if faults:
        raise ModelError(faults)
    return fixed


def _fix(
    kind: onnx.TypeProto, name: str, asked: Sequence[int] | None, named: Mapping[str, int], where: str
) -> Iterable[Fault]:
    """Fill in the open axes of an input's type."""
    where = f"{where}, input {name!r}"
    if not kind.HasField("tensor_type"):
        return [Fault("this input is no tensor", where, expected="inputs that are tensors")]
    tensor = kind.tensor_type
    if asked is not None and not tensor.HasField("shape"):
        tensor.shape.CopyFrom(onnx.TensorShapeProto(dim=[onnx.TensorShapeProto.Dimension() for _ in asked]))
    dims = tensor.shape.dim
    stated = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in dims]
    if asked is not None:
        clash = [size for size, own in zip(asked, stated, strict=False) if isinstance(own, int) and own != size]
        if len(asked) != len(dims) or clash or min(asked, default=1) < 1:
            return [Fault("--shape does not fit this input", where, list(asked), f"shape {stated}")]
        for dim, size in zip(dims, asked, strict=True):
            dim.dim_value = size
    for dim in dims:
        if dim.dim_param in named:
            dim.dim_value = named[dim.dim_param]
    if tensor.HasField("shape") and all(dim.HasField("dim_value") for dim in dims):
        return []
    example = ",".join(str(size) if isinstance(size, int) else "1" for size in stated) or "1,3,224,224"
    return [Fault("has dynamic axes", where, stated, f"its shape, for example --shape {name}={example}")]
