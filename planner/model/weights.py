"""Memory that onnxruntime holds for the constants of a part of a model.

A constant is held densely, even if the file stores it as a sparse tensor, with elements of less than a byte packed.
Otherwise, what is held differs from what the file stores in four ways:

- A node that only has constants as inputs is computed when the session is created. Its result is held, and its inputs
  only if another node uses them, too. Dequantisation is the exception: it becomes part of the node that follows it.
- A product reorders its weights once. A constant is held in each order in which it is used, and as it is if a node of
  another kind reads it. The embedding of a language model that is also its last layer is therefore held twice.
- A quantised ``Gemm`` with ``transB`` transposes its weights before it reorders them, in the session's arena, which
  keeps what it took. So such weights count once more.
- A constant in the body of a control-flow node is held once in the body, once in each order, and once in the attribute
  of every node around it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import onnx
from onnx import SparseTensorProto, TensorProto, TypeProto

from planner.model.elements import STRING_OBJECT_BYTES, tensor_bytes
from planner.model.graph import RANDOM, Node, Weight
from planner.model.inlining import bodies
from planner.model.sequences import dims_of
from planner.model.walk import constant_value

STRING_INSIDE_BYTES = 15
HEAP_HEADER_BYTES, HEAP_STEP_BYTES = 8, 16

# The input whose order each product changes. Double precision is an exception: it is used as it is.
REORDERED = dict.fromkeys(
    (
        "MatMul",
        "Gemm",
        "Conv",
        "ConvTranspose",
        "ConvInteger",
        "MatMulInteger",
        "FusedConv",
        "FusedMatMul",
        "FusedGemm",
    ),
    1,
) | {"Attention": 1, "QAttention": 1, "QLinearConv": 3, "QLinearMatMul": 3, "QGemm": 3, "MatMulNBits": 1}
NOT_FOLDED = RANDOM | {"DequantizeLinear"}
AS_IS = "as it is"
TRANSPOSED = "transposed"


def weight_bytes(weight: Weight) -> int:
    """Return the memory that a constant takes, in bytes."""
    if isinstance(weight, SparseTensorProto):
        return tensor_bytes(weight.values.data_type, weight.dims)
    if weight.data_type == TensorProto.STRING:
        return sum(map(_string_bytes, weight.string_data))
    return tensor_bytes(weight.data_type, weight.dims)


def _string_bytes(text: bytes) -> int:
    if len(text) <= STRING_INSIDE_BYTES:
        return STRING_OBJECT_BYTES
    on_heap = len(text) + 1 + HEAP_HEADER_BYTES
    return STRING_OBJECT_BYTES + -(-on_heap // HEAP_STEP_BYTES) * HEAP_STEP_BYTES


def held_bytes(
    nodes: Iterable[Node], outputs: Iterable[str], weights: Mapping[str, Weight], types: Mapping[str, TypeProto]
) -> int:
    """Return the memory that onnxruntime holds for the constants of a part of a model, in bytes.

    Parameters
    ----------
    nodes
        Nodes of the part, in execution order.
    outputs
        Tensors that the part returns.
    weights
        Initializers of the model by name.
    types
        Types of all tensors.
    """
    constants = _Constants(weights, types)
    for node in nodes:
        constants.add(node)
    return constants.held_bytes(outputs)


@dataclass
class _Constants:
    """Constants met so far on the way through the nodes of a part.

    Parameters
    ----------
    weights, types
        As for :func:`held_bytes`.
    made
        Sizes in bytes of constants that are no initializers of the model.
    orders
        Orders of elements in which each constant is used.
    copies
        Number of attributes that hold a constant of a body.
    quantised
        Tensors before each dequantisation, by the tensor after it.
    """

    weights: Mapping[str, Weight]
    types: Mapping[str, TypeProto]
    made: dict[str, int] = field(default_factory=dict)
    orders: dict[str, set[object]] = field(default_factory=dict)
    copies: dict[str, int] = field(default_factory=dict)
    quantised: dict[str, str] = field(default_factory=dict)

    def add(self, node: Node) -> None:
        """Record the constants that a node makes or uses."""
        constant = constant_value(node.proto)
        if constant is not None:
            self.made[node.outputs[0]] = weight_bytes(constant)
        elif not self._fold(node):
            self._use(node.proto)
            for body in bodies(node.proto):
                self._add_body(body, 1)

    def held_bytes(self, outputs: Iterable[str]) -> int:
        """Return the total, in bytes."""
        for name in outputs:
            self.orders.setdefault(name, set()).add(AS_IS)
        return sum(
            self._bytes(name) * (len(orders) + self.copies.get(name, 0))
            for name, orders in self.orders.items()
            if self._is_known(name)
        )

    def _is_known(self, name: str) -> bool:
        return name in self.made or name in self.weights

    def _bytes(self, name: str) -> int:
        return self.made[name] if name in self.made else weight_bytes(self.weights[name])

    def _fold(self, node: Node) -> bool:
        """Record the results of a node that only has constants as inputs; return False for any other node."""
        kinds = [self.types.get(name) for name in node.outputs]
        if (
            node.proto.op_type in NOT_FOLDED
            or any(bodies(node.proto))
            or not all(map(self._is_known, node.inputs))
            or any(dims_of(kind) is None for kind in kinds)
        ):
            return False
        for name, kind in zip(node.outputs, kinds, strict=True):
            self.made[name] = tensor_bytes(kind.tensor_type.elem_type, dims_of(kind) or ()) if kind else 0
        return True

    def _use(self, node: onnx.NodeProto) -> None:
        for position, name in enumerate(node.input):
            if name:
                self.orders.setdefault(name, set()).add(self._order(node, position))
        for name in self._transposed(node):
            self.orders.setdefault(name, set()).add(TRANSPOSED)
        if node.op_type == "DequantizeLinear":
            self.quantised[node.output[0]] = node.input[0]

    def _transposed(self, node: onnx.NodeProto) -> Sequence[str]:
        """Return the quantised weights that a node transposes when it is created; a malformed node has none."""
        if not any(item.name == "transB" and item.i for item in node.attribute):
            return ()
        if node.op_type == "QGemm":
            return list(node.input[3:4])
        dequantised = node.op_type == "Gemm" and all(name in self.quantised for name in node.input[:2])
        return [self.quantised[name] for name in node.input[1:2]] if dequantised else ()

    def _order(self, node: onnx.NodeProto, position: int) -> object:
        kind = self.types.get(node.input[position], TypeProto())
        if REORDERED.get(node.op_type) != position or kind.tensor_type.elem_type == TensorProto.DOUBLE:
            return AS_IS
        return node.op_type, next((item.i for item in node.attribute if item.name == "transB"), 0)

    def _add_body(self, body: onnx.GraphProto, depth: int) -> None:
        """Record the constants of a body that lies in ``depth`` control-flow nodes."""
        own: dict[str, Weight] = {tensor.name: tensor for tensor in body.initializer}
        own |= {sparse.values.name: sparse for sparse in body.sparse_initializer}
        for node in body.node:
            constant = constant_value(node)
            if constant is None:
                self._use(node)
            else:
                own[node.output[0]] = constant
            for inner in bodies(node):
                self._add_body(inner, depth + 1)
        for name, weight in own.items():
            self.made[name] = weight_bytes(weight)
            self.copies[name] = depth
            self.orders.setdefault(name, set()).add(AS_IS)
        for value in body.output:
            self.orders.setdefault(value.name, set()).add(AS_IS)
