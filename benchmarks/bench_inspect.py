"""Time to inspect a model, relative to loading it and inferring its shapes with onnx alone."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Final

import onnx

from planner.cli.output import print_table
from planner.model.load import load_chain
from planner.model.reference import build_model

REPEATS: Final = 3
GOALS_S: Final = {"mobilenetv2": None, "resnet50": 2.0, "resnet56-exits": None, "gpt2": 10.0}
"""Models, with the goal of the time to inspect each in seconds."""


def run() -> None:
    """Print the figures next to their goals."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, goal_s in GOALS_S.items():
            path = build_model(name, Path(folder) / "model.onnx")
            planner_s, onnx_s = best_s(partial(load_chain, path)), best_s(partial(_onnx_alone, path))
            goal = f"{goal_s:.0f}" if goal_s else ""
            rows.append((name, f"{planner_s:.2f}", goal, f"{onnx_s:.2f}", f"{planner_s / onnx_s:.2f}"))
    print_table(
        "Inspecting a model, relative to onnx.load and infer_shapes",
        ("model", ">inspect s", ">goal s", ">onnx alone s", ">ratio"),
        rows,
    )


def best_s(action: Callable[[], object]) -> float:
    """Return the shortest of several times in seconds, because disturbances only add time."""
    times = []
    for _ in range(REPEATS):
        start_s = perf_counter()
        action()
        times.append(perf_counter() - start_s)
    return min(times)


def _onnx_alone(path: Path) -> onnx.ModelProto:
    return onnx.shape_inference.infer_shapes(onnx.load(path))


if __name__ == "__main__":
    run()
