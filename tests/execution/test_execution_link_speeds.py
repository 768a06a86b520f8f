"""The speed of links is known from the samples' own transfers, with their number and age; nothing else is sent."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import planner as library
from planner.execution.agent.link_speeds import LinkSpeeds
from planner.execution.wire.zenoh import free_port
from planner.model.load import load_chain
from planner.profiling.store import save_profile
from tests.cli.command import planner
from tests.execution.raw import agent_process
from tests.instances import make_profile

LENGTH = 2**20
"""Numbers in a sample: enough for its transfer to be measured."""

SCENARIO = """\
schema: planner/scenario/v1
profiles: [profiles]
models:
  wide: {path: wide.onnx, max_blocks: 2}
workers:
  a: {device_class: reference, memory: 1 GiB}
  b: {device_class: reference, memory: 1 GiB}
networks:
  lan: {kind: shared, members: [a, b], bandwidth: 1 Gbit/s, latency: 1 ms}
sources:
  camera: {worker: a, models: [wide], rate: 10 /s, samples: 10}
"""


def wide_plan(folder: Path) -> library.Plan:
    """Return a plan that computes all at ``b``."""
    shape = [1, LENGTH]
    nodes = [helper.make_node("Relu", [f"t{index}"], [f"t{index + 1}"], name=f"relu{index}") for index in range(2)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("t0", "t2")]
    graph = helper.make_graph(nodes, "wide", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), folder / "wide.onnx")
    chain = load_chain(folder / "wide.onnx", max_blocks=2).chain
    profile = make_profile("wide", block_s=[0.004] * len(chain), cut_bytes=[cut.bytes for cut in chain.cuts])
    profile = profile.model_copy(update={"chain_sha256": chain.chain_sha256})
    save_profile(profile, folder / "profiles" / "reference" / "wide.json")
    (folder / "scenario.yaml").write_text(SCENARIO, encoding="utf-8")
    pins = {"camera": dict.fromkeys(range(len(chain)), "b")}
    return library.solve(folder / "scenario.yaml", pins=pins, progress=None)


def test_links_are_measured_while_samples_flow(tmp_path: Path) -> None:
    plan, address, cache = wide_plan(tmp_path), f"127.0.0.1:{free_port()}", ("--cache", str(tmp_path / "cache"))
    with (
        agent_process("a", "--listen", address, *cache),
        agent_process("b", "--connect", address, *cache),
        library.Session(plan, connect=[address]) as session,
    ):
        assert session.links == {}
        until_s = time.monotonic() + 120.0
        while ("a", "b") not in session.links:
            assert time.monotonic() < until_s
            session.source("camera").submit({"t0": np.ones((1, LENGTH), np.float32)}).result(60.0)
        link = session.links["a", "b"]
        assert link.bytes_per_s > 0
        assert link.transfers >= 1
        shown = json.loads(planner("status", "a", "--connect", address, "--wait", "30 s", "--json").stdout)
        assert shown["agents"]["a"]["links"]["b"]["transfers"] >= link.transfers
        told = planner("status", "a", "--connect", address, "--wait", "30 s").stdout
        assert "a sends to b at " in told


def test_the_fastest_of_the_last_transfers_counts() -> None:
    speeds = LinkSpeeds()
    for took_s in (0.1, 2.0, 1.0, 4.0, 5.0, 2.5, 0.0):
        speeds.add("b", 10**6, took_s)
    link = speeds.describe()["b"]
    assert link.bytes_per_s == pytest.approx(1e6)
    assert link.transfers == 6
    assert link.age_s >= 0
