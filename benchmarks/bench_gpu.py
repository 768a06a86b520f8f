"""A GPU used well: one session with and without a recorded run (CUDA graph), blocks, and a joined stage; and profiles.

Run ``python -m benchmarks gpu`` on a machine that has one; the environment variable ``PLANNER_PROVIDER`` names another
provider than ``cuda``. On others, it says why it is skipped.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Final

import numpy as np

from benchmarks.bench_profile import MODELS
from planner.cli.output import print_table
from planner.errors import RuntimeSessionError
from planner.execution.agent.model_blocks import ModelBlocks, fetch
from planner.model.load import ChainModel, load_chain
from planner.profiling.measure import measure
from planner.profiling.sampling import cut_names
from planner.runtime.inputs import random_inputs
from planner.runtime.providers import Provider, find_provider, with_options
from planner.runtime.session import BlockSession, upload

WARM_S: Final = 2.0
"""An idle GPU runs at a fraction of its clock."""
ROUNDS: Final = 60
WARM_UP: Final = 5
PROFILING_S: Final = 30.0


def run() -> None:
    """Print the figures next to their goals."""
    name = os.environ.get("PLANNER_PROVIDER", "cuda")
    try:
        provider = find_provider(name)
    except RuntimeSessionError as error:
        print(f"GPU: skipped, {error}\n")
        return
    plain = find_provider(with_options(name, [f"{key}=0" for key in provider.graph_options]))
    rows, profiles = [], []
    for model_name, build in MODELS.items():
        with tempfile.TemporaryDirectory() as folder:
            model = load_chain(build(Path(folder) / "whole.onnx"))
            rows.append((model_name, *_times(model, Path(folder), provider, plain)))
            found = measure(model, device_class="bench", provider=name, budget_s=PROFILING_S)
            off = found.segment_error
            shown = ("–", "–") if off is None else (f"{off.median:.1%}", f"{off.p95:.1%}")
            profiles.append((model_name, f"{sum(block.mean_s for block in found.blocks) * 1e3:.2f} ms", *shown))
    print_table(
        f"One provider, {name}: medians of {ROUNDS} runs with tensors kept on the device, but for stages, whose inputs "
        "and outputs are in host memory (goal: joined stage at most 1.10 times one session that is replayed)",
        (
            "model", ">one session", ">replayed", ">blocks", ">blocks replayed", ">one, host memory",
            ">joined stage, host memory", ">stage / one", ">recorded",
        ),
        rows,
    )  # fmt: skip
    print_table(
        "Profiles (goals: segments 5 %, 95 % of them 10 %)", ("model", ">whole", ">segments", ">95 % of them"), profiles
    )


def _times(model: ChainModel, folder: Path, provider: Provider, plain: Provider) -> tuple[str, ...]:
    """Return the times of each way to run a model, interleaved."""
    length = len(model.chain)
    files = tuple(folder / f"block-{index}.onnx" for index in range(length))
    for index, path in enumerate(files):
        path.write_bytes(model.block_model(index))
    whole = model.stage_model(0, length - 1)
    inputs = random_inputs(model.chain.cuts[0].tensors, np.random.default_rng(0))
    cuts = tuple(map(tuple, cut_names(model.chain)))
    one, replayed = BlockSession(whole, provider=plain), BlockSession(whole, provider=provider)
    blocks, recorded, stage = (
        ModelBlocks(cuts, files, provider=each, threads=1) for each in (plain, provider, provider)
    )
    stage.load(0, length - 1)
    placed = upload(inputs, provider) if provider.device is not None else inputs
    ways: dict[str, Callable[[], object]] = {
        "one": lambda: _on_device(one, placed),
        "replayed": lambda: _on_device(replayed, placed),
        "blocks": lambda: _block_by_block(blocks, placed, length),
        "blocks replayed": lambda: _block_by_block(recorded, placed, length),
        "host": lambda: replayed.run(inputs),
        "stage": lambda: fetch(stage.run(0, inputs, length - 1)),
    }
    until_s = perf_counter() + WARM_S
    while perf_counter() < until_s:
        ways["one"]()
    taken_s: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(WARM_UP + ROUNDS):
        for way, execute in ways.items():
            start_s = perf_counter()
            execute()
            if number >= WARM_UP:
                taken_s[way].append(perf_counter() - start_s)
    found = {way: median(of_way) for way, of_way in taken_s.items()}
    ratio = median(
        stage_s / whole_s for stage_s, whole_s in zip(taken_s["stage"], taken_s["host"], strict=True)
    )  # fmt: skip
    records = "yes" if replayed.records else "no"
    return (*(f"{time_s * 1e3:.2f} ms" for time_s in found.values()), f"{ratio:.2f}", records)


def _on_device(session: BlockSession, placed: Any) -> object:
    return session.run(placed) if session.provider.device is None else session.run_on_device(placed)


def _block_by_block(blocks: ModelBlocks, placed: Any, length: int) -> Sequence[object]:
    tensors = placed
    for index in range(length):
        tensors = blocks.run(index, tensors, goes_on=index > 0)
    return list(tensors)
