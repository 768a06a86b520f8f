"""A plan file with the files it refers to: a small model, its profile, a scenario."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from onnx import TensorProto, helper

from planner.model.load import load_chain
from planner.plan.store import save_plan
from planner.profiling.store import save_profile
from planner.project import reference_to
from planner.scenario.load import load_instance
from planner.solvers import solve
from tests.instances import make_profile

BLOCKS = 3
BLOCK_S = 0.004
WIDTH = 32
ROWS = 10

SCENARIO = """\
schema: planner/scenario/v1
profiles: [profiles]
models:
  small: {path: small.onnx, max_blocks: 3}
workers:
  a: {device_class: reference, memory: 1 GiB}
  b: {device_class: reference, memory: 1 GiB, speed: 2.0}
networks:
  lan: {kind: shared, members: [a, b], bandwidth: 80 Mbit/s, latency: 1 ms}
sources:
  urgent: {worker: a, models: [small], rate: 40 /s, priority: 8, samples: 30}
  other: {worker: a, models: [small], rate: 40 /s, priority: 1, samples: 30}
"""


def small_model() -> onnx.ModelProto:
    """Return ``y = relu(relu(x w0) w1) w2 + table[pick]``; its last block raises if ``pick >= ROWS``."""
    rng = np.random.default_rng(0)
    nodes, weights, last = [], [], "x"
    for index in range(BLOCKS):
        weights.append(
            onnx.numpy_helper.from_array(rng.standard_normal((WIDTH, WIDTH)).astype(np.float32), f"w{index}")
        )
        nodes.append(helper.make_node("MatMul", [last, f"w{index}"], [f"m{index}"], name=f"mul{index}"))
        last = f"m{index}"
        if index < BLOCKS - 1:
            nodes.append(helper.make_node("Relu", [last], [f"r{index}"], name=f"relu{index}"))
            last = f"r{index}"
    weights.append(onnx.numpy_helper.from_array(rng.standard_normal((ROWS, WIDTH)).astype(np.float32), "table"))
    nodes.append(helper.make_node("Gather", ["table", "pick"], ["row"], name="gather"))
    nodes.append(helper.make_node("Add", [last, "row"], ["y"], name="add"))
    graph = helper.make_graph(
        nodes,
        "small",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, WIDTH]),
            helper.make_tensor_value_info("pick", TensorProto.INT64, [1]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, WIDTH])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def write_case(folder: Path, scenario: str = SCENARIO, *, external: bool = False) -> Path:
    """Write all files and return the path of the plan: block 0 at home, the others at ``b``."""
    for name, content in _files(scenario, external=external).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder / "plan.json"


@cache
def _files(scenario: str, *, external: bool) -> dict[str, bytes]:
    """Return the contents of all files by their places in the folder, made once: planning takes seconds."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        _make(folder, scenario, external=external)
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _make(folder: Path, scenario: str, *, external: bool) -> None:
    file = folder / "small.onnx"
    onnx.save(small_model(), file, save_as_external_data=external, location="small.data", size_threshold=0)
    chain = load_chain(folder / "small.onnx", max_blocks=BLOCKS).chain
    profile = make_profile("small", block_s=[BLOCK_S] * len(chain), cut_bytes=[cut.bytes for cut in chain.cuts])
    profile = profile.model_copy(update={"chain_sha256": chain.chain_sha256})
    save_profile(profile, folder / "profiles" / "reference" / "small.json")
    (folder / "scenario.yaml").write_text(scenario)
    pins = {key: {0: "a", **dict.fromkeys(range(1, len(chain)), "b")} for key in ("urgent", "other")}
    solution = solve(load_instance(folder / "scenario.yaml"), pins=pins, method="milp")
    assert solution.plan is not None
    named = solution.plan.model_copy(update={"scenario": reference_to(folder / "scenario.yaml", folder / "plan.json")})
    save_plan(named, folder / "plan.json")
