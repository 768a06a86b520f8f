from __future__ import annotations

import sys

import numpy as np
import pytest
from onnx import TensorProto, helper

from planner.runtime.memory import peak_activation_bytes

MIB = 2**20


def chain_of_sines(length: int, size_bytes: int) -> bytes:
    """``y = sin(sin(... x)) + sin(x)``: three tensors or more of ``size_bytes`` are alive at once."""
    shape = [size_bytes // 4]
    nodes = [helper.make_node("Sin", ["x" if at == 0 else f"t{at - 1}"], [f"t{at}"]) for at in range(length)]
    nodes.append(helper.make_node("Add", [f"t{length - 1}", "t0"], ["y"]))
    graph = helper.make_graph(
        nodes,
        "sines",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process reset its high-water mark")
@pytest.mark.parametrize("mebibytes", [16, 32])
def test_the_peak_is_that_of_the_tensors_alive(mebibytes: int) -> None:
    size = mebibytes * MIB
    tensors = {"x": np.ones(size // 4, np.float32), "unrelated": np.ones(100 * MIB // 4, np.float32)}
    peak = peak_activation_bytes(chain_of_sines(4, size), tensors)
    if peak is None:
        pytest.skip("this system does not let a process reset its high-water mark")
    # x, the first sine, and at least one more; not all six, because buffers are used again
    # What threads that other tests have left take or give back meanwhile counts, too.
    assert 3 * size - 4 * MIB <= peak <= 5 * size + 4 * MIB
