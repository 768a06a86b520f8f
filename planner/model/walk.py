"""Types, shapes and small values of all tensors, node by node.

ONNX's shape inference for whole graphs fails where a shape is computed from other shapes in ways that it does not
support. If the shapes of all inputs are known, all shapes are plain numbers. This walk therefore asks ONNX for the
output types of each node and, if all inputs of the node are known and small, for the output values (by ONNX's reference
implementation).
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import (
    AttributeProto,
    SparseTensorProto,
    TensorProto,
    TypeProto,
    checker,
    defs,
    helper,
    numpy_helper,
    shape_inference,
)
from onnx.external_data_helper import uses_external_data
from onnx.reference import ReferenceEvaluator

from planner.errors import ModelError
from planner.model.classical import CLASSICAL
from planner.model.contributed import contributed_outputs
from planner.model.graph import RANDOM
from planner.model.inlining import bodies
from planner.model.pooling import without_windows_behind
from planner.model.sequences import SequenceWalk, dims_of
from planner.model.source import ModelSource

# Shapes, axes and lengths are small; larger values do not determine shapes.
SMALL_ELEMENTS = 1024
CONSTANT_TYPES = {
    "value_float": TensorProto.FLOAT,
    "value_floats": TensorProto.FLOAT,
    "value_int": TensorProto.INT64,
    "value_ints": TensorProto.INT64,
    "value_string": TensorProto.STRING,
    "value_strings": TensorProto.STRING,
}


def shape_value(node: onnx.NodeProto, dims: tuple[int, ...]) -> TensorProto:
    """Return the result of a ``Shape`` or ``Size`` node."""
    limits = {attribute.name: attribute.i for attribute in node.attribute}
    result = math.prod(dims) if node.op_type == "Size" else dims[limits.get("start", 0) : limits.get("end")]
    return numpy_helper.from_array(np.array(result, np.int64), node.output[0])


@dataclass
class ShapeWalk:
    """A walk over a graph's nodes in topological order.

    Parameters
    ----------
    source
        The model.
    stated
        Types stated by the file or the user, used where inference finds no size.
    types, values
        Types and values known so far, by tensor name.
    asserted
        Tensors whose size only the user states, and those that depend on them: it may differ from run to run.
    refused
        Reason why ONNX cannot infer the types of a node, by the node's first output. The model may still run if the
        node lies in a branch that is not taken or in a later step of a loop.
    """

    source: ModelSource
    stated: Mapping[str, TypeProto]
    types: dict[str, TypeProto] = field(default_factory=dict)
    values: dict[str, TensorProto] = field(default_factory=dict)
    asserted: set[str] = field(default_factory=set)
    refused: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._opsets = list(self.source.proto.opset_import)
        self._versions = {opset.domain: opset.version for opset in self._opsets}
        self._versions.setdefault("", self._versions.get("ai.onnx", 1))
        self._sequences = SequenceWalk(self.types, self.values)

    def weight(self, name: str, tensor: TensorProto) -> None:
        """Record a constant."""
        self.types[name] = helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))
        if math.prod(tensor.dims) <= SMALL_ELEMENTS:
            self.values[name] = self.source.embedded(tensor)

    def nodes(self, nodes: Iterable[onnx.NodeProto]) -> None:
        """Record the output types and values of nodes."""
        for node in nodes:
            constant = constant_value(node)
            if constant is not None:
                self.weight(node.output[0], constant)
                continue
            for name, kind in (self._choice(node) if node.op_type == "If" else self._outputs(node)).items():
                is_sized = dims_of(kind) is not None
                self.types[name] = kind if is_sized else self.stated.get(name, kind)
            cut_out = self._sequences.node(node)
            if cut_out is not None:
                self.types[node.output[0]] = cut_out
            for name in node.output:
                if name in self.stated and name not in self.types:
                    self.types[name] = self.stated[name]
            if not self.asserted.isdisjoint(node.input):
                self.asserted.update(node.output)
            self._evaluate(node)

    def _outputs(self, node: onnx.NodeProto) -> Mapping[str, TypeProto]:
        inside = list(bodies(node))
        names = [name for name in node.input if name]
        if any(name not in self.types for name in names):
            return {}
        carried = self._loop(node, inside[0]) if inside else {}
        types = self.types if inside else {name: self.types[name] for name in names}
        data = {name: self.values[name] for name in names if name in self.values}
        try:
            domain = "" if node.domain == "ai.onnx" else node.domain
            schema = defs.get_schema(node.op_type, self._versions.get(domain, 1), domain)
            ir_version = max(self.source.proto.ir_version, 4)
            inferred = shape_inference.infer_node_outputs(
                schema, node, types, data, opset_imports=self._opsets, ir_version=ir_version
            )
        except shape_inference.InferenceError as error:
            self.refused[node.output[0]] = str(error).splitlines()[0].removeprefix("[ShapeInferenceError] ")
            return {}
        except defs.SchemaError:
            return without_windows_behind(node, types, contributed_outputs(node, self.types, self.values))
        except RuntimeError:
            return {}
        except (checker.ValidationError, ValueError, TypeError) as error:
            where = f"{self.source.path}, node {node.name or node.op_type!r}"
            raise ModelError(f"ONNX rejects this node ({str(error).splitlines()[0]})", where=where) from None
        if node.domain == CLASSICAL:
            inferred |= contributed_outputs(node, self.types, self.values)
        return without_windows_behind(node, types, inferred | carried)

    def _choice(self, node: onnx.NodeProto) -> Mapping[str, TypeProto]:
        """Walk the branch that is taken, or both if the condition is unknown.

        Of two branches, one that ONNX refuses for these shapes cannot be meant. Otherwise the size is unknown if it
        differs between them.
        """
        branches = {attribute.name: attribute.g for attribute in node.attribute}
        if not branches.keys() >= {"then_branch", "else_branch"}:
            where = f"{self.source.path}, node {node.name or node.op_type!r}"
            raise ModelError("the If node lacks a branch", where=where, expected="then_branch and else_branch")
        condition = self.values.get(node.input[0]) if node.input else None
        if condition is not None:
            taken = branches["then_branch" if numpy_helper.to_array(condition).all() else "else_branch"]
            results = self._body(taken, node)
            if is_refused(taken, self.refused):
                self.refused[node.output[0]] = "the branch that is taken does not fit"
            return results
        first, second = (self._body(branches[name], node) for name in ("then_branch", "else_branch"))
        for name, other in (("then_branch", second), ("else_branch", first)):
            if is_refused(branches[name], self.refused):
                return other
        return {name: first[name] for name in first if dims_of(first[name]) == dims_of(second.get(name))}

    def _body(self, body: onnx.GraphProto, node: onnx.NodeProto) -> dict[str, TypeProto]:
        for tensor in body.initializer:
            self.weight(tensor.name, tensor)
        self.nodes(body.node)
        results = zip(node.output, body.output, strict=False)
        return {name: self.types[value.name] for name, value in results if value.name in self.types}

    def _loop(self, node: onnx.NodeProto, body: onnx.GraphProto) -> dict[str, TypeProto]:
        """Walk a loop's body with the inputs of its first step.

        Returns the types of the carried tensors whose shape does not change.
        """
        entering = [self.types.get(name, TypeProto()) for name in node.input]
        if node.op_type == "Loop":
            scalar = (helper.make_tensor_type_proto(kind, []) for kind in (TensorProto.INT64, TensorProto.BOOL))
            entering = [*scalar, *entering[2:]]
        elif node.op_type == "Scan":
            sliced = next((attribute.i for attribute in node.attribute if attribute.name == "num_scan_inputs"), 0)
            entering[-sliced:] = [_slice(kind) for kind in entering[-sliced:]]
        self.types |= {value.name: kind for value, kind in zip(body.input, entering, strict=False)}
        # The body of a Loop returns the condition and then the carried tensors; the node returns only the latter.
        after = self._body(body, onnx.NodeProto(output=["", *node.output]))
        before = zip(node.output, entering[2:] if node.op_type == "Loop" else (), strict=False)
        return {name: kind for name, kind in before if name in after and _same_shape(kind, after[name])}

    def _evaluate(self, node: onnx.NodeProto) -> None:
        if node.op_type in ("Shape", "Size") and node.domain in ("", "ai.onnx"):
            dims = dims_of(self.types.get(node.input[0]))
            if dims is not None:
                self.values[node.output[0]] = shape_value(node, dims)
            return
        names = [name for name in node.input if name]
        sizes = [dims_of(self.types.get(name)) for name in node.output if name]
        small = all(size is not None and math.prod(size) <= SMALL_ELEMENTS for size in sizes)
        if not small or node.op_type in RANDOM or any(name not in self.values for name in names) or any(bodies(node)):
            return
        graph = helper.make_graph(
            [node],
            "node",
            [onnx.ValueInfoProto(name=name, type=self.types[name]) for name in dict.fromkeys(names)],
            [onnx.ValueInfoProto(name=name, type=self.types[name]) for name in node.output if name],
        )
        try:
            feed = {name: numpy_helper.to_array(self.values[name]) for name in names}
            results = ReferenceEvaluator(graph, opsets=self._versions).run(None, feed)
        except Exception:  # noqa: BLE001 - any operator's code may run here; a value that it cannot compute stays unknown
            return
        for value, result in zip(graph.output, results, strict=True):
            if isinstance(result, np.ndarray | np.generic):
                self.values[value.name] = numpy_helper.from_array(np.asarray(result), value.name)


def constant_value(node: onnx.NodeProto) -> TensorProto | None:
    """Return the tensor of a ``Constant`` node, or None if the node holds none."""
    if node.op_type != "Constant" or node.domain not in ("", "ai.onnx"):
        return None
    for item in node.attribute:
        if item.type == AttributeProto.TENSOR:
            tensor: TensorProto = item.t
            return tensor
        if item.type == AttributeProto.SPARSE_TENSOR:
            return dense(item.sparse_tensor)
        if item.name in CONSTANT_TYPES:
            return _numbers(item)
    return None


def _numbers(item: AttributeProto) -> TensorProto:
    """Return an attribute with numbers or texts as a tensor; without data if it holds many numbers, as in `dense`."""
    content, data_type = helper.get_attribute_value(item), CONSTANT_TYPES[item.name]
    if not item.name.endswith("s"):
        return helper.make_tensor("", data_type, [], [content])
    if len(content) > SMALL_ELEMENTS and data_type != TensorProto.STRING:
        return TensorProto(data_type=data_type, dims=[len(content)])
    return helper.make_tensor("", data_type, [len(content)], content)


def dense(sparse: SparseTensorProto) -> TensorProto:
    """Return a sparse tensor as a dense one; without data if it is not small, since then only its type matters."""
    values = sparse.values
    if math.prod(sparse.dims) > SMALL_ELEMENTS or uses_external_data(values) or uses_external_data(sparse.indices):
        return TensorProto(name=values.name, data_type=values.data_type, dims=sparse.dims)
    numbers, indices = numpy_helper.to_array(values), numpy_helper.to_array(sparse.indices)
    array = np.zeros(tuple(sparse.dims), numbers.dtype)
    if indices.ndim == 2:
        array[tuple(indices.T)] = numbers
    else:
        array.reshape(-1)[indices] = numbers
    return numpy_helper.from_array(array, values.name)


def is_refused(body: onnx.GraphProto, refused: Container[str]) -> bool:
    """Return whether a body has a node that ONNX refuses, but not only in one branch of a choice inside it."""

    def node_is_refused(node: onnx.NodeProto) -> bool:
        inner = [is_refused(inside, refused) for inside in bodies(node)]
        within = all(inner) if node.op_type == "If" else any(inner)
        return (bool(inner) and within) or (bool(node.output) and node.output[0] in refused)

    return any(map(node_is_refused, body.node))


def _same_shape(left: TypeProto, right: TypeProto) -> bool:
    return dims_of(left) is not None and dims_of(left) == dims_of(right)


def _slice(kind: TypeProto) -> TypeProto:
    dims = dims_of(kind)
    return helper.make_tensor_type_proto(kind.tensor_type.elem_type, dims[1:]) if dims else TypeProto()
