"""Models with inputs that not every value fits: indices of tables, edges of graphs, caches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from planner.model.load import ChainModel, load_chain
from tests.model.chained import INT64, floats, save, value

node = helper.make_node


def embedding(path: Path) -> Path:
    """Write an encoder: tokens, two token types, positions from 2 on, a mask, and a language as a byte."""
    nodes = [
        node("Gather", ["words", "tokens"], ["a"]),
        node("Unsqueeze", ["types", "zero"], ["types1"]),
        node("Squeeze", ["types1", "zero"], ["types2"]),
        node("Gather", ["kinds", "types2"], ["b"]),
        node("Add", ["positions", "two"], ["places"]),
        node("Gather", ["rows", "places"], ["c"]),
        node("Cast", ["language"], ["tongue"], to=INT64),
        node("Gather", ["tongues", "tongue"], ["d"]),
        node("Sum", ["a", "b", "c", "d"], ["e"]),
        node("MatMul", ["e", "w"], ["f"]),
        node("Cast", ["mask"], ["kept"], to=TensorProto.FLOAT),
        node("Sub", ["one", "kept"], ["hidden"]),
        node("Mul", ["hidden", "much"], ["less"]),
        node("Unsqueeze", ["less", "one_axis"], ["penalty"]),
        node("Transpose", ["f"], ["t"], perm=[0, 2, 1]),
        node("MatMul", ["f", "t"], ["scores"]),
        node("Add", ["scores", "penalty"], ["masked"]),
        node("Softmax", ["masked"], ["weights"]),
        node("MatMul", ["weights", "f"], ["y"]),
    ]
    weights = {
        "words": floats(60, 8), "kinds": floats(2, 8), "rows": floats(9, 8), "tongues": floats(3, 8), "w": floats(8, 8),
        "zero": np.array([0]), "one_axis": np.array([1]), "two": np.array(2, np.int32),
        "one": np.array(1, np.float32), "much": np.array(-1e4, np.float32),
    }  # fmt: skip
    inputs = [
        *(value(name, ["n", 5], INT64) for name in ("tokens", "types", "mask")),
        value("positions", ["n", 5], TensorProto.INT32),
        value("language", [1], TensorProto.UINT8),
    ]
    return save(path, nodes, inputs, [value("y", ["n", 5, 8])], weights)


def message_passing(path: Path) -> Path:
    """Write a graph network: edges gather their source's features, and scatter messages to their target, twice."""
    nodes = [
        node("Gather", ["edges", "zero"], ["from"]),
        node("Gather", ["edges", "one"], ["to"]),
        node("Unsqueeze", ["to", "last"], ["targets"]),
    ]
    for layer, (before, after) in enumerate((("x", "h"), ("h", "y"))):
        nodes += [
            node("MatMul", [before, "w"], [f"m{layer}"]),
            node("Gather", [f"m{layer}", "from"], [f"sent{layer}"]),
            node("ScatterND", [before, "targets", f"sent{layer}"], [f"sum{layer}"], reduction="add"),
            node("Tanh", [f"sum{layer}"], [after]),
        ]
    weights = {"zero": np.array(0), "one": np.array(1), "last": np.array([1]), "w": floats(4, 4)}
    inputs = [value("x", [6, 4]), value("edges", [2, 9], INT64)]
    return save(path, nodes, inputs, [value("y", [6, 4])], weights)


def index_across_cuts(path: Path) -> Path:
    """Write a model whose second half looks up what the first has chosen, in a table of three rows."""
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node("ArgMax", ["a"], ["best"], axis=1, keepdims=0),
        node("MatMul", ["a", "v"], ["b"]),
        node("Gather", ["table", "best"], ["row"]),
        node("Add", ["b", "row"], ["c"]),
        node("MatMul", ["c", "v"], ["y"]),
    ]
    weights = {"w": floats(4, 3), "v": floats(3, 3), "table": floats(3, 3)}
    return save(path, nodes, [value("x", [2, 4])], [value("y", [2, 3])], weights)


