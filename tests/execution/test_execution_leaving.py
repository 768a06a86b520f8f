"""An agent that is told to leave ends in order, soon, and not in the middle of a block."""

from __future__ import annotations

import hashlib
import itertools
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from onnx import TensorProto, helper

from planner.errors import ExecuteError
from planner.execution.coordinator.coordinator import Coordinator
from planner.execution.coordinator.deployment import Deployment
from planner.execution.wire.messages import COORDINATOR, DeployedModel
from planner.execution.wire.zenoh import free_port, zenoh_connect
from planner.model.chain import TensorSpec
from planner.policy.candidate_routes import resident_blocks
from tests.execution.fleet import deployment_for, fleet
from tests.execution.rig import small_instance, small_plan
from tests.instances import make_instance, make_profile

LEAVES = """
import queue

import numpy as np
from onnx import TensorProto, helper

from planner.execution.agent.executor import BlockJob, Executor
from planner.execution.agent.model_blocks import ModelBlocks
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
    print(result.reason or [sorted(tensors) for tensors in result.tensors], flush=True)


executor = Executor({"m": blocks}, tell, lambda error: None)
for sample in range(2):
    executor.submit(BlockJob(RunBlock(SampleKey("s", sample, 0), "m", 0, begins_stage=True), (tensors,), 0.0, None))
ended.get()
executor.close()
"""


def test_a_process_waits_for_the_block_that_it_computes() -> None:
    ended = subprocess.run([sys.executable, "-c", LEAVES], capture_output=True, text=True, timeout=120.0, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "[['t50']]\n[['t50']]\n", "")


BLOCKS, SIZE, LAYERS = 20, 384, 40  # the warm-up of all blocks takes several seconds


def slow_block(index: int) -> bytes:
    """Return ``t[index + 1] = softmax(t t)``, many times over, where ``t`` begins as ``t[index]``."""
    names = [f"t{index}", *(f"h{layer}" for layer in range(1, LAYERS)), f"t{index + 1}"]
    nodes = []
    for layer, (before, after) in enumerate(itertools.pairwise(names)):
        nodes += [helper.make_node("MatMul", [before, before], [f"m{layer}"])]
        nodes += [helper.make_node("Softmax", [f"m{layer}"], [after])]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [SIZE, SIZE]) for name in (names[0], names[-1])]
    graph = helper.make_graph(nodes, "block", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def slow_deployment(workers: Sequence[str]) -> Deployment:
    """Return a deployment in which each worker has all blocks of a model."""
    files = [slow_block(index) for index in range(BLOCKS)]
    hashes = [hashlib.sha256(data).hexdigest() for data in files]
    cuts = tuple((TensorSpec(f"t{index}", "float32", (SIZE, SIZE)),) for index in range(BLOCKS + 1))
    sizes = [4 * SIZE**2] * (BLOCKS + 1)
    instance = make_instance(
        profiles=[make_profile("small", block_s=[0.1] * BLOCKS, cut_bytes=sizes)],
        workers=dict.fromkeys(workers, 1.0),
        sources={"urgent": {"rate_per_s": 0.1, "samples": 1}, "other": {"rate_per_s": 0.1, "samples": 1}},
    )
    plan = small_plan(*([(worker, 0, BLOCKS - 1)] for worker in workers))
    model = DeployedModel(cuts=cuts, block_sha256=tuple(hashes), block_bytes=tuple(map(len, files)))
    return Deployment(
        instance=instance,
        plan=plan,
        policy="planned",
        seed=3,
        models={"small": model},
        blocks=dict(zip(hashes, files, strict=True)),
        resident=resident_blocks(instance, "planned", plan),
        paced=False,
    )


def blocks_warmed(agent: subprocess.Popen[str], told: signal.Signals) -> int:
    """Send an agent a signal once its first block is warm; return how many blocks it warmed up until it ended."""
    assert agent.stderr is not None
    warmed = 0
    for line in agent.stderr:
        if "is warm" in line:
            warmed += 1
            if warmed == 1:
                agent.send_signal(told)
    assert agent.wait(60.0) == 0
    return warmed


def test_an_agent_that_warms_up_leaves_after_the_block_at_hand(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    signals = {"a": signal.SIGTERM, "b": signal.SIGINT}
    agents: dict[str, subprocess.Popen[str]] = {}
    try:
        with (
            Coordinator(zenoh_connect(COORDINATOR, listen=address, connect=[])) as coordinator,
            ThreadPoolExecutor() as pool,
        ):
            for name in signals:
                command = [sys.executable, "-m", "planner", "agent", "--name", name, "--connect", address]
                command += ["--cache", str(tmp_path / name), "--log-level", "debug"]
                agents[name] = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
            warmed = [pool.submit(blocks_warmed, agents[name], told) for name, told in signals.items()]
            coordinator.await_agents(tuple(signals), 60.0)
            with pytest.raises(ExecuteError, match="agents left before the run started"):
                coordinator.run(slow_deployment(tuple(signals)), ready_timeout_s=120.0)
            assert all(1 <= each.result() < BLOCKS // 2 for each in warmed), [each.result() for each in warmed]
    finally:
        for agent in agents.values():
            agent.kill()
            agent.communicate()


def test_agents_that_leave_before_the_deployment_are_named_at_once(tmp_path: Path) -> None:
    instance = small_instance()
    with fleet(tmp_path, *instance.workers) as (agents, coordinator):
        for name in instance.workers:  # the coordinator learns it while it compares clocks, and hears nothing more
            agents.kill(name)
        with pytest.raises(ExecuteError, match="agents left before the run started; found 'a, b, c'"):
            coordinator.run(deployment_for(instance), ready_timeout_s=20.0)
