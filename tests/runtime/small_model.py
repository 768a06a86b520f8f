"""A model of three blocks with a tensor that passes by one of them."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

CUT_TENSORS = (("x",), ("a", "x"), ("b", "x"), ("y",))
SHAPE = (1, 4)


def block(nodes: list[onnx.NodeProto], inputs: list[str], outputs: list[str]) -> bytes:
    """Return a serialised block whose tensors are all float32 of ``SHAPE``; ``w`` is its weight."""
    weight = helper.make_tensor("w", TensorProto.FLOAT, [4, 4], np.arange(16, dtype=np.float32) / 16)

    def info(names: list[str]) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, SHAPE) for name in names]

    graph = helper.make_graph(nodes, "block", info(inputs), info(outputs), [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def blocks() -> list[bytes]:
    """Return the three block models: ``a = relu(x w)``, ``b = tanh(a)``, ``y = b w + x``."""
    return [
        block([helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Relu", ["m"], ["a"])], ["x"], ["a"]),
        block([helper.make_node("Tanh", ["a"], ["b"])], ["a"], ["b"]),
        block(
            [helper.make_node("MatMul", ["b", "w"], ["n"]), helper.make_node("Add", ["n", "x"], ["y"])],
            ["b", "x"],
            ["y"],
        ),
    ]
