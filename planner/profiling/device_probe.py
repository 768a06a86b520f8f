"""A probe of a device: times of small generated models, to which a device class can be fitted."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from time import perf_counter, thread_time
from typing import Any, Final, Literal

import numpy as np
from pydantic import Field, ValidationError

from planner.base import FrozenModel
from planner.errors import Fault, ProfileError, RuntimeSessionError
from planner.files import StrPath, read_bounded, write_text_atomic
from planner.formats.json import parse_json
from planner.model.work import KernelWork, Work
from planner.profiling.environment import device_environment, thermal_environment, thermals, throttle_warnings
from planner.profiling.sampling import Clock, Progress, cut_names
from planner.profiling.types import BlockSeconds, ExtraSeconds
from planner.runtime.inputs import random_inputs
from planner.runtime.providers import Provider, find_provider, onnxruntime_version
from planner.runtime.runner import ChainRunner, Tensor
from planner.runtime.session import SESSION_CONFIG
from planner.schemas import other_kind, schema_fault
from planner.tables import Printable, Table

SCHEMA: Final = "planner/device-probe/v1"
BUDGET_S: Final = 60.0
MIN_ROUNDS: Final = 3
REPEATS: Final = 2
"""Timed runs in a row; the run before them brings the caches into the state of repeated work."""


class KernelTime(FrozenModel):
    """Measured time of a generated model."""

    name: str
    time_s: BlockSeconds
    """Time of one run, in seconds: the median of all runs."""
    std_s: ExtraSeconds
    """Standard deviation of that time over the runs, computed from the quartiles, in seconds."""
    work: dict[str, KernelWork] = Field(min_length=1)


class DeviceProbe(Printable, FrozenModel):
    """Times of small models on a device class (``planner/device-probe/v1``)."""

    schema_: Literal["planner/device-probe/v1"] = Field(default=SCHEMA, alias="schema")
    device_class: str
    environment: dict[str, Any]
    """As in a measured profile."""
    kernels: tuple[KernelTime, ...] = Field(min_length=1)

    def contents(self) -> Iterator[Table | str]:
        """Return the times with the achieved rates."""
        yield Table(
            f"Probe of {self.device_class}",
            ("model", ">ms", ">± ms", ">GFLOP/s", ">GB/s"),
            [
                (
                    kernel.name,
                    f"{1e3 * kernel.time_s:.3f}",
                    f"{1e3 * kernel.std_s:.3f}",
                    f"{sum(work.flop for work in kernel.work.values()) / kernel.time_s / 1e9:.1f}",
                    f"{_moved_bytes(kernel.work) / kernel.time_s / 1e9:.1f}",
                )
                for kernel in self.kernels
            ],
        )


def _moved_bytes(work: Work) -> float:
    return sum(kind.activation_bytes + kind.weight_bytes for name, kind in work.items() if name != "border")


@dataclass(frozen=True)
class ProbedModel:
    """A generated model that is loaded, with its runs so far."""

    name: str
    work: Work
    runner: ChainRunner
    tensors: dict[str, Tensor]
    times_s: list[float] = field(default_factory=list)


def probe_device(
    device_class: str,
    *,
    provider: str | Provider = "cpu",
    threads: int = 1,
    budget_s: float = BUDGET_S,
    power_mode: str | None = None,
    progress: Progress | None = None,
) -> DeviceProbe:
    """Time convolutions, products, element-wise operators, data movement and launches on this device.

    Parameters
    ----------
    device_class
        Name for this combination of device, provider and number of threads.
    provider, threads, power_mode
        As for :func:`planner.profiling.measure.measure`.
    budget_s
        Time limit in seconds; the models are built and three rounds run even if that takes longer.
    progress
        Callback that receives the progress.

    Raises
    ------
    ProfileError
        If the budget is not positive.
    RuntimeSessionError
        If onnxruntime is missing or lacks the provider.
    """
    if not budget_s > 0:
        raise ProfileError(
            "no time for a probe", where="--budget", value=budget_s, expected="a positive time, as in 60s"
        )
    provider = find_provider(provider) if isinstance(provider, str) else provider
    clock = Clock(budget_s, progress)
    before = thermals()
    models, warnings = load_models(provider, threads, clock)
    rounds = run_rounds(models, clock)
    after = thermals()
    clock.finish()
    environment = device_environment() | {
        "provider": provider.name,
        "precision": provider.precision,
        "threads": threads,
        "onnxruntime": onnxruntime_version(),
        "session_config": dict(SESSION_CONFIG),
        "measured_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "rounds": rounds,
        **thermal_environment(before, after),
        "warnings": [*warnings, *throttle_warnings(before, after)],
    }
    if power_mode is not None:
        environment["power_mode"] = power_mode
    return DeviceProbe(
        device_class=device_class,
        environment=environment,
        kernels=tuple(
            KernelTime(name=model.name, time_s=time_s, std_s=std_s, work=dict(model.work))
            for model in models
            for time_s, std_s in [_summary(model.times_s)]
        ),
    )


def load_models(provider: Provider, threads: int, clock: Clock) -> tuple[list[ProbedModel], list[str]]:
    """Build and load all models, and run each once; return them with a warning for those that a provider rejects.

    Raises
    ------
    RuntimeSessionError
        If even the first model is rejected.
    """
    from planner.model.load import load_chain
    from planner.profiling.probe_kernels import probe_models

    models: list[ProbedModel] = []
    rejected = []
    with tempfile.TemporaryDirectory() as folder:
        for name, build in probe_models():
            loaded = load_chain(build(Path(folder) / "model.onnx"), max_blocks=1)
            runner = ChainRunner(cut_names(loaded.chain), name=name, provider=provider, threads=threads)
            inputs = random_inputs(loaded.chain.cuts[0].tensors, np.random.default_rng(0))
            try:
                runner.load(0, loaded.block_model(0))
                runner.run_block(0, inputs)
            except RuntimeSessionError:
                if not models:
                    raise
                rejected.append(name)
                continue
            models.append(ProbedModel(name, loaded.work(0), runner, runner.send(0, inputs)))
            clock.report()
    return models, [f"the provider rejects these models: {', '.join(rejected)}"] if rejected else []


def run_rounds(models: list[ProbedModel], clock: Clock) -> int:
    """Run all models in turn, so that a slow moment affects all alike, until the budget is used up.

    Returns the number of rounds.
    """
    rounds = 0
    while rounds < MIN_ROUNDS or not clock.used(1.0):
        run_round(models)
        rounds += 1
        clock.report()
    return rounds


def run_round(models: list[ProbedModel]) -> None:
    """Run all models in turn."""
    runner = models[0].runner
    now_s = thread_time if runner.provider.on_calling_thread and runner.threads == 1 else perf_counter
    for model in models:
        model.runner.step(0, model.tensors)
        for _ in range(REPEATS):
            start_s = now_s()
            model.runner.step(0, model.tensors)
            model.times_s.append(now_s() - start_s)


def _summary(times_s: list[float]) -> tuple[float, float]:
    """Return the median and the standard deviation, computed from the quartiles, in seconds."""
    low_s, middle_s, high_s = np.percentile(times_s, [25, 50, 75])
    return max(float(middle_s), 1e-9), float(high_s - low_s) / 1.349


def save_probe(probe: DeviceProbe, path: StrPath) -> None:
    """Write a device probe atomically."""
    document = probe.model_dump(mode="json", by_alias=True)
    write_text_atomic(Path(path), json.dumps(document, indent=1, allow_nan=False) + "\n")


def load_probe(path: StrPath) -> DeviceProbe:
    """Return the device probe in a file.

    Raises
    ------
    ProfileError
        If the file is missing, is not JSON, or contains invalid values: with one fault per value.
    """
    content = b""
    try:
        content = read_bounded(path)
        document = parse_json(content)
    except OSError as error:
        raise ProfileError(f"device probe cannot be read: {error.strerror}", where=str(path)) from error
    except ValueError as error:
        if fault := other_kind(content, SCHEMA, f"{path}: schema"):
            raise ProfileError([fault]) from None
        raise ProfileError(f"device probe is not JSON: {error}", where=str(path)) from error
    stated = document.get("schema") if isinstance(document, dict) else None
    if stated != SCHEMA:
        raise ProfileError([schema_fault(stated, SCHEMA, f"{path}: schema")])
    try:
        return DeviceProbe.model_validate(document)
    except ValidationError as error:
        raise ProfileError(
            Fault(
                fault["msg"], f"{path}: {'.'.join(map(str, fault['loc']))}", expected="a file by `planner probe-device`"
            )
            for fault in error.errors()
        ) from error
