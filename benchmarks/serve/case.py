"""A model with 100 KB in and out, its plan for one worker, and the service as a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

import planner

ROWS: Final = 25
WIDTH: Final = 1024
LAYERS: Final = 16
LIMIT: Final = 8
"""In-flight samples of the source, in the session and in the service."""

SOURCE: Final = "camera"

SCENARIO: Final = """\
schema: planner/scenario/v1
profiles: [profiles]
models:
  layers: {path: layers.onnx, max_blocks: 2}
workers:
  box: {device_class: here, memory: 4 GiB}
sources:
  camera: {worker: box, models: [layers], rate: 1 /s, priority: 1}
"""


def sample(seed: int = 0) -> NDArray[Any]:
    """Return an input of 100 KB."""
    return np.random.default_rng(seed).standard_normal((ROWS, WIDTH)).astype(np.float32)


def write_case(folder: Path) -> Path:
    """Write the model, its profile measured here, the scenario and the plan; return the plan's path."""
    rng = np.random.default_rng(0)
    weights = [
        onnx.numpy_helper.from_array((rng.standard_normal((WIDTH, WIDTH)) / 32).astype(np.float32), f"w{layer}")
        for layer in range(LAYERS)
    ]
    names = ["x", *(f"t{layer}" for layer in range(1, LAYERS)), "y"]
    nodes = [
        helper.make_node("MatMul", [names[layer], f"w{layer}"], [names[layer + 1]], name=f"m{layer}")
        for layer in range(LAYERS)
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [ROWS, WIDTH]) for name in ("x", "y"))
    graph = helper.make_graph(nodes, "layers", [x], [y], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, folder / "layers.onnx")
    profile = planner.profile(folder / "layers.onnx", device_class="here", max_blocks=2, budget_s=3.0, progress=None)
    planner.save_profile(profile, folder / "profiles" / "here" / "layers.json")
    (folder / "scenario.yaml").write_text(SCENARIO)
    planner.solve(folder / "scenario.yaml", progress=None).save(folder / "plan.json")
    return folder / "plan.json"


@contextmanager
def serving(plan: Path, *options: str) -> Iterator[tuple[str, str, int]]:
    """Run the service in a process of its own; give its addresses for HTTP and gRPC, and the number of the process."""
    command = [sys.executable, "-m", "planner", "serve", str(plan), "--limit", str(LIMIT), "--log-format", "json"]
    free = "127.0.0.1:0"
    with subprocess.Popen(
        [*command, *options, "--listen", free, "--grpc-listen", free], stderr=subprocess.PIPE, text=True
    ) as process:
        log: Any = process.stderr
        try:
            for line in log:
                entry = json.loads(line)
                if "http" in entry:
                    yield entry["http"], entry["grpc"], process.pid
                    break
            else:
                raise RuntimeError("the service did not start")
        finally:
            process.terminate()
            log.read()
