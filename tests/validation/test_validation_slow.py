"""Agents that are far slower than their profile: the run goes on while its plan is solved again and again."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from planner.execution.coordinator.deployment import deploy
from planner.execution.coordinator.run_result import Observer
from planner.execution.launch.setting import on_this_host
from planner.execution.wire.messages import Load
from planner.model.load import ChainModel, load_chain
from planner.plan.types import PlanSpec
from planner.runtime.session import BlockSession
from planner.scenario.instance import Instance
from planner.solvers import solve
from planner.solvers.replan.process import ReplanProcess
from planner.trace.records import SampleRecord
from planner.validation.summary import describe_validation
from planner.validation.validate import validate
from tests.instances import make_instance, make_profile

BLOCKS = 4
ROWS, WIDTH = 64, 512
SLOWER = {"a": 8.0, "b": 12.0, "c": 16.0, "d": 20.0}
"""How many times longer than by its profile each worker takes."""

STALL_S = 1.0
TICK_S = 0.05


def heavy_model(folder: Path) -> ChainModel:
    """Blocks of some milliseconds, of which nothing else on the way takes as long."""
    weight = np.random.default_rng(0).standard_normal((WIDTH, WIDTH)).astype(np.float32) / WIDTH**0.5
    nodes, last = [], "x"
    for index in range(BLOCKS):
        for turn in range(4):
            made = f"m{index}{turn}"
            nodes.append(helper.make_node("MatMul", [last, "w"], [made], name=f"mul{index}{turn}"))
            last = made
        nodes.append(helper.make_node("Relu", [last], [f"r{index}"], name=f"relu{index}"))
        last = f"r{index}"
    sides = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, ROWS, WIDTH]) for name in ("x", f"r{BLOCKS - 1}")
    ]
    graph = helper.make_graph(nodes, "heavy", sides[:1], sides[1:], [onnx.numpy_helper.from_array(weight, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, folder / "heavy.onnx")
    return load_chain(folder / "heavy.onnx", max_blocks=BLOCKS, name="heavy")


def measured_block_s(model: ChainModel) -> list[float]:
    """The least of several times of each block, here and now."""
    found_s = []
    tensors = {"x": np.ones((1, ROWS, WIDTH), np.float32)}
    for index in range(len(model.chain)):
        session = BlockSession(model.block_model(index))
        times_s = []
        for _ in range(10):
            start_s = time.perf_counter()
            made = session.run(tensors)
            times_s.append(time.perf_counter() - start_s)
        found_s.append(min(times_s))
        tensors = tensors | made
    return found_s


def slow_case(folder: Path) -> tuple[Instance, PlanSpec, ChainModel]:
    """Four workers, each with a block of its own in the first plan; each is told to be faster than it is."""
    model = heavy_model(folder)
    profile = make_profile(
        "heavy", block_s=measured_block_s(model), cut_bytes=[cut.bytes for cut in model.chain.cuts]
    ).model_copy(update={"chain_sha256": model.chain.chain_sha256})
    sources = {
        name: {"worker": home, "rate_per_s": 6.0, "priority": priority, "samples": 60, "arrivals": "constant"}
        for name, home, priority in (("urgent", "a", 8.0), ("other", "b", 1.0))
    }
    instance = make_instance(profiles=[profile], workers=SLOWER, sources=sources)
    pins = {source: dict(enumerate(SLOWER)) for source in sources}
    plan = solve(instance, pins=pins).plan
    assert plan is not None
    return instance, plan, model


class Heard(Observer):
    """When the coordinator's thread was told something."""

    def __init__(self) -> None:
        self.at_s: list[float] = []

    def on_load(self, load: Load) -> None:  # noqa: ARG002
        self.at_s.append(time.monotonic())

    def on_ended(self, sample: SampleRecord, outputs: object) -> None:  # noqa: ARG002
        self.at_s.append(time.monotonic())


HOST = f"""
import sys, threading, time
threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
over, before = threading.Event(), time.monotonic()
while not over.is_set():
    time.sleep({TICK_S})
    now = time.monotonic()
    print(now, now - before, flush=True)
    before = now
"""


@contextmanager
def host_gaps() -> Iterator[list[tuple[float, float]]]:
    """Have a process of its own tell how long this host let it wait: times of the end of each gap, and gaps."""
    found: list[tuple[float, float]] = []
    with subprocess.Popen(
        [sys.executable, "-c", HOST], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:

        def read() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                end_s, gap_s = map(float, line.split())
                found.append((end_s, gap_s))

        reader = threading.Thread(target=read)
        reader.start()
        try:
            yield found
        finally:
            assert process.stdin is not None
            process.stdin.close()
            reader.join()


@pytest.mark.alone
def test_a_run_of_slow_agents_ends_with_a_verdict_and_never_stalls(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    instance, plan, model = slow_case(tmp_path)
    models, heard = {"heavy": model}, Heard()
    setting = on_this_host(instance, paced=False)
    deployment = deploy(instance, plan, models, policy="planned", replan=ReplanProcess)
    before = set(threading.enumerate())
    capfd.readouterr()
    with host_gaps() as host:
        validation = validate(
            deployment, models, setting.agents, say=lambda _: lambda _done, _all: None, observer=heard
        )
    assert not [thread for thread in set(threading.enumerate()) - before if thread.name == "replan"]
    assert (validation.lost, validation.failed, validation.numerics.equal) == (0, 0, True)

    told = [incident.what for incident in validation.measurement.incidents]
    slow = {one.worker for one in validation.measurement.incidents if "x slower than profiled" in one.what}
    assert len(slow) >= 2
    assert any(what.startswith("new plan by ") for what in told)
    assert not any(what.startswith("no new plan") for what in told)

    # A stall is the run's own if the host kept nobody else waiting meanwhile.
    for since_s, at_s in pairwise(heard.at_s):
        waited_s = sum(gap_s - TICK_S for end_s, gap_s in host if since_s < end_s and end_s - gap_s < at_s)
        assert at_s - since_s - waited_s < STALL_S

    assert capfd.readouterr() == ("", "")
    assert str(list(describe_validation(validation, 0.15))[-1]).startswith("NOT PASSED: mean delay of urgent (")
