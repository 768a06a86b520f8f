"""A stage whose blocks are joined on an agent, against one session of the same layers and against single blocks."""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.bench_profile import MODELS
from planner.cli.output import print_table
from planner.execution.agent.model_blocks import ModelBlocks
from planner.heap import trim_heap
from planner.model.load import ChainModel, load_chain
from planner.profiling.sampling import cut_names
from planner.runtime.inputs import random_inputs
from planner.runtime.session import BlockSession

ROUNDS: Final = 40
WARM_UP: Final = 5

Arrays = dict[str, NDArray[Any]]


def run() -> None:
    """Print the figures next to their goals."""
    rows = []
    for name, build in MODELS.items():
        with tempfile.TemporaryDirectory() as folder:
            model = load_chain(build(Path(folder) / "whole.onnx"))
            files = _files(model, Path(folder))
            rows.append((name, *_times(model, files, Path(folder)), *_memory(model, files, Path(folder))))
    print_table(
        "Joined blocks of a stage (goals: time at most 1.02 and memory at most 1.1 times those of one session)",
        (
            "model",
            ">stage / one session",
            ">single blocks / one session",
            ">memory / one session",
            ">after single blocks",
        ),
        rows,
    )


def _files(model: ChainModel, folder: Path) -> tuple[Path, ...]:
    paths = tuple(folder / f"block-{index}.onnx" for index in range(len(model.chain)))
    for index, path in enumerate(paths):
        path.write_bytes(model.block_model(index))
    (folder / "stage.onnx").write_bytes(model.stage_model(0, len(paths) - 1))
    return paths


def _blocks(cuts: tuple[tuple[str, ...], ...], files: tuple[Path, ...]) -> ModelBlocks:
    return ModelBlocks(cuts, files, provider="cpu", threads=1)


def _cuts(model: ChainModel) -> tuple[tuple[str, ...], ...]:
    return tuple(map(tuple, cut_names(model.chain)))


def _times(model: ChainModel, files: tuple[Path, ...], folder: Path) -> tuple[str, str]:
    """Return the times of the stage joined and block by block, relative to one session; interleaved, medians."""
    last = len(files) - 1
    inputs = random_inputs(model.chain.cuts[0].tensors, np.random.default_rng(0))
    one = BlockSession(folder / "stage.onnx")
    joined, single = _blocks(_cuts(model), files), _blocks(_cuts(model), files)
    joined.load(0, last)
    ways: dict[str, Callable[[], object]] = {
        "one": lambda: one.run(inputs),
        "joined": lambda: joined.run(0, inputs, last),
        "single": lambda: single.run(0, inputs, last),
    }
    taken_s: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(WARM_UP + ROUNDS):
        for way, execute in ways.items():
            start_s = perf_counter()
            execute()
            if number >= WARM_UP:
                taken_s[way].append(perf_counter() - start_s)
    ratios = {
        way: median(took_s / whole_s for took_s, whole_s in zip(taken_s[way], taken_s["one"], strict=True))
        for way in ("joined", "single")
    }
    return f"{ratios['joined']:.3f}", f"{ratios['single']:.3f}"


def _memory(model: ChainModel, files: tuple[Path, ...], folder: Path) -> tuple[str, str]:
    """Return the resident memory of the joined stage, relative to one session; also if its blocks ran before."""
    inputs = random_inputs(model.chain.cuts[0].tensors, np.random.default_rng(0))
    found = []
    for measure, arguments in (
        (_whole_bytes, (folder / "stage.onnx", inputs)),
        (_joined_bytes, (_cuts(model), files, inputs, False)),
        (_joined_bytes, (_cuts(model), files, inputs, True)),
    ):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            found.append(process.submit(measure, *arguments).result())
    whole, joined, after = found
    return f"{joined / whole:.2f}", f"{after / whole:.2f}"


def _whole_bytes(path: Path, inputs: Arrays) -> int:
    before = _resident_bytes()
    session = BlockSession(path)
    trim_heap()
    for _ in range(WARM_UP):
        session.run(inputs)
    return _resident_bytes() - before


def _joined_bytes(
    cuts: tuple[tuple[str, ...], ...],
    files: tuple[Path, ...],
    inputs: Arrays,
    singly: bool,  # noqa: FBT001
) -> int:
    before, last = _resident_bytes(), len(files) - 1
    blocks = _blocks(cuts, files)
    if singly:
        blocks.run(0, inputs, last)
    blocks.load(0, last)
    for _ in range(WARM_UP):
        blocks.run(0, inputs, last)
    return _resident_bytes() - before


def _resident_bytes() -> int:
    fields = Path("/proc/self/statm").read_text(encoding="ascii").split()
    return int(fields[1]) * 4096
