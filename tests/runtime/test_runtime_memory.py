from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from planner.runtime.memory import BlockMemory, measure_memory
from planner.runtime.session import BlockSession

MIB = 2**20


def chain_of_sines(length: int, size_bytes: int) -> bytes:
    """Return ``y = sin(sin(... x)) + sin(x)``: at least three tensors of ``size_bytes`` are alive at once."""
    shape = [size_bytes // 4]
    nodes = [helper.make_node("Sin", ["x" if i == 0 else f"t{i - 1}"], [f"t{i}"]) for i in range(length)]
    nodes.append(helper.make_node("Add", [f"t{length - 1}", "t0"], ["y"]))
    graph = helper.make_graph(
        nodes,
        "sines",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


def with_weight(size_bytes: int) -> bytes:
    """Return ``y = x + w``, where both have ``size_bytes``."""
    shape = [size_bytes // 4]
    weight = numpy_helper.from_array(np.ones(shape, np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "sum",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


def memory_of(models: Sequence[bytes], size_bytes: int) -> list[BlockMemory | None]:
    """Return the memory of models with an input of ``size_bytes``, after another session has been created."""
    tensors = {"x": np.ones(size_bytes // 4, np.float32), "unrelated": np.ones(100 * MIB // 4, np.float32)}
    BlockSession(models[0]).run(tensors)
    return [measure_memory(model, tensors) for model in models]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process reset its high-water mark")
@pytest.mark.parametrize("mebibytes", [4, 32])
@pytest.mark.slow
def test_the_peak_is_that_of_the_tensors_alive_and_weights_are_held(mebibytes: int) -> None:
    size = mebibytes * MIB
    # A separate process: memory allocated meanwhile by threads of other tests would count, too.
    with ProcessPoolExecutor(1, get_context("spawn")) as executor:
        models = [chain_of_sines(4, size), with_weight(size)]
        sines, weighted = executor.submit(memory_of, models, size).result()
    if sines is None or weighted is None:
        pytest.skip("this system does not let a process reset its high-water mark")
    # x, the first sine and at least one more are alive; buffers are reused, so not all five are.
    assert 3 * size - MIB <= sines.peak_bytes <= 5 * size + MIB
    assert sines.held_bytes <= MIB
    assert size - MIB <= weighted.held_bytes <= size + MIB
    assert 2 * size - MIB <= weighted.peak_bytes <= 2 * size + 2 * MIB