def shape_across_cuts(path: Path) -> Path:
    """Write a model that needs the shape of a tensor of the data's size after the tensor's last use."""
    nodes = [
        node("NonZero", ["x"], ["k"]),
        node("Shape", ["k"], ["s"]),
        node("Cast", ["k"], ["f"], to=TensorProto.FLOAT),
        node("ReduceSum", ["f", "last"], ["a"], keepdims=0),
        node("MatMul", ["a", "w"], ["b"]),
        node("Reshape", ["b", "s"], ["c"]),
        node("MatMul", ["c", "v"], ["y"]),
    ]
    weights = {"last": np.array([1]), "w": floats(2, 24), "v": floats(12, 3)}
    return save(path, nodes, [value("x", [3, 4])], [value("y", [2, 3])], weights)


def cached(path: Path) -> Path:
    """Write a layer of attention with a cache of any length, which it returns with one more entry."""
    nodes = [
        node("MatMul", ["x", "w"], ["q"]),
        node("Concat", ["past", "q"], ["present"], axis=1),
        node("Transpose", ["present"], ["t"], perm=[0, 2, 1]),
        node("MatMul", ["q", "t"], ["scores"]),
        node("Softmax", ["scores"], ["weights"]),
        node("MatMul", ["weights", "present"], ["z"]),
        node("MatMul", ["z", "w"], ["y"]),
    ]
    inputs = [value("x", [1, 1, 4]), value("past", [1, "past", 4])]
    return save(path, nodes, inputs, [value("y", [1, 1, 4]), value("present", [1, "all", 4])], {"w": floats(4, 4)})


def empty(path: Path) -> Path:
    """Write a model of a sequence of length 0, which the file fixes: no cut has a byte."""
    nodes = [node("MatMul", ["x", "w"], ["a"]), node("Tanh", ["a"], ["b"]), node("MatMul", ["b", "w"], ["y"])]
    return save(path, nodes, [value("x", [1, 0, 4])], [value("y", [1, 0, 4])], {"w": floats(4, 4)})


def picky(path: Path) -> Path:
    """Write a model that accepts speaker 0 only, which no analysis can tell: the row is a product."""
    nodes = [
        node("Cast", ["speaker"], ["s"], to=TensorProto.FLOAT),
        node("MatMul", ["s", "hundred"], ["product"]),
        node("Cast", ["product"], ["row"], to=INT64),
        node("Gather", ["table", "row"], ["a"]),
        node("MatMul", ["a", "w"], ["y"]),
    ]
    weights = {"hundred": np.full((1, 1), 100, np.float32), "table": floats(60, 3), "w": floats(3, 3)}
    return save(path, nodes, [value("speaker", [1, 1], INT64)], [value("y", [1, 1, 3])], weights)


WRITERS: Mapping[str, tuple[Callable[[Path], Path], Mapping[str, Sequence[int]]]] = {
    "embedding": (
        embedding,
        {name: [1, 5] for name in ("tokens", "types", "positions", "mask")},
    ),
    "message passing": (message_passing, {}),
    "index across cuts": (index_across_cuts, {}),
    "shape across cuts": (shape_across_cuts, {"k": [2, 12]}),
    "empty cache": (cached, {"past": [1, 0, 4]}),
    "full cache": (cached, {"past": [1, 3, 4]}),
    "nothing": (empty, {}),
}
"""Functions that write a model, and the shapes to load it with."""


def load(name: str, folder: Path, max_blocks: int | None = None) -> ChainModel:
    """Write a model, and load it."""
    write, shape = WRITERS[name]
    return load_chain(write(folder / "model.onnx"), max_blocks=max_blocks, shape=shape)


def with_function(path: Path) -> Path:
    """Write a model whose lookup is a function of the model itself."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    look_up = helper.make_function(
        "own", "LookUp", ["table", "index"], ["row"], [node("Gather", ["table", "index"], ["row"])], opsets[:1]
    )
    graph = helper.make_graph(
        [node("LookUp", ["table", "i"], ["a"], domain="own"), node("MatMul", ["a", "w"], ["y"])],
        "test",
        [value("i", [4], INT64)],
        [value("y", [4, 3])],
        [
            onnx.numpy_helper.from_array(array, name)
            for name, array in {"table": floats(7, 3), "w": floats(3, 3)}.items()
        ],
    )
    path.write_bytes(
        helper.make_model(graph, opset_imports=opsets, functions=[look_up], ir_version=8).SerializeToString()
    )
    return path
