"""The graph of a model: which nodes are work, and which tensors each node needs.

A node is *free* in two cases:

- Its result depends only on constants and shapes: weights after a cast or a dequantisation, shape arithmetic, masks
  built from lengths.
- Cheap operations compute it from model inputs that hold integers or booleans: masks built from token ids, one-hot
  codes, scaled pixels. Such results are larger than the inputs they come from.

Free nodes are not assigned to a worker. Each block recomputes the ones it uses, so their results are never transferred.
All other nodes are *work*, and a block is a sequence of them. Shapes are constants once those of the inputs are given.
If the size of a tensor depends on its data and is needed after the tensor's last use, only the few bytes of the shape
are transferred.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import onnx

from planner.errors import ModelError
from planner.model.flop import ELEMENTWISE, MOVES
from planner.model.inlining import bodies
from planner.model.source import ModelSource

Weight = onnx.TensorProto | onnx.SparseTensorProto
RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli", "Dropout"}
)
LOOKUPS = frozenset({"Gather", "GatherElements", "GatherND"})
UNSIZED = frozenset({"NonZero", "Unique", "Compress"})  # the size of their outputs depends on the data
CHEAP = (ELEMENTWISE | MOVES | {"CumSum"}) - UNSIZED
WHOLE = frozenset(
    getattr(onnx.TensorProto, kind)
    for kind in ("BOOL", "INT8", "UINT8", "INT16", "UINT16", "INT32", "UINT32", "INT64", "UINT64")
)


@dataclass(frozen=True)
class Node:
    """A node; its inputs include the tensors that its bodies capture.

    Parameters
    ----------
    index
        Position in a topological order of the whole graph.
    proto
        The ONNX node.
    inputs, outputs
        Tensor names, without absent optional ones.
    """

    index: int
    proto: onnx.NodeProto
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def is_shape(self) -> bool:
        """Whether the result depends only on the shape of the input."""
        return self.proto.op_type in ("Shape", "Size") and self.proto.domain in ("", "ai.onnx") and bool(self.inputs)


@dataclass(frozen=True)
class WorkGraph:
    """Nodes in topological order, the producer of each tensor, and the free nodes.

    Parameters
    ----------
    nodes
        All nodes.
    inputs, outputs
        Names of the model's inputs (without initializers) and outputs.
    weights
        Initializers by name, and shapes that are fixed, which need no node.
    maker
        The node that produces each tensor.
    light
        Model inputs whose cheap functions are free.
    state
        The model's state: outputs by inputs, see :mod:`planner.model.state`.
    """

    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weights: dict[str, Weight]
    maker: dict[str, Node]
    light: frozenset[str]
    state: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def free(self) -> frozenset[int]:
        """Indices of the free nodes."""
        return _free_nodes(self.nodes, set(self.weights), set(self.light))

    def folded(self, constants: Mapping[str, onnx.TensorProto]) -> WorkGraph:
        """Return the graph with the results of some nodes as constants; itself if no work would be left."""
        graph = replace(self, weights={**self.weights, **constants})
        return graph if graph.work() else self

    def work(self) -> list[Node]:
        """Return the work nodes that some output depends on, in topological order."""
        stack, live = list(self.outputs), set[int]()
        while stack:
            tensor = stack.pop()
            node = self.maker.get(tensor)
            if node is not None and tensor not in self.weights and node.index not in live:
                live.add(node.index)
                stack.extend(node.inputs)
        return [self.nodes[index] for index in sorted(live - self.free)]

    def is_free(self, tensor: str) -> bool:
        """Return whether a tensor is a constant or the output of a free node."""
        node = self.maker.get(tensor)
        return tensor in self.weights or (node is not None and node.index in self.free)

    def needs(self, tensors: Sequence[str]) -> tuple[set[str], set[str]]:
        """Trace tensors back through free nodes.

        Returns
        -------
        tensors, shapes
            Names of the work tensors (or model inputs) that are needed, and of the needed results of ``Shape`` nodes.
        """
        values: set[str] = set()
        shapes: set[str] = set()
        stack, seen = list(tensors), set(tensors)
        while stack:
            tensor = stack.pop()
            if tensor in self.weights:
                continue
            if not self.is_free(tensor):
                values.add(tensor)
                continue
            node = self.maker[tensor]
            if node.is_shape and not self.is_free(node.inputs[0]):
                shapes.add(tensor)
                continue
            fresh = [name for name in node.inputs if name not in seen]
            seen.update(fresh)
            stack.extend(fresh)
        return values, shapes


def build_graph(source: ModelSource) -> WorkGraph:
    """Sort the nodes of a model topologically, and find the free ones.

    Raises
    ------
    ModelError
        If a tensor has two producers or none, if the graph has a cycle, or if no output depends on any work.
    """
    proto = source.proto.graph
    weights: dict[str, Weight] = {tensor.name: tensor for tensor in proto.initializer}
    weights |= {sparse.values.name: sparse for sparse in proto.sparse_initializer}
    inputs = tuple(value.name for value in proto.input if value.name not in weights)
    nodes, maker = _sorted_nodes(source, {*inputs, *weights})
    outputs = tuple(value.name for value in proto.output)
    missing = [name for name in outputs if name not in maker and name not in weights and name not in inputs]
    if missing:
        raise ModelError("no node produces this output of the model", where=str(source.path), value=missing[0])
    # Second pass: a model of nothing but cheap nodes must have work, too.
    for light in (_whole_numbers(proto) - set(weights), set[str]()):
        graph = WorkGraph(nodes, inputs, outputs, weights, maker, frozenset(light))
        if graph.work():
            return graph
    raise ModelError(
        "no output depends on any input", where=str(source.path), expected="a model whose outputs depend on its inputs"
    )


def _captured(graph: onnx.GraphProto) -> Iterator[str]:
    """Yield the names that a body captures from outside."""
    local = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    local |= {name for node in graph.node for name in node.output}
    for node in graph.node:
        yield from (name for name in _inputs(node) if name not in local)
    yield from (value.name for value in graph.output if value.name not in local)


def _inputs(node: onnx.NodeProto) -> Iterator[str]:
    yield from (name for name in node.input if name)
    for body in bodies(node):
        yield from _captured(body)


def _sorted_nodes(source: ModelSource, available: set[str]) -> tuple[tuple[Node, ...], dict[str, Node]]:
    """Return the nodes in topological order, as close to the file's order as possible, and each tensor's producer."""
    protos = source.proto.graph.node
    inputs = [tuple(dict.fromkeys(_inputs(proto))) for proto in protos]
    makers = _makers(source, available)
    users: dict[int, list[int]] = {}
    missing = [0] * len(protos)
    for index, names in enumerate(inputs):
        for name in set(names) - available:
            if name not in makers:
                where = f"{source.path}, node {_label(protos[index])}"
                raise ModelError("no node produces this input", where=where, value=name)
            users.setdefault(makers[name], []).append(index)
            missing[index] += 1
    ready = [index for index, count in enumerate(missing) if count == 0]
    nodes: list[Node] = []
    while ready:
        index = heapq.heappop(ready)
        proto = protos[index]
        nodes.append(Node(len(nodes), proto, inputs[index], tuple(filter(None, proto.output))))
        for user in users.get(index, ()):
            missing[user] -= 1
            if missing[user] == 0:
                heapq.heappush(ready, user)
    if len(nodes) < len(protos):
        stuck = next(proto for index, proto in enumerate(protos) if missing[index] > 0)
        raise ModelError("the graph has a cycle", where=f"{source.path}, node {_label(stuck)}", expected="a DAG")
    return tuple(nodes), {name: node for node in nodes for name in node.outputs}


def _label(node: onnx.NodeProto) -> str:
    return repr(node.name or node.op_type)


def _makers(source: ModelSource, available: set[str]) -> dict[str, int]:
    """Return the index in the file of the node that produces each tensor."""
    makers: dict[str, int] = {}
    for index, proto in enumerate(source.proto.graph.node):
        for name in filter(None, proto.output):
            if name in makers or name in available:
                raise ModelError(
                    "more than one node produces this tensor", where=f"{source.path}, node {_label(proto)}", value=name
                )
            makers[name] = index
    return makers


def _free_nodes(nodes: Sequence[Node], constant: set[str], light: set[str]) -> frozenset[int]:
    """Return the indices of the free nodes; ``constant`` and ``light`` grow by what they compute."""
    free = set[int]()
    for node in nodes:
        if node.proto.op_type in RANDOM:
            continue
        if constant.issuperset(node.inputs):
            constant.update(node.outputs)
        elif node.is_shape or (
            _is_cheap(node, constant) and all(name in constant or name in light for name in node.inputs)
        ):
            light.update(node.outputs)
        else:
            continue
        free.add(node.index)
    return frozenset(free)


def _is_cheap(node: Node, constant: set[str]) -> bool:
    """Return whether a node is element-wise or moves data; a lookup in a table of weights does not count."""
    looked_up = node.proto.op_type in LOOKUPS and node.proto.input[0] in constant
    return node.proto.op_type in CHEAP and not looked_up


def _whole_numbers(graph: onnx.GraphProto) -> set[str]:
    """Return the inputs that hold integers or booleans: token ids, masks, lengths, raw pixels."""
    return {value.name for value in graph.input if value.type.tensor_type.elem_type in WHOLE}
