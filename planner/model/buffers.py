"""Memory that onnxruntime needs for the tensors of a part of a model while it runs on a CPU.

The nodes of the part become operations on buffers, as onnxruntime optimises them, and these run through its arena
(:mod:`planner.model.arena`). The rules:

- Inputs stay for the whole run: they belong to the caller. So do outputs, once produced.
- Convolutions and poolings of float32 images compute in blocks of channels (NCHWc), which are padded to full blocks. A
  tensor that other operators use as well, an input or an output exists in both layouts.
- A convolution or product includes the bias, normalisation, activation and residual sum that follow it.
- Activations write over an input that nobody needs afterwards. Reshapes are views, unless they are outputs.
- Operators between dequantised inputs and a quantised output compute with 8 bits.
- Some operators need scratch memory (:mod:`planner.model.scratch`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from onnx import TensorProto

from planner.model.arena import Buffer, Step, Write, arena_bytes
from planner.model.extract import Subgraph
from planner.model.graph import Node, WorkGraph
from planner.model.inlining import bodies
from planner.model.lookup import MISFITS, attribute
from planner.model.narrow_products import unpacked_bytes
from planner.model.scratch import heap_bytes, scratch_pieces
from planner.model.shapes import Shapes

BLOCK_CHANNELS: Final = 16
"""Channels in a block with AVX-512; 8 with AVX."""
LEAST_CHANNELS: Final = 8
"""A convolution of fewer input channels reads them as they are."""

VIEWS: Final = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout"})
IN_PLACE: Final = frozenset(
    """
    Celu Clip Elu HardSigmoid LeakyRelu LogSoftmax Relu Selu Sigmoid Softmax Softplus Softsign Tanh ThresholdedRelu
    """.split()  # noqa: SIM905 - a list of names reads best as prose
)
ACTIVATIONS: Final = frozenset({"Relu", "Clip", "Sigmoid", "Tanh", "LeakyRelu", "HardSigmoid"})
INCLUDED: Final = {
    "Conv": ACTIVATIONS | {"BatchNormalization"},
    "MatMul": frozenset({"Add", "Relu", "LeakyRelu", "Sigmoid", "Tanh"}),
    "Gemm": frozenset({"Relu", "LeakyRelu", "Sigmoid", "Tanh"}),
}
POOLS: Final = frozenset({"MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool"})
ANY_LAYOUT: Final = frozenset({"Add", "Sum", "Mul", "Relu", "Sigmoid", "Tanh", "BatchNormalization", "Concat"})
SUMS: Final = frozenset({"Add", "Sum"})


def run_bytes(graph: WorkGraph, shapes: Shapes, part: Subgraph, pooled: dict[str, str]) -> int:
    """Return the memory for the runs of a part, in an arena and besides it, without its inputs, in bytes.

    Parameters
    ----------
    graph, shapes
        The model.
    part
        The part.
    pooled
        Names of the copies that its block model makes of inputs (:func:`~planner.model.extract.pooled_inputs`).
    """
    outputs = [Buffer(name) for name in part.outputs]

    def arena_of(order: Sequence[Node]) -> int:
        plan = _Plan(graph, shapes, part, pooled)
        plan.add_all(order)
        return arena_bytes(plan.steps, outputs) + plan.heap_bytes

    # Optimisation renumbers nodes, on which the order of branches depends. Of two likely orders, the worse one counts.
    depth_first = _depth_first(part)
    return max(arena_of(order) for order in ([part.nodes] if depth_first == part.nodes else [part.nodes, depth_first]))


def _depth_first(part: Subgraph) -> tuple[Node, ...]:
    """Return the nodes in the order in which onnxruntime runs a graph.

    It goes from the last outputs to the inputs, depth first, and of a node's inputs to the one made last first.
    (``onnxruntime/core/graph/graph_viewer.cc``)
    """
    makers = {name: place for place, node in enumerate(part.nodes) for name in node.outputs}
    before = [sorted({makers[name] for name in node.inputs if name in makers}) for node in part.nodes]
    read = {place for places in before for place in places}
    stack = [(place, False) for place in range(len(part.nodes)) if place not in read]
    order: list[Node] = []
    seen: set[int] = set()
    while stack:
        place, done = stack.pop()
        if done:
            order.append(part.nodes[place])
        elif place not in seen:
            seen.add(place)
            stack.append((place, True))
            stack += [(earlier, False) for earlier in before[place]]
    return tuple(order)


@dataclass
class _Plan:
    """Operations on the buffers of a part, in the order of its nodes."""

    graph: WorkGraph
    shapes: Shapes
    part: Subgraph
    pooled: dict[str, str]
    steps: list[Step] = field(default_factory=list)
    exists: set[Buffer] = field(default_factory=set)
    included: set[int] = field(default_factory=set)
    heap_bytes: int = 0
    """Largest memory that an operation takes besides the arena."""

    @cached_property
    def constant(self) -> set[str]:
        """Constants and what follows from them alone, which is computed when the session is created."""
        constant = {name for name in self.graph.weights if name not in self.part.inputs}
        for node in self.part.nodes:
            if constant.issuperset(node.inputs):
                constant.update(node.outputs)
        return constant

    @cached_property
    def users(self) -> dict[str, list[Node]]:
        """Nodes that read each tensor."""
        users: dict[str, list[Node]] = {}
        for node in self.part.nodes:
            for name in set(node.inputs):
                users.setdefault(name, []).append(node)
        return users

    @cached_property
    def makers(self) -> dict[str, Node]:
        return {name: node for node in self.part.nodes for name in node.outputs}

    def add_all(self, order: Sequence[Node]) -> None:
        """Add the operations of all nodes, in this order."""
        self.exists.update(Buffer(name) for name in self.part.inputs)
        for name, copy in self.pooled.items():
            self._write((self._read(name, blocked=True),), copy, blocked=True)
        for node in order:
            if node.index not in self.included and not self.constant.issuperset(node.outputs):
                try:
                    self._add(node)
                except MISFITS:  # onnxruntime says what is wrong with the node
                    self._misfit(node)

    def _add(self, node: Node) -> None:
        operator = node.proto.op_type
        names = [name for name in node.inputs if name not in self.constant]
        if operator in SUMS:
            names = [self.pooled.get(name, name) for name in names]
        if operator == "DequantizeLinear" and self._is_only_integer(node.outputs[0]):
            return
        if self._is_integer(node):
            self._integer(node, names)
        elif operator in VIEWS and names:
            self._view(node, names[0])
        elif operator in ("Conv", "FusedConv") and self._is_blocked(node):
            self._convolution(node, names)
        elif self._keeps_blocks(node, names):
            reads = tuple(self._read(name, blocked=True) for name in names)
            over = reads if operator in IN_PLACE else ()
            self._write(reads, node.outputs[0], blocked=True, over=over)
        else:
            self._plain(node, names)

    def _misfit(self, node: Node) -> None:
        """Add a node of which only the tensors are known."""
        reads = tuple(self._read(name, blocked=False) for name in node.inputs if name not in self.constant)
        self._step(Step(reads, tuple(self._sized(Buffer(name)) for name in node.outputs)))

    # Layouts.

    def _read(self, name: str, *, blocked: bool) -> Buffer:
        """Return a buffer of a tensor, copied into the wanted layout if it only exists in the other."""
        wanted, other = Buffer(name, blocked), Buffer(name, not blocked)
        if wanted not in self.exists and other in self.exists:
            self._step(Step((other,), (self._sized(wanted),)))
        return wanted

    def _write(
        self,
        reads: tuple[Buffer, ...],
        name: str,
        *,
        blocked: bool = False,
        over: tuple[Buffer, ...] = (),
        scratch: tuple[int, ...] = (),
        shape: tuple[int, ...] | None = None,
    ) -> None:
        written = Buffer(name, blocked)
        # An output never takes the place of another tensor.
        over = () if name in self.part.outputs and not blocked else over
        self._step(Step(reads, (self._sized(written)._replace(shape=shape or self._layout(written)),), scratch, over))
        if blocked and name in self.part.outputs:
            self._read(name, blocked=False)

    def _step(self, step: Step) -> None:
        self.steps.append(step)
        self.exists.update(write.buffer for write in step.writes)

    def _sized(self, buffer: Buffer) -> Write:
        return Write(buffer, self._bytes(buffer), self._layout(buffer))

    def _layout(self, buffer: Buffer) -> tuple[int, ...] | None:
        """Return the shape of a buffer; images of 8 bits have their channels last where float32 has blocks of them."""
        shape = self._shape(buffer.tensor)
        if shape is None or not buffer.blocked or self._is_image(buffer.tensor):
            return shape
        return (*shape[:1], *shape[2:], *shape[1:2])

    def _shape(self, name: str) -> tuple[int, ...] | None:
        return self.shapes.dims(self._original.get(name, name))

    def _bytes(self, buffer: Buffer) -> int:
        dims = self.shapes.dims(buffer.tensor)
        if not buffer.blocked or dims is None or not self._is_image(buffer.tensor):
            return self.shapes.bytes(self._original.get(buffer.tensor, buffer.tensor))
        batch, channels, *image = dims
        return batch * -(-channels // BLOCK_CHANNELS) * BLOCK_CHANNELS * math.prod(image) * 4

    @cached_property
    def _original(self) -> dict[str, str]:
        return {copy: name for name, copy in self.pooled.items()}

    def _is_image(self, name: str) -> bool:
        name = self._original.get(name, name)
        kind = self.shapes.types.get(name)
        dims = self.shapes.dims(name)
        return (
            kind is not None and kind.tensor_type.elem_type == TensorProto.FLOAT and dims is not None and len(dims) == 4
        )

    def _is_blocked(self, node: Node) -> bool:
        """Return whether a convolution computes in blocks of channels."""
        name = node.proto.input[1]
        weight = self.shapes.dims(name)
        if not self._is_image(node.inputs[0]) or weight is None:
            return False
        if name not in self.constant or self._maker(name) == "DequantizeLinear":
            return False
        groups = attribute(node.proto, "group", 1)
        if groups == 1 or weight[:2] == (groups, 1):
            return True
        return weight[0] // groups % BLOCK_CHANNELS == 0 and weight[1] % BLOCK_CHANNELS == 0

    def _keeps_blocks(self, node: Node, names: list[str]) -> bool:
        """Return whether an operator computes in blocks because its inputs exist as such."""
        operator = node.proto.op_type
        if not names or len(node.outputs) > 1 or not all(map(self._is_image, names)):
            return False
        channels = [(self.shapes.dims(self._original.get(name, name)) or (0, 0))[1] for name in names]
        if operator in POOLS:
            return channels[0] % LEAST_CHANNELS == 0
        if operator not in ANY_LAYOUT or not all(Buffer(name, blocked=True) in self.exists for name in names):
            return False
        if operator == "Concat":
            return all(count % BLOCK_CHANNELS == 0 for count in channels)
        if operator in ("Add", "Sum", "Mul"):
            return len(names) > 1 and len({self.shapes.dims(self._original.get(name, name)) for name in names}) == 1
        return True

    # Operators.

    def _convolution(self, node: Node, names: list[str]) -> None:
        dims = self.shapes.dims(names[0]) or (1, 1)
        reads: tuple[Buffer, ...] = (self._read(names[0], blocked=dims[1] >= LEAST_CHANNELS),)
        output = self._include(node, node.outputs[0])
        over: tuple[Buffer, ...] = ()
        sums = self.users.get(output, ())
        if len(sums) == 1 and output not in self.part.outputs and sums[0].proto.op_type in SUMS:
            summands = [self.pooled.get(name, name) for name in sums[0].inputs if name != output]
            if len(summands) == 1 and Buffer(summands[0], blocked=True) in self.exists:
                over = (Buffer(summands[0], blocked=True),)
                reads += over
                self.included.add(sums[0].index)
                output = self._include(node, sums[0].outputs[0])
        self._write(reads, output, blocked=True, over=over)

    def _include(self, node: Node, output: str) -> str:
        """Return the output of the operators that become part of a node."""
        kinds = INCLUDED.get(node.proto.op_type, frozenset())
        while output not in self.part.outputs:
            users = self.users.get(output, ())
            if len(users) != 1 or users[0].proto.op_type not in kinds:
                break
            if users[0].proto.op_type not in SUMS and self._unpacked(node):
                break
            if not self.constant.issuperset(name for name in users[0].inputs if name != output):
                break
            self.included.add(users[0].index)
            output = users[0].outputs[0]
        return output

    def _plain(self, node: Node, names: list[str]) -> None:
        unpacked = self._unpacked(node)
        self.heap_bytes = max(self.heap_bytes, unpacked, heap_bytes(node.proto, self.shapes.dims))
        weights = () if unpacked else self._dequantise(node)
        reads = (*weights, *(self._read(name, blocked=False) for name in names))
        scratch = self._scratch(node)
        if len(node.outputs) == 1:
            over = reads if node.proto.op_type in IN_PLACE else ()
            output = self._include(node, node.outputs[0])
            shape = self._shape(output)
            if node.proto.op_type == "MatMul" and output != node.outputs[0] and shape is not None:
                shape = (math.prod(shape[:-1]), *shape[-1:])  # a product with a bias has two dimensions
            self._write(reads, output, over=over, scratch=scratch, shape=shape)
        else:
            writes = tuple(self._sized(Buffer(name)) for name in node.outputs)
            self._step(Step(reads, writes, scratch))

    def _view(self, node: Node, name: str) -> None:
        read, output = self._read(name, blocked=False), node.outputs[0]
        if output in self.part.outputs:
            self._write((read,), output)
        else:
            self._step(Step((read,), (Write(Buffer(output), 0, None),), view=read))

    def _scratch(self, node: Node, *, integer: bool = False) -> tuple[int, ...]:
        inner = tuple(filter(None, [sum(map(self.shapes.bytes, _inner(node)))]))
        try:
            return inner + scratch_pieces(node.proto, self.shapes.dims, integer=integer)
        except MISFITS:
            return inner

    def _unpacked(self, node: Node) -> int:
        return unpacked_bytes(node, self.makers, self.users, self.part.outputs, self.shapes)

    def _dequantise(self, node: Node) -> tuple[Buffer, ...]:
        """Add operations that dequantise the weights of a node, as happens whenever it runs, and return the results."""
        made = [name for name in node.inputs if name in self.constant and self._maker(name) == "DequantizeLinear"]
        weights = tuple(map(Buffer, made))
        for weight in weights:
            self._step(Step((), (self._sized(weight),)))
        return weights

    # Quantised operators.

    def _is_integer(self, node: Node) -> bool:
        """Return whether a node reads dequantised tensors only, and its output is quantised at once."""
        return bool(self._quantised(node))

    def _is_only_integer(self, name: str) -> bool:
        """Return whether a dequantised tensor is not needed, because all that read it compute with 8 bits."""
        return name not in self.part.outputs and all(map(self._is_integer, self.users.get(name, ())))

    def _quantised(self, node: Node) -> list[Node]:
        """Return the nodes up to the quantisation that follow a node which computes with 8 bits; none for others."""
        active = [name for name in node.inputs if name not in self.constant]
        if not active or len(node.outputs) != 1 or not all(self._maker(name) == "DequantizeLinear" for name in active):
            return []
        path: list[Node] = []
        last = node
        while last.proto.op_type != "QuantizeLinear":
            users = self.users.get(last.outputs[0], ())
            if last.outputs[0] in self.part.outputs or len(users) != 1:
                return []
            last = users[0]
            if last.proto.op_type not in ACTIVATIONS | {"QuantizeLinear"}:
                return []
            path.append(last)
        return path

    def _maker(self, name: str) -> str | None:
        maker = self.makers.get(name)
        return maker.proto.op_type if maker else None

    def _integer(self, node: Node, names: list[str]) -> None:
        path = self._quantised(node)
        self.included.update(follower.index for follower in path)
        names = [self.makers[name].inputs[0] for name in names]
        blocked = node.proto.op_type == "Conv" or all(Buffer(name, blocked=True) in self.exists for name in names)
        reads = tuple(self._read(name, blocked=blocked) for name in names)
        self._write(reads, path[-1].outputs[0], blocked=blocked, scratch=self._scratch(node, integer=True))


def _inner(node: Node) -> Iterator[str]:
    """Yield the tensors that the bodies of a node make."""
    stack = list(bodies(node.proto))
    while stack:
        body = stack.pop()
        for inner in body.node:
            yield from filter(None, inner.output)
            stack.extend(bodies(inner))
