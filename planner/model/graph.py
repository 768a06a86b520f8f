"""The graph of a model as a chain of work: which nodes are work, and what each of them needs.

A node is *free* when its result follows from constants and from shapes alone: weights behind a cast or a
dequantisation, shape arithmetic, masks built from lengths; or by cheap steps from inputs of the model that hold whole
numbers: masks built from token ids, one-hot codes, scaled pixels, all of which are larger than what they are made of.
Free nodes are never placed: each block recomputes those it
uses, so their results do not travel. All other nodes are *work*, and a block is a run of them. Where a shape of a
dynamic tensor is needed after the tensor itself is gone, the few bytes of the shape travel.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx

from planner.errors import ModelError
from planner.model.flop import ELEMENTWISE, MOVES
from planner.model.source import ModelSource, bodies

Weight = onnx.TensorProto | onnx.SparseTensorProto
RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli", "Dropout"}
)
LOOKUPS = frozenset({"Gather", "GatherElements", "GatherND"})
UNSIZED = frozenset({"NonZero", "Unique", "Compress"})  # how much they make depends on the data
CHEAP = (ELEMENTWISE | MOVES | {"CumSum"}) - UNSIZED
WHOLE = frozenset(
    getattr(onnx.TensorProto, kind)
    for kind in ("BOOL", "INT8", "UINT8", "INT16", "UINT16", "INT32", "UINT32", "INT64", "UINT64")
)


@dataclass(frozen=True)
class Node:
    """A node, with the tensors that its bodies capture among its inputs.

    Parameters
    ----------
    index
        Place in a topological order of the whole graph.
    proto
        The ONNX node.
    inputs, outputs
        Tensor names; absent optional ones left out.
    """

    index: int
    proto: onnx.NodeProto
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def is_shape(self) -> bool:
        """Whether only the shape of its input matters."""
        return self.proto.op_type in ("Shape", "Size") and self.proto.domain in ("", "ai.onnx") and bool(self.inputs)


@dataclass(frozen=True)
class Graph:
    """Nodes in topological order, who makes each tensor, and what is work.

    Parameters
    ----------
    nodes
        All nodes.
    inputs, outputs
        Names of the model's inputs (initializers left out) and outputs.
    weights
        Initializers by name; also shapes that the model fixes, which need no node.
    maker
        The node that makes a tensor.
    free
        Indices of the nodes that are free.
    """

    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weights: dict[str, Weight]
    maker: dict[str, Node]
    free: frozenset[int]

    def work(self) -> list[Node]:
        """Give the nodes that are work and that some output depends on, in topological order."""
        stack, live = list(self.outputs), set[int]()
        while stack:
            tensor = stack.pop()
            node = self.maker.get(tensor)
            if node is not None and tensor not in self.weights and node.index not in live:
                live.add(node.index)
                stack.extend(node.inputs)
        return [self.nodes[index] for index in sorted(live - self.free)]

    def is_free(self, tensor: str) -> bool:
        """Whether a tensor is made by a free node, or is a constant."""
        node = self.maker.get(tensor)
        return tensor in self.weights or (node is not None and node.index in self.free)

    def needs(self, tensors: Sequence[str]) -> tuple[set[str], set[str]]:
        """Trace tensors back through free nodes.

        Returns
        -------
        tensors, shapes
            The tensors of work (or inputs of the model) needed themselves, and the results of ``Shape`` nodes needed.
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


def build_graph(source: ModelSource) -> Graph:
    """Sort the nodes, and tell work from what is free.

    Raises
    ------
    ModelError
        If a tensor is made twice or by no one, if the graph has a cycle, or if no output depends on any work.
    """
    proto = source.proto.graph
    weights: dict[str, Weight] = {tensor.name: tensor for tensor in proto.initializer}
    weights |= {sparse.values.name: sparse for sparse in proto.sparse_initializer}
    inputs = tuple(value.name for value in proto.input if value.name not in weights)
    nodes, maker = _sorted_nodes(source, {*inputs, *weights})
    outputs = tuple(value.name for value in proto.output)
    unmade = [name for name in outputs if name not in maker and name not in weights and name not in inputs]
    if unmade:
        raise ModelError("no node makes this output of the model", where=str(source.path), value=unmade[0])
    for whole in (_whole_numbers(proto) - set(weights), set[str]()):  # a model of nothing but such nodes has work too
        graph = Graph(nodes, inputs, outputs, weights, maker, _free_nodes(nodes, set(weights), whole))
        if graph.work():
            return graph
    raise ModelError("no output depends on any input", where=str(source.path), expected="a model that computes")


def _captured(graph: onnx.GraphProto) -> Iterator[str]:
    """Give the names that a body uses from outside."""
    own = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    own |= {name for node in graph.node for name in node.output}
    for node in graph.node:
        yield from (name for name in _inputs(node) if name not in own)
    yield from (value.name for value in graph.output if value.name not in own)


def _inputs(node: onnx.NodeProto) -> Iterator[str]:
    yield from (name for name in node.input if name)
    for body in bodies(node):
        yield from _captured(body)


def _sorted_nodes(source: ModelSource, given: set[str]) -> tuple[tuple[Node, ...], dict[str, Node]]:
    """Sort topologically, as near to the file's order as can be."""
    protos = source.proto.graph.node
    inputs = [tuple(dict.fromkeys(_inputs(proto))) for proto in protos]
    makers = _makers(source, given)
    users: dict[int, list[int]] = {}
    missing = [0] * len(protos)
    for index, names in enumerate(inputs):
        for name in set(names) - given:
            if name not in makers:
                where = f"{source.path}, node {_label(protos[index])}"
                raise ModelError("no node makes this input", where=where, value=name)
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


def _makers(source: ModelSource, given: set[str]) -> dict[str, int]:
    """Tell of each tensor the place in the file of the node that makes it."""
    makers: dict[str, int] = {}
    for index, proto in enumerate(source.proto.graph.node):
        for name in filter(None, proto.output):
            if name in makers or name in given:
                raise ModelError("this tensor is made twice", where=f"{source.path}, node {_label(proto)}", value=name)
            makers[name] = index
    return makers


def _free_nodes(nodes: Sequence[Node], weights: set[str], whole: set[str]) -> frozenset[int]:
    """Find the nodes that are free; ``whole`` are the inputs of the model that hold whole numbers."""
    constant, light, free = set(weights), set(whole), set[int]()
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
    """Whether a node is element by element or moves data; looking up in a table of weights is neither."""
    looked_up = node.proto.op_type in LOOKUPS and node.proto.input[0] in constant
    return node.proto.op_type in CHEAP and not looked_up


def _whole_numbers(graph: onnx.GraphProto) -> set[str]:
    """Give the inputs that hold integers or truth values: token ids, masks, lengths, raw pixels."""
    return {value.name for value in graph.input if value.type.tensor_type.elem_type in WHOLE}
