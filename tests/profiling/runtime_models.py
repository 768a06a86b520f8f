"""Models whose nodes onnxruntime renames, fuses, nests and inlines, and profiles of them by old versions.

``onnxruntime_profiles/MODEL-VERSION.json`` was written by that version of onnxruntime in three runs of the model, with
all optimisations. Only events of nodes and runs are kept, without process and host. One file is by the package
onnxruntime-openvino.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

PROFILES: Final = Path(__file__).parent / "onnxruntime_profiles"
IMAGE: Final = np.ones((1, 3, 32, 32), np.float32)
WIDTHS: Final = (32, 64, 96, 128, 160)
"""Width of what each call in :func:`write_functions` returns."""


def _weight(name: str, *shape: int) -> TensorProto:
    return numpy_helper.from_array(np.full(shape, 0.01, np.float32), name)


def _floats(name: str, *shape: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _body(
    name: str, inputs: list[onnx.ValueInfoProto], nodes: list[NodeProto], outputs: list[onnx.ValueInfoProto]
) -> onnx.GraphProto:
    return helper.make_graph(nodes, name, inputs, outputs)


def write_branches(path: Path) -> Path:
    """Write a model with convolutions, matrix products with a sum, a choice and a loop; opset 11."""
    node = helper.make_node
    then = _body("then", [], [node("MatMul", ["a0", "w"], ["t"], name="taken")], [_floats("t", 1, 64)])
    other = _body("other", [], [node("Neg", ["a0"], ["o"], name="skipped")], [_floats("o", 1, 64)])
    flag = helper.make_tensor_value_info
    step = _body(
        "step",
        [flag("i", TensorProto.INT64, []), flag("on", TensorProto.BOOL, []), _floats("s", 1, 64)],
        [
            node("MatMul", ["s", "w"], ["m"], name="product"),
            node("Tanh", ["m"], ["n"], name="squash"),
            node("Identity", ["on"], ["still"], name="go"),
        ],
        [flag("still", TensorProto.BOOL, []), _floats("n", 1, 64)],
    )
    nodes = [
        node("Conv", ["x", "k0"], ["c0"], name="conv0", kernel_shape=[3, 3]),
        node("Relu", ["c0"], ["r0"], name="relu0"),
        node("Conv", ["r0", "k1"], ["c1"], name="conv1", kernel_shape=[3, 3]),
        node("Relu", ["c1"], ["r1"]),
        node("GlobalAveragePool", ["r1"], ["p"], name="pool"),
        node("Flatten", ["p"], ["f"]),
        node("MatMul", ["f", "v"], ["m0"], name="dense"),
        node("Add", ["m0", "b"], ["a0"], name="bias"),
        node("ReduceMax", ["f"], ["top"], name="top", keepdims=0),
        node("Greater", ["top", "zero"], ["positive"], name="compare"),
        node("If", ["positive"], ["chosen"], name="choice", then_branch=then, else_branch=other),
        node("Loop", ["three", "true", "chosen"], ["looped"], name="loop", body=step),
        node("MatMul", ["looped", "w"], ["m1"], name="last"),
        node("Add", ["m1", "b"], ["y"], name="last-bias"),
    ]
    weights = [_weight("k0", 16, 3, 3, 3), _weight("k1", 16, 16, 3, 3), _weight("v", 16, 64), _weight("w", 64, 64)]
    constants = {"zero": np.array(0, np.float32), "three": np.array(3), "true": np.ones((), bool)}
    weights += [_weight("b", 64), *(numpy_helper.from_array(value, name) for name, value in constants.items())]
    graph = helper.make_graph(nodes, "branches", [_floats("x", *IMAGE.shape)], [_floats("y", 1, 64)], weights)
    return _save(path, helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6))


def write_functions(path: Path) -> Path:
    """Write a model of function calls, one in another; all nodes of call i return tensors of width ``WIDTHS[i]``.

    Some nodes have no name, and one function has a constant.
    """
    opset, own = helper.make_opsetid("", 17), helper.make_opsetid("own", 1)
    node = helper.make_node
    half = numpy_helper.from_array(np.array(0.5, np.float32))
    dense = [
        node("Constant", [], ["k"], name="half", value=half),
        node("MatMul", ["X", "W"], ["m"], name="product"),
        node("Add", ["m", "k"], ["a"], name="shift"),
        node("Tanh", ["a"], ["Y"]),
    ]
    gate = [node("Sigmoid", ["X"], ["s"]), node("Mul", ["X", "s"], ["Y"], name="weigh")]
    pair = [
        node("Dense", ["X", "V"], ["h"], name="first", domain="own"),
        node("Dense", ["h", "W"], ["Y"], domain="own"),
    ]
    functions = [
        helper.make_function("own", "Dense", ["X", "W"], ["Y"], dense, [opset]),
        helper.make_function("own", "Gate", ["X"], ["Y"], gate, [opset]),
        helper.make_function("own", "Pair", ["X", "V", "W"], ["Y"], pair, [opset, own]),
    ]
    nodes = [
        node("Dense", ["x", "w0"], ["h0"], name="call", domain="own"),
        node("Gate", ["h0"], ["g0"], domain="own"),
        node("Pair", ["g0", "w1", "w2"], ["h2"], name="both", domain="own"),
        node("Dense", ["h2", "w3"], ["h3"], domain="own"),
        node("Gate", ["h3"], ["g3"], name="gate", domain="own"),
        node("Dense", ["g3", "w4"], ["h4"], name="end", domain="own"),
        node("Neg", ["h4"], ["y"]),
    ]
    weights = [
        _weight(f"w{index}", *pair) for index, pair in enumerate(zip((WIDTHS[0], *WIDTHS), WIDTHS, strict=False))
    ]
    graph = helper.make_graph(
        nodes, "functions", [_floats("x", 16, WIDTHS[0])], [_floats("y", 16, WIDTHS[-1])], weights
    )
    model = helper.make_model(graph, opset_imports=[opset, own], functions=functions, ir_version=8)
    return _save(path, model)


def feeds(model: Path) -> dict[str, NDArray[np.float32]]:
    """Return an input of a model."""
    return {"x": IMAGE if "branches" in model.stem else np.ones((16, WIDTHS[0]), np.float32)}


def _save(path: Path, model: onnx.ModelProto) -> Path:
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path
