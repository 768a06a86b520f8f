"""Throughput of a pipeline of agents, relative to its slowest stage."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Any, Final

import numpy as np

from planner.cli.output import print_table
from planner.execution.coordinator.deployment import deploy
from planner.execution.coordinator.run_result import RunResult
from planner.execution.launch.setting import on_this_host
from planner.model.load import ChainModel, load_chain
from planner.model.reference import build_model
from planner.plan.types import PlanSpec, Route, SourcePlan, Stage
from planner.profiling.measure import measure
from planner.profiling.types import Profile
from planner.runtime.inputs import random_inputs
from planner.runtime.runner import ChainRunner
from planner.scenario.instance import Hop, Instance, NetworkPath
from planner.scenario.types import ModelSpec, NetworkSpec, ScenarioSpec, SourceSpec, WorkerSpec
from planner.trace.records import SampleRecord
from planner.validation.calibration_run import DRIFT

SAMPLES: Final = 60
WARM: Final = 10
PROFILING_S: Final = 20.0
TURNS: Final = 5


@lru_cache
def profiled(name: str) -> tuple[ChainModel, Profile]:
    """Return a reference model and its profile on this machine."""
    model = load_chain(build_model(name, _folder() / f"{name}.onnx"), name=name)
    return model, measure(model, device_class="here", budget_s=PROFILING_S)


@lru_cache
def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="planner-bench-"))


def line(
    profile: Profile,
    speeds: Mapping[str, float],
    sources: Mapping[str, Mapping[str, Any]],
    *,
    bytes_per_s: float = 1e9,
    latency_s: float = 0.0,
) -> Instance:
    """Return an instance of workers with these speeds on one shared medium, with all sources at the first worker."""
    name = profile.model.name
    network = NetworkSpec(kind="shared", members=tuple(speeds), bandwidth_bytes_per_s=bytes_per_s, latency_s=latency_s)
    home = next(iter(speeds))
    scenario = ScenarioSpec(
        models={name: ModelSpec(profile=name)},
        workers={
            worker: WorkerSpec(device_class="here", memory_bytes=float(2**32), speed=speed)
            for worker, speed in speeds.items()
        },
        networks={"lan": network},
        sources={source: SourceSpec(worker=home, models=(name,), **keys) for source, keys in sources.items()},
    )
    paths = {
        a: {
            b: NetworkPath(
                hops=(Hop(sender=a, receiver=b, resource="lan", bytes_per_s=bytes_per_s, latency_s=latency_s),)
            )
            for b in speeds
            if b != a
        }
        for a in speeds
    }
    return Instance(scenario=scenario, profiles={name: {"here": profile}}, paths=paths)


def plan_of(instance: Instance, borders: Sequence[int]) -> PlanSpec:
    """Return the plan in which every sample visits all workers, cut at these borders."""
    (model,) = instance.profiles
    cuts = [0, *borders, instance.length(model)]
    stages = tuple(
        Stage(worker=worker, first_block=first, last_block=end - 1)
        for worker, first, end in zip(instance.workers, cuts, cuts[1:], strict=False)
    )
    source_plan = SourcePlan(
        accuracy=1.0, delay_s=1.0, surrogate_delay_s=1.0, routes=(Route(share=1.0, model=model, stages=stages),)
    )
    return PlanSpec(
        status="feasible", method="benchmark", goal="throughput", objective=1.0, bound=0.0, gap=1.0, solve_s=0.0,
        provenance="measured", sources=dict.fromkeys(instance.sources, source_plan), workers={}, networks={},
    )  # fmt: skip


def balanced(profile: Profile, stages: int) -> list[int]:
    """Return the borders at which stages take about equal time."""
    after = np.cumsum([block.mean_s for block in profile.blocks])
    return [int(np.argmin(np.abs(after - after[-1] * part / stages))) + 1 for part in range(1, stages)]


def back_to_back(model: ChainModel, first: int, end: int) -> float:
    """Return the median time in seconds of blocks ``first`` to ``end`` − 1, run in sequence by onnxruntime."""
    names = [[tensor.name for tensor in cut.tensors] for cut in model.chain.cuts]
    runner = ChainRunner(names)
    for block in range(end):
        runner.load(block, model.block_model(block))
    inputs = random_inputs(model.chain.cuts[0].tensors, np.random.default_rng(0))
    inputs = runner.run_segment(0, first - 1, inputs)
    times = []
    for _ in range(SAMPLES):
        start_s = monotonic()
        runner.run_segment(first, end - 1, inputs)
        times.append(monotonic() - start_s)
    return median(times[WARM:])


def rate_per_s(measurement: RunResult) -> float:
    """Return the completions per second once the pipeline was full."""
    ended = sorted(r.finished_s for r in measurement.records if isinstance(r, SampleRecord) and r.status == "completed")
    return (len(ended) - 1 - WARM) / (ended[-1] - ended[WARM])


def two_stages() -> None:
    """Compare a pipeline of two agents at their own speed with onnxruntime alone, in turns."""
    model, profile = profiled("resnet50")
    (border,) = balanced(profile, 2)
    instance = line(profile, {"a": 1.0, "b": 1.0}, {"s": {"arrivals": "batch", "samples": SAMPLES}})
    plan = plan_of(instance, [border])
    stages = {"a": (0, border), "b": (border, len(model.chain))}

    def alone() -> list[float]:
        return [back_to_back(model, *blocks) for blocks in stages.values()]

    rows, parts, before_s = [], [], alone()
    for _ in range(TURNS):
        measured = run_on_this_host(instance, plan, model, paced=False)
        after_s = alone()
        sample_s, drift = 1 / rate_per_s(measured), max(after_s) / max(before_s) - 1
        part = (max(before_s) + max(after_s)) / 2 / sample_s
        steady = abs(drift) <= DRIFT
        if steady:
            parts.append(part)
        rows.append(
            (
                *(f"{old * 1e3:.1f} .. {new * 1e3:.1f} ms" for old, new in zip(before_s, after_s, strict=True)),
                f"{sample_s * 1e3:.1f} ms",
                f"{part:.1%}" if steady else f"machine drifted by {drift:+.0%}",
            )
        )
        before_s = after_s
    print_table(
        "Two agents in sequence, ResNet-50, one thread each (goal: 95 % of the slower stage's rate)",
        (*(f">{worker}: back to back" for worker in stages), ">time per sample", ">of the rate"),
        rows,
    )
    if parts:
        print(f"median of {len(parts)} turns: {median(parts):.1%}\n")


def four_stages() -> None:
    """Compare a pipeline of four agents at the scenario's speeds with its bottleneck."""
    model, profile = profiled("mobilenetv2")
    speeds = dict.fromkeys("abcd", 0.1)
    instance = line(profile, speeds, {"s": {"arrivals": "batch", "samples": SAMPLES}}, bytes_per_s=50e6)
    borders = balanced(profile, 4)
    measured = run_on_this_host(instance, plan_of(instance, borders), model, paced=True)
    block_s, overhead_s = instance.block_s(profile.model.name, "a"), instance.stage_overhead_s(profile.model.name, "a")
    stages_s = [overhead_s + float(part.sum()) for part in np.split(block_s, borders)]
    rate = rate_per_s(measured)
    print(
        "Four agents in sequence, MobileNetV2, paced: stages of "
        + ", ".join(f"{stage_s * 1e3:.1f}" for stage_s in stages_s)
        + " ms"
    )
    print(f"{1e3 / rate:.1f} ms per sample: {max(stages_s) * rate:.1%} of the bottleneck's rate (goal: 98 %)\n")


def run_on_this_host(instance: Instance, plan: PlanSpec, model: ChainModel, *, paced: bool) -> RunResult:
    """Run with one agent process per worker on this host."""
    setting = on_this_host(instance, paced=paced)
    (name,) = instance.profiles
    deployment = deploy(instance, plan, {name: model}, policy="planned", paced=paced, emulation=setting.emulation)
    with setting.agents as coordinator:
        return coordinator.run(deployment, ready_timeout_s=120.0)
