"""Errors of estimates that are fitted to measurements: each model predicted by a fit that saw neither it nor its like.

The models and those of the probe run in short rounds, interleaved, on one pinned processor; the clock is the thread's
processor time. Of each block the 10 % quantile counts, because other programs only add time. The difference between odd
and even rounds is the noise of the measurement itself.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from time import thread_time
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from planner.cli.output import print_table
from planner.model.load import ChainModel, load_chain
from planner.model.reference import REFERENCE, build_model
from planner.profiling.adapt import AdaptedClass, adapt
from planner.profiling.assemble import ChainCosts, assemble
from planner.profiling.device_probe import DeviceProbe, KernelTime, ProbedModel, load_models, run_round
from planner.profiling.intervals import half_width
from planner.profiling.sampling import Clock
from planner.profiling.types import ModelReference, Profile
from planner.runtime.inputs import random_inputs
from planner.runtime.providers import find_provider
from planner.runtime.session import BlockSession

ROUNDS: Final = 14
ROUND_S: Final = 0.05
"""Processor time of a model in a round; it runs at least three times."""
QUIET: Final = 0.1
CLASS: Final = "bench"
GOALS: Final = "goals: median 8 %, 90 % of them within 15 %"

PACKAGED: Final = {
    "magika": ("magika", "models/standard_v3_3/model.onnx", {"bytes": [1, 2048]}),
    "text detector": ("rapidocr_onnxruntime", "models/ch_PP-OCRv4_det_infer.onnx", {"x": [1, 3, 640, 640]}),
    "text recogniser": ("rapidocr_onnxruntime", "models/ch_PP-OCRv4_rec_infer.onnx", {"x": [1, 3, 48, 320]}),
    "text direction": ("rapidocr_onnxruntime", "models/ch_ppocr_mobile_v2.0_cls_infer.onnx", {"x": [1, 3, 48, 192]}),
} | {
    name: ("onnx", f"backend/test/data/light/light_{name}.onnx", {})
    for name in ("densenet121", "inception_v1", "inception_v2", "shufflenet", "squeezenet")
}
"""Models that installed packages contain; those of onnx are real architectures with constant weights."""


@dataclass(frozen=True)
class Subject:
    """A model that is measured.

    Parameters
    ----------
    sessions, tensors
        Sessions of its blocks, and the tensors at each cut.
    times_s
        Times of its blocks, for each run of each round.
    """

    model: ChainModel
    sessions: list[BlockSession]
    tensors: list[dict[str, NDArray[Any]]]
    times_s: list[list[list[float]]] = field(default_factory=list)

    def run_round(self) -> None:
        """Run the chain for a while; the first run only warms the caches."""
        runs: list[list[float]] = []
        begin_s = thread_time()
        while len(runs) < 4 or thread_time() - begin_s < ROUND_S:
            times_s = []
            for session, tensors in zip(self.sessions, self.tensors, strict=False):
                start_s = thread_time()
                session.run(tensors)
                times_s.append(thread_time() - start_s)
            runs.append(times_s)
        self.times_s.append(runs[1:])

    def block_s(self, first: int = 0, step: int = 1) -> NDArray[np.float64]:
        """Return the quiet time of each block over some of the rounds, in seconds."""
        return np.quantile([run for times in self.times_s[first::step] for run in times], QUIET, axis=0)

    def profile(self, name: str) -> Profile:
        """Return the times as a measured profile."""
        chain = self.model.chain
        return assemble(
            self.model,
            ChainCosts(self.block_s().tolist(), works=[self.model.work(index) for index in range(len(chain))]),
            device_class=CLASS,
            provenance="measured",
            environment={"provider": "cpu", "threads": 1},
            operating_points=(),
        ).model_copy(update={"model": ModelReference(name=name, sha256=chain.model_sha256)})


def run() -> None:
    """Print the errors next to their goals."""
    pinned = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(pinned)})
    try:
        subjects, probed = _measure()
    finally:
        os.sched_setaffinity(0, pinned)
    probe = _as_probe(probed)
    profiles = {name: subject.profile(name) for name, subject in subjects.items()}
    noise = {name: np.log(item.block_s(0, 2).sum() / item.block_s(1, 2).sum()) for name, item in subjects.items()}
    block_noise = np.concatenate([np.log(item.block_s(0, 2) / item.block_s(1, 2)) for item in subjects.values()])
    both = adapt(CLASS, [probe, *profiles.values()])
    models_only = adapt(CLASS, list(profiles.values()))
    rows = [
        ("noise: odd against even rounds", *_errors(list(noise.values()), block_noise), "", ""),
        _row("other models", models_only),
        _row("other models and the probe", both),
        _from_probe(probe, profiles),
    ]
    print_table(
        f"Error of the time of {len(profiles)} models, each left out of the fit ({GOALS})",
        ("fitted to", ">median", ">90 %", ">within 15 %", ">of blocks", ">90 %", ">models in interval", ">blocks"),
        rows,
    )
    print_table(
        "By model, fitted to the others and the probe",
        ("model", ">ms", ">error", ">noise"),
        [
            (
                item.name,
                f"{1e3 * subjects[item.name].block_s().sum():.2f}",
                f"{item.error:+.1%}",
                f"{noise[item.name]:+.1%}",
            )
            for item in both.left_out
        ],
    )


def _measure() -> tuple[dict[str, Subject], list[ProbedModel]]:
    subjects = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, load in _models(Path(folder)):
            subjects[name] = _subject(load())
    probed, _ = load_models(find_provider("cpu"), 1, Clock(math.inf, None))
    rng = np.random.default_rng(1)
    for _ in range(ROUNDS):
        for name in rng.permutation(list(subjects)):
            subjects[name].run_round()
        run_round(probed)
    return subjects, probed


def _models(folder: Path) -> Iterator[tuple[str, Callable[[], ChainModel]]]:
    for name in REFERENCE:
        yield name, partial(_built, name, folder / "model.onnx")
    trained = Path(__file__).parents[1] / "models/resnet56-exits-fashion.onnx"
    yield trained.stem, partial(load_chain, trained)
    for name, (package, file, shape) in PACKAGED.items():
        spec = find_spec(package)
        if spec is not None and spec.origin is not None:
            path = Path(spec.origin).parent / file
            yield name, partial(load_chain, path, shape=shape)


def _built(name: str, path: Path) -> ChainModel:
    return load_chain(build_model(name, path), name=name)


def _subject(model: ChainModel) -> Subject:
    sessions = [BlockSession(model.block_model(index)) for index in range(len(model.chain))]
    tensors = [random_inputs(model.chain.cuts[0].tensors, np.random.default_rng(0))]
    for session in sessions:
        tensors.append(tensors[-1] | session.run(tensors[-1]))
    return Subject(model, sessions, tensors)


def _as_probe(models: list[ProbedModel]) -> DeviceProbe:
    kernels = [
        KernelTime(name=item.name, time_s=float(np.quantile(item.times_s, QUIET)), std_s=0.0, work=dict(item.work))
        for item in models
    ]
    return DeviceProbe(device_class=CLASS, environment={"provider": "cpu", "threads": 1}, kernels=tuple(kernels))


def _errors(models: list[float], blocks: NDArray[np.float64]) -> tuple[str, ...]:
    """Return figures of differences of logarithms."""
    sizes, of_blocks = np.abs(np.expm1(models)), np.abs(np.expm1(blocks))
    return (
        f"{np.median(sizes):.1%}",
        f"{np.quantile(sizes, 0.9):.1%}",
        f"{(sizes <= 0.15).mean():.0%}",
        f"{np.median(of_blocks):.1%}",
        f"{np.quantile(of_blocks, 0.9):.1%}",
    )


def _row(name: str, adapted: AdaptedClass) -> tuple[str, ...]:
    """Return figures of each model, and whether it lies in the interval that follows from the errors of the others."""
    models = [float(np.log1p(item.error)) for item in adapted.left_out]
    blocks = [item.block_errors for item in adapted.left_out]
    inside, blocks_inside = [], []
    for index, error in enumerate(models):
        width = half_width(models[:index] + models[index + 1 :])
        others = [value for number, values in enumerate(blocks) if number != index for value in values]
        block_width = max(half_width(others), width)
        inside.append(abs(error) <= width)
        blocks_inside += [abs(value) <= block_width for value in blocks[index]]
    return (
        name,
        *_errors(models, np.concatenate([np.array(values) for values in blocks])),
        f"{np.mean(inside):.0%}",
        f"{np.mean(blocks_inside):.0%}",
    )


def _from_probe(probe: DeviceProbe, profiles: Mapping[str, Profile]) -> tuple[str, ...]:
    """Predict all models from the probe alone."""
    adapted = adapt(CLASS, [probe])
    models, blocks = [], []
    for profile in profiles.values():
        found_s = [adapted.times.time_s(block.work) for block in profile.blocks]
        true_s = [block.mean_s for block in profile.blocks]
        models.append(float(np.log(sum(found_s) / sum(true_s))))
        blocks += np.log(np.array(found_s) / true_s).tolist()
    return (
        "the probe alone",
        *_errors(models, np.array(blocks)),
        f"{np.mean(np.abs(models) <= adapted.width):.0%}",
        f"{np.mean(np.abs(blocks) <= adapted.block_width):.0%}",
    )


if __name__ == "__main__":
    run()
