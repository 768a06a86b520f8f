"""Small models whose first axis is open."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from planner.model.architectures import gpt2
from planner.model.load import ChainModel, load_chain

TOKENS = 4


@cache
def small_gpt2() -> Path:
    """A GPT-2 of one narrow layer, for any number of prompts."""
    path = Path(mkdtemp()) / "prompts.onnx"
    return gpt2(path, layers=1, width=16, heads=2, vocabulary=50, tokens=TOKENS, context=8, batch="batch")


@cache
def small_model() -> ChainModel:
    """The same, loaded for batches."""
    return load_chain(small_gpt2(), axes={"batch": 1}, max_blocks=3, batch=True)


def mixing(path: Path) -> Path:
    """A model that takes the mean over all samples of a batch from each."""
    return two_layers(path, [helper.make_node("ReduceMean", ["h"], ["mean"], axes=[0], keepdims=1)])


def apart(path: Path) -> Path:
    """A model of the same form that does not."""
    return two_layers(path, [helper.make_node("Relu", ["h"], ["mean"])])


def two_layers(path: Path, middle: list[NodeProto], axes: tuple[str | int, ...] = ("n", 4)) -> Path:
    """Two products, with something of the first one taken from it between them."""
    rng = np.random.default_rng(0)
    weights = [numpy_helper.from_array(rng.standard_normal((4, 4)).astype(np.float32), name) for name in ("v", "w")]
    nodes = [
        helper.make_node("MatMul", ["x", "v"], ["h"]),
        *middle,
        helper.make_node("Sub", ["h", "mean"], ["d"]),
        helper.make_node("MatMul", ["d", "w"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, axes) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "two-layers", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path
