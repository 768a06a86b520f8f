"""How long inspecting a model takes, as a ratio to reading it and inferring its shapes with onnx alone.

Run with ``python -m tests.model.bench_model_inspect [NAME ...]``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter

import onnx

from planner.model.load import load_chain
from tests.model.chained import reference

REPEATS = 3


def best_s(action: Callable[[], object]) -> float:
    """Give the shortest of a few times."""
    times = []
    for _ in range(REPEATS):
        start = perf_counter()
        action()
        times.append(perf_counter() - start)
    return min(times)


def _onnx_alone(path: Path) -> onnx.ModelProto:
    return onnx.shape_inference.infer_shapes(onnx.load(path))


def main(names: list[str]) -> None:
    """Print a line for each model."""
    for name in names:
        path = reference(name)
        ours, alone = best_s(partial(load_chain, path)), best_s(partial(_onnx_alone, path))
        sys.stdout.write(f"{name}: inspect {ours:.2f} s, onnx alone {alone:.2f} s, ratio {ours / alone:.2f}\n")


if __name__ == "__main__":
    main(sys.argv[1:] or ["resnet56-exits", "mobilenetv2", "resnet50"])
