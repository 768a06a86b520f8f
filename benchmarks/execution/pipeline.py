"""Whether a pipeline of agents is as fast as its slowest stage, and a run as its prediction."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Any, Final, NamedTuple

import numpy as np

from planner.cli.output import print_table
from planner.execute.deployment import deploy
from planner.execute.measurement import Measurement
from planner.model.load import ChainModel, load_chain
from planner.model.reference import build_model
from planner.plan.types import Plan, Route, SourcePlan, Stage
from planner.profile.measure import measure
from planner.profile.types import Profile
from planner.runtime.inputs import random_inputs
from planner.runtime.runner import ChainRunner
from planner.scenario.instance import Hop, Instance
from planner.scenario.instance import Path as Way
from planner.scenario.types import ModelSpec, NetworkSpec, Scenario, SourceSpec, WorkerSpec
from planner.trace.metrics import SourceMetrics
from planner.trace.records import SampleRecord, TransferRecord
from planner.validate.run import validate
from planner.validate.setting import on_this_host

SAMPLES: Final = 60
WARM: Final = 10
PROFILING_S: Final = 20.0
RUN_S: Final = 15.0
"""About how long each scenario is run."""


@lru_cache
def profiled(name: str) -> tuple[ChainModel, Profile]:
    """Give a reference model with its profile of this machine."""
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
    """Give workers of these speeds on one medium, the sources at the first."""
    name = profile.model.name
    network = NetworkSpec(kind="shared", members=tuple(speeds), bandwidth_bytes_per_s=bytes_per_s, latency_s=latency_s)
    home = next(iter(speeds))
    scenario = Scenario(
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
            b: Way(hops=(Hop(sender=a, receiver=b, resource="lan", bytes_per_s=bytes_per_s, latency_s=latency_s),))
            for b in speeds
            if b != a
        }
        for a in speeds
    }
    return Instance(scenario=scenario, profiles={name: {"here": profile}}, paths=paths)


def plan_of(instance: Instance, borders: Sequence[int]) -> Plan:
    """Give the plan that sends every sample through all workers, cut at these borders."""
    (model,) = instance.profiles
    cuts = [0, *borders, instance.length(model)]
    stages = tuple(
        Stage(worker=worker, first_block=first, last_block=end - 1)
        for worker, first, end in zip(instance.workers, cuts, cuts[1:], strict=False)
    )
    own = SourcePlan(
        accuracy=1.0, delay_s=1.0, surrogate_delay_s=1.0, routes=(Route(share=1.0, model=model, stages=stages),)
    )
    return Plan(
        status="feasible", method="benchmark", goal="throughput", objective=1.0, bound=0.0, gap=1.0, solve_s=0.0,
        provenance="measured", sources=dict.fromkeys(instance.sources, own), workers={}, networks={},
    )  # fmt: skip


def balanced(profile: Profile, stages: int) -> list[int]:
    """Give the borders at which stages take about the same time."""
    after = np.cumsum([block.mean_s for block in profile.blocks])
    return [int(np.argmin(np.abs(after - after[-1] * part / stages))) + 1 for part in range(1, stages)]


def back_to_back(model: ChainModel, first: int, end: int) -> float:
    """Give the median time in seconds of blocks ``first`` to ``end`` − 1, run one after the other by onnxruntime."""
    names = [[tensor.name for tensor in cut.tensors] for cut in model.chain.cuts]
    runner = ChainRunner(names)
    for block in range(first, end):
        runner.load(block, model.block_model(block))
    inputs = random_inputs(model.chain.cuts[first].tensors, np.random.default_rng(0))
    times = []
    for _ in range(SAMPLES):
        start_s = monotonic()
        runner.run_segment(first, end - 1, inputs)
        times.append(monotonic() - start_s)
    return median(times[WARM:])


def rate_per_s(measurement: Measurement) -> float:
    """Give how fast samples ended, once the pipeline was full."""
    ended = sorted(r.finished_s for r in measurement.records if isinstance(r, SampleRecord) and r.status == "completed")
    return (len(ended) - 1 - WARM) / (ended[-1] - ended[WARM])


def two_stages() -> None:
    """Hold a pipeline of two agents at their own speed against onnxruntime alone."""
    model, profile = profiled("resnet50")
    (border,) = balanced(profile, 2)
    instance = line(profile, {"a": 1.0, "b": 1.0}, {"s": {"arrivals": "batch", "samples": SAMPLES}})
    stages = {"a": (0, border), "b": (border, len(model.chain))}
    before = {worker: back_to_back(model, *blocks) for worker, blocks in stages.items()}
    measured = run_on_this_host(instance, plan_of(instance, [border]), model, paced=False)
    after = {worker: back_to_back(model, *blocks) for worker, blocks in stages.items()}
    alone_s = max((before[worker] + after[worker]) / 2 for worker in stages)
    rate = rate_per_s(measured)
    print_table(
        "Two agents in a row, ResNet-50, one thread each",
        ("", ">before", ">after", ">without a processor"),
        (
            (
                f"{worker}: its blocks back to back",
                f"{before[worker] * 1e3:.1f} ms",
                f"{after[worker] * 1e3:.1f} ms",
                f"{measured.waited_s[worker]:.2f} s",
            )
            for worker in stages
        ),
    )
    print(f"a sample each {1e3 / rate:.1f} ms: {alone_s * rate:.1%} of the slower stage's rate (goal: 95 %)\n")


def four_stages() -> None:
    """Hold a pipeline of four agents, at the scenario's speeds, against its bottleneck."""
    model, profile = profiled("mobilenetv2")
    speeds = dict.fromkeys("abcd", 0.1)
    instance = line(profile, speeds, {"s": {"arrivals": "batch", "samples": SAMPLES}}, bytes_per_s=50e6)
    borders = balanced(profile, 4)
    measured = run_on_this_host(instance, plan_of(instance, borders), model, paced=True)
    block_s, overhead_s = instance.block_s(profile.model.name, "a"), instance.stage_overhead_s(profile.model.name, "a")
    stages_s = [overhead_s + float(part.sum()) for part in np.split(block_s, borders)]
    rate = rate_per_s(measured)
    print(
        "Four agents in a row, MobileNetV2, paced: stages of "
        + ", ".join(f"{own * 1e3:.1f}" for own in stages_s)
        + " ms"
    )
    print(f"a sample each {1e3 / rate:.1f} ms: {max(stages_s) * rate:.1%} of the bottleneck's rate (goal: 98 %)\n")


