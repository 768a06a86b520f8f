"""A process that ends while onnxruntime computes in one of its threads ends in order."""

from __future__ import annotations

import subprocess
import sys

LEAVES = """
import queue

import numpy as np
from onnx import TensorProto, helper

from planner.execution.agent.executor import BlockJob, Executor, ModelBlocks
from planner.policy.types import SampleKey
from planner.worker.events import RunBlock

SIZE, LAYERS = 512, 50  # about a second of one processor
names = [f"t{layer}" for layer in range(LAYERS + 1)]
layers = [helper.make_node("MatMul", [a, "w"], [b]) for a, b in zip(names, names[1:])]
weights = helper.make_tensor("w", TensorProto.FLOAT, [SIZE, SIZE], np.eye(SIZE, dtype=np.float32).tobytes(), raw=True)
ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [SIZE, SIZE]) for name in (names[0], names[-1])]
graph = helper.make_graph(layers, "layers", ends[:1], ends[1:], [weights])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

blocks = ModelBlocks(((names[0],), (names[-1],)), (model.SerializeToString(),), provider="cpu", threads=1)
tensors = {names[0]: np.ones((SIZE, SIZE), np.float32)}
ended = queue.SimpleQueue()


def tell(result):
    ended.put(result)
    print(result.reason or sorted(result.tensors), flush=True)


executor = Executor({"m": blocks}, tell, lambda error: None)
for sample in range(2):
    executor.submit(BlockJob(RunBlock(SampleKey("s", sample, 0), "m", 0, begins_stage=True), tensors, 0.0, None))
ended.get()
executor.close()
"""


def test_a_process_waits_for_the_block_that_it_computes() -> None:
    ended = subprocess.run([sys.executable, "-c", LEAVES], capture_output=True, text=True, timeout=120.0, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "['t50']\n['t50']\n", "")
