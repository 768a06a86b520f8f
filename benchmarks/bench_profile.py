"""Accuracy of profiles: predicted against measured times, and the overhead of blocks over one fused session."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter, thread_time
from typing import Final

import numpy as np

from planner.cli.output import print_table
from planner.model.architectures import gpt2
from planner.model.load import ChainModel, load_chain
from planner.model.reference import build_model
from planner.profiling.measure import measure
from planner.profiling.sampling import cut_names
from planner.profiling.types import Profile
from planner.runtime.inputs import random_inputs
from planner.runtime.runner import ChainRunner
from planner.runtime.session import BlockSession

ROUNDS: Final = 25
STAGES: Final = (2, 4, 8)

MODELS: Final[dict[str, Callable[[Path], Path]]] = {
    "mobilenetv2": lambda path: build_model("mobilenetv2", path),
    "resnet50": lambda path: build_model("resnet50", path),
    "gpt2, 4 layers": lambda path: gpt2(path, layers=4, width=768, heads=12, vocabulary=5000, tokens=64),
}


def run() -> None:
    """Print the figures next to their goals."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, build in MODELS.items():
            rows.append((name, *_figures(load_chain(build(Path(folder) / "model.onnx")))))
    print_table(
        "Profiles against measurements (goals: segments 5 %, 95 % of them 10 %; stages 5 %; blocks / fused 1.05)",
        (
            "model",
            ">profiling s",
            ">segments",
            ">95 % of them",
            *(f">{count} stages" for count in STAGES),
            ">blocks / fused",
            "warnings",
        ),
        rows,
    )


def _figures(model: ChainModel) -> tuple[str, ...]:
    start_s = perf_counter()
    profile = measure(model, device_class="bench")
    took_s = perf_counter() - start_s
    error = profile.segment_error
    if error is None:
        raise RuntimeError("a chain of one block has no segments")
    stages, blocks_over_fused = _stages(model, profile)
    return (
        f"{took_s:.0f}",
        f"{error.median:.1%}",
        f"{error.p95:.1%}",
        *(f"{stages[count]:+.1%}" for count in STAGES),
        f"{blocks_over_fused:.2f}",
        f"{len(profile.environment['warnings'])}",
    )


def _stages(model: ChainModel, profile: Profile) -> tuple[dict[int, float], float]:
    """Return the relative error of the predicted time by number of stages, and the ratio of blocks to fused."""
    length = len(model.chain)
    runner = ChainRunner(cut_names(model.chain))
    for index in range(length):
        runner.load(index, model.block_model(index))
    whole = BlockSession(model.model_bytes())
    inputs = random_inputs(model.chain.cuts[0].tensors, np.random.default_rng(0))

    def chain_in(count: int) -> float:
        borders = np.linspace(0, length, min(count, length) + 1).astype(int)
        tensors, start_s = inputs, thread_time()
        for first, end in itertools.pairwise(borders):
            tensors = runner.run_segment(int(first), int(end) - 1, tensors)
        return thread_time() - start_s

    def fused() -> float:
        start_s = thread_time()
        whole.run(inputs)
        return thread_time() - start_s

    runs = {str(count): partial(chain_in, count) for count in (1, *STAGES)} | {"fused": fused}
    times: dict[str, list[float]] = {key: [] for key in runs}
    rng = np.random.default_rng(1)
    for _ in range(ROUNDS):
        for key in rng.permutation(list(runs)):  # in random order, because a run affects the caches of the next
            times[key].append(runs[key]())
    median_s = {key: float(np.median(measured[2:])) for key, measured in times.items()}
    blocks_s = sum(block.mean_s for block in profile.blocks)
    errors = {
        count: median_s[str(count)] / (blocks_s + min(count, length) * profile.stage_overhead_s) - 1 for count in STAGES
    }
    return errors, median_s["1"] / median_s["fused"]


if __name__ == "__main__":
    run()