@dataclass(frozen=True, eq=False)
class _Case:
    """All samples go through all workers, of which the busiest is so loaded; each source has a priority of its own."""

    model: str
    speeds: Mapping[str, float]
    sources: int
    load: float
    paced: bool = True

    def __str__(self) -> str:
        how = "paced" if self.paced else "own speed"
        return f"{self.model}, {len(self.speeds)} workers, {self.sources} sources, {how}"


_OWN: Final = {"a": 1.0, "b": 1.0}
CASES: Final = (
    _Case("mobilenetv2", _OWN, 1, 0.3, paced=False),
    _Case("mobilenetv2", _OWN, 2, 0.6, paced=False),
    _Case("resnet50", _OWN, 2, 0.4, paced=False),
    _Case("resnet50", _OWN, 1, 0.6, paced=False),
    _Case("mobilenetv2", {"a": 0.06, "b": 0.1}, 1, 0.2),
    _Case("mobilenetv2", {"a": 0.06, "b": 0.1, "c": 0.08}, 2, 0.3),
    _Case("mobilenetv2", {"a": 0.06, "b": 0.1, "c": 0.08, "d": 0.12}, 1, 0.4),
    _Case("mobilenetv2", {"a": 0.1, "b": 0.06}, 2, 0.5),
    _Case("mobilenetv2", {"a": 0.1, "b": 0.06, "c": 0.1}, 1, 0.6),
    _Case("mobilenetv2", {"a": 0.08, "b": 0.08, "c": 0.08, "d": 0.08}, 2, 0.7),
)


