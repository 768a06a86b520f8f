from __future__ import annotations

import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

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


def peak_of_sines(size_bytes: int) -> int | None:
    tensors = {"x": np.ones(size_bytes // 4, np.float32), "unrelated": np.ones(100 * MIB // 4, np.float32)}
    return peak_activation_bytes(chain_of_sines(4, size_bytes), tensors)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process reset its high-water mark")
@pytest.mark.parametrize("mebibytes", [4, 32])
def test_the_peak_is_that_of_the_tensors_alive(mebibytes: int) -> None:
    size = mebibytes * MIB
    # In a process of its own: what threads that other tests have left take meanwhile would count, too.
    with ProcessPoolExecutor(1, get_context("spawn")) as alone:
        peak = alone.submit(peak_of_sines, size).result()
    if peak is None:
        pytest.skip("this system does not let a process reset its high-water mark")
    # x, the first sine, and at least one more; not all five, because buffers are used again
    assert 3 * size - MIB <= peak <= 5 * size + MIB