def prediction() -> None:
    """Hold the mean delays of ten scenarios, four of them at this machine's own speed, against their simulation."""
    loopback = {name: measured_loopback(*profiled(name)) for name in ("mobilenetv2", "resnet50")}
    found = {case: _compare(case, (10e6, 0.002) if case.paced else loopback[case.model]) for case in CASES}
    print_table(
        "Mean delay of ten scenarios, predicted and measured (goal: median error 5 %, worst 15 %)",
        ("scenario", ">load", ">predicted", ">measured", ">error", "host"),
        (
            (
                str(case),
                f"{case.load:.0%}",
                f"{one.predicted_s * 1e3:.1f} ms",
                f"{one.measured_s * 1e3:.1f} ms",
                f"{one.measured_s / one.predicted_s - 1:+.1%}",
                "was the limit" if one.host_limited else "",
            )
            for case, one in found.items()
        ),
    )
    for title, cases in (
        ("own speed", [case for case in CASES if not case.paced]),
        ("paced", [case for case in CASES if case.paced]),
        ("all", CASES),
    ):
        errors = [abs(found[case].measured_s / found[case].predicted_s - 1) for case in cases]
        print(f"{title}: median error {median(errors):.1%}, worst {max(errors):.1%}")
    print()


class _Found(NamedTuple):
    """Mean delays over all samples of a scenario."""

    predicted_s: float
    measured_s: float
    host_limited: bool


def _compare(case: _Case, network: tuple[float, float]) -> _Found:
    model, profile = profiled(case.model)
    borders = balanced(profile, len(case.speeds))
    parts = np.split(np.array([block.mean_s for block in profile.blocks]), borders)
    slowest_s = max(float(part.sum()) / speed for part, speed in zip(parts, case.speeds.values(), strict=True))
    rate = case.load / slowest_s / case.sources
    keys = {"rate_per_s": rate, "samples": int(RUN_S * rate) + 20}
    sources = {f"s{index}": keys | {"priority": 4.0**index} for index in range(case.sources)}
    instance = line(profile, case.speeds, sources, bytes_per_s=network[0], latency_s=network[1])
    setting = on_this_host(instance, paced=case.paced)
    deployment = deploy(
        instance,
        plan_of(instance, borders),
        {case.model: model},
        policy="planned",
        paced=case.paced,
        emulation=setting.emulation,
    )
    result = validate(deployment, {case.model: model}, setting.agents, say=lambda _: lambda _done, _all: None)
    if not result.sound:
        raise AssertionError("a sample was lost, or an output differs")
    return _Found(
        _mean_s(own.predicted for own in result.sources.values()),
        _mean_s(own.measured for own in result.sources.values()),
        result.host_limited,
    )


def _mean_s(metrics: Iterable[SourceMetrics]) -> float:
    found = list(metrics)
    return sum((own.mean_delay_s or 0.0) * own.completed for own in found) / sum(own.completed for own in found)


def measured_loopback(model: ChainModel, profile: Profile) -> tuple[float, float]:
    """Give bandwidth and latency of the loopback interface between two agents, as an unloaded run meets them."""
    instance = line(profile, {"a": 1.0, "b": 1.0}, {"s": {"arrivals": "constant", "rate_per_s": 5.0, "samples": 40}})
    measured = run_on_this_host(instance, plan_of(instance, balanced(profile, 2)), model, paced=False)
    took: dict[int, list[float]] = {}
    for record in measured.records:
        if isinstance(record, TransferRecord):
            took.setdefault(record.size_bytes, []).append(record.end_s - record.start_s)
    (small, small_s), (large, large_s) = sorted((size, median(found)) for size, found in took.items())
    bytes_per_s = (large - small) / max(large_s - small_s, 1e-6)
    return bytes_per_s, max(small_s - small / bytes_per_s, 0.0)


def run_on_this_host(instance: Instance, plan: Plan, model: ChainModel, *, paced: bool) -> Measurement:
    """Run with one agent process a worker."""
    setting = on_this_host(instance, paced=paced)
    (name,) = instance.profiles
    deployment = deploy(instance, plan, {name: model}, policy="planned", paced=paced, emulation=setting.emulation)
    with setting.agents as coordinator:
        return coordinator.run(deployment, ready_timeout_s=120.0)
