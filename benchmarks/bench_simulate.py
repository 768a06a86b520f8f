"""Simulator speed: events per second under each policy, and the time of the same model with metrics in SimPy.

Both are also measured with the optional compiled build, which is made for that if there is a C compiler.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Sequence
from functools import partial
from pathlib import Path
from time import process_time
from typing import Any, Final

import numpy as np
import simpy

from hatch_build import compile_into
from planner.cli.output import print_table
from planner.plan.types import PlanSpec, Route, SourcePlan, Stage
from planner.policy.registry import POLICIES
from planner.policy.types import SampleKey
from planner.scenario.arrivals import instance_arrivals
from planner.scenario.instance import Instance
from planner.scenario.types import EventSpec, NetworkSpec
from planner.simulation.device import Device
from planner.simulation.replications import Replication, RunSpec, simulate_case
from planner.solvers.replan.replanner import replanner
from planner.trace.metrics import Accumulator, RunMetrics
from planner.trace.records import BlockRecord, SampleRecord, TransferRecord
from planner.worker.events import RunBlock
from tests.instances import make_instance, make_profile

ROOT: Final = Path(__file__).parents[1]
ROUNDS: Final = 3
TURNS: Final = 3
"""Number of processes of each build, in turns."""
SAMPLES: Final = 1000
"""Samples per source."""
WORK_S: Final = 0.024
CUT_BYTES: Final = 20_000
NETWORK: Final = {"bandwidth_bytes_per_s": 20e6, "latency_s": 0.001}
RATES_PER_S: Final = {"urgent": 10.0, "usual": 15.0, "idle": 20.0}
PRIORITIES: Final = {"urgent": 8.0, "usual": 2.0, "idle": 1.0}


def run() -> None:
    """Print the figures next to their goals."""
    with tempfile.TemporaryDirectory() as folder:
        builds = {"interpreted": ROOT}
        try:
            compile_into(ROOT, Path(folder))
            builds["compiled"] = Path(folder)
        except SystemExit as error:
            print(f"without the compiled build: {error}")
        turns = [{name: _in_process(package) for name, package in builds.items()} for _ in range(TURNS)]
    first = turns[0]
    seconds = {
        build: {name: float(np.median([turn[build][name]["s"] for turn in turns])) for name in found}
        for build, found in first.items()
    }
    print_table(
        "Events per second on one core, five workers, three sources, churn (goal: 50,000)",
        ("policy", ">events", *(f">{build}" for build in builds)),
        (
            (
                policy,
                f"{first['interpreted'][policy]['events']:,}",
                *(f"{found[policy]['events'] / seconds[build][policy]:,.0f}" for build, found in first.items()),
            )
            for policy in POLICIES
        ),
    )
    simpy_s = seconds["interpreted"]["simpy"]
    print_table(
        "Two workers in tandem with a network between them, three priorities, gamma times (goal: ratio at most 0.33)",
        ("", ">mean delay", ">seconds", ">ratio to SimPy"),
        (
            (label, f"{mean_s * 1e3:.9f} ms", f"{took_s:.3f}", f"{took_s / simpy_s:.2f}")
            for label, mean_s, took_s in (
                *((build, found["tandem"]["mean_s"], seconds[build]["tandem"]) for build, found in first.items()),
                ("simpy", first["interpreted"]["simpy"]["mean_s"], simpy_s),
            )
        ),
    )


def _in_process(package: Path) -> dict[str, dict[str, float]]:
    """Return what :func:`measure` finds in a process of its own, with the package of a folder."""
    path = os.pathsep.join(map(str, (package, ROOT)))
    command = [sys.executable, "-c", "from benchmarks.bench_simulate import measure; measure()"]
    done = subprocess.run(
        command, cwd=package, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    found: dict[str, dict[str, float]] = json.loads(done.stdout)
    return found


def measure() -> None:
    """Print, as JSON, the processor time and results of each run with the package that this process has."""
    crowd = _instance({"box": 1.0, "a": 1.0, "b": 1.0, "c": 2.0, "d": 2.0}, homes=("box", "a", "b"), blocks=6)
    churn = (
        EventSpec.model_validate({"at_s": 20.0, "action": "leave", "worker": "d"}),
        EventSpec.model_validate({"at_s": 40.0, "action": "join", "worker": "d"}),
        EventSpec.model_validate({"at_s": 60.0, "action": "slow", "worker": "c", "factor": 2.0}),
    )
    crowd = crowd.model_copy(update={"scenario": crowd.scenario.model_copy(update={"events": churn})})
    plan = _plan(crowd, "d", helper_first=3)
    pair = tandem()
    runs: dict[str, Callable[[], Replication | RunMetrics]] = {
        policy: partial(simulate_case, crowd, plan, RunSpec(policy, 0), replanner=replanner) for policy in POLICIES
    }
    runs["tandem"] = partial(simulate_case, pair, tandem_plan(pair), RunSpec("planned", 0))
    runs["simpy"] = partial(tandem_in_simpy, pair)
    results, seconds = _measure(runs)
    found = {name: {"s": seconds[name], "mean_s": _mean_s(result)} for name, result in results.items()}
    for name, result in results.items():
        if isinstance(result, Replication):
            found[name]["events"] = result.simulation.events
    print(json.dumps(found))


def _measure(
    runs: dict[str, Callable[[], Replication | RunMetrics]],
) -> tuple[dict[str, Replication | RunMetrics], dict[str, float]]:
    """Do all runs in turns; return the last result of each, and the median of its processor time in seconds."""
    results: dict[str, Replication | RunMetrics] = {}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, make in runs.items():
            start_s = process_time()
            results[name] = make()
            times[name].append(process_time() - start_s)
    return results, {name: float(np.median(measured)) for name, measured in times.items()}


def _mean_s(result: Replication | RunMetrics) -> float:
    sources = (result.metrics if isinstance(result, Replication) else result).sources.values()
    total_s = sum((source.mean_delay_s or 0.0) * source.completed for source in sources)
    return total_s / sum(source.completed for source in sources)


def _instance(speeds: dict[str, float], *, homes: Sequence[str], blocks: int) -> Instance:
    block_s = WORK_S / blocks
    return make_instance(
        profiles=[make_profile(block_s=[block_s] * blocks, std_s=block_s / 4, cut_bytes=[CUT_BYTES] * (blocks + 1))],
        workers=speeds,
        networks={"lan": NetworkSpec.model_validate({"kind": "shared", "members": tuple(speeds), **NETWORK})},
        sources={
            name: {"worker": home, "rate_per_s": rate_per_s, "samples": SAMPLES, "priority": PRIORITIES[name]}
            for home, (name, rate_per_s) in zip(homes, RATES_PER_S.items(), strict=True)
        },
    )


def _plan(instance: Instance, helper: str, *, helper_first: int) -> PlanSpec:
    """Return the plan in which each source runs its first blocks itself and one helper runs the others."""
    last = instance.length("m") - 1
    sources = {}
    for source in instance.sources:
        stages = (
            Stage(worker=instance.home(source), first_block=0, last_block=helper_first - 1),
            Stage(worker=helper, first_block=helper_first, last_block=last),
        )
        route = Route(model="m", stages=stages)
        sources[source] = SourcePlan(accuracy=1.0, delay_s=0.1, surrogate_delay_s=0.1, routes=(route,))
    return PlanSpec(
        status="feasible", method="benchmark", goal="delay", objective=1.0, bound=0.0, gap=1.0, solve_s=0.0,
        provenance="estimated", sources=sources, workers={}, networks={},
    )  # fmt: skip


def tandem() -> Instance:
    """Return an instance of two workers with a network between them, for a model of two blocks."""
    return _instance({"box": 1.5, "a": 1.5}, homes=("box",) * len(RATES_PER_S), blocks=2)


def tandem_plan(instance: Instance) -> PlanSpec:
    """Return the plan that runs the second block of :func:`tandem` on the second worker."""
    return _plan(instance, "a", helper_first=1)


def tandem_in_simpy(instance: Instance) -> RunMetrics:
    """Return the metrics of the same model written in SimPy, with the same arrivals and block times."""
    env = simpy.Environment()
    workers = {name: simpy.PriorityResource(env) for name in instance.workers}
    devices = {name: Device(instance, name, 0) for name in instance.workers}
    network = simpy.PriorityResource(env)
    route = list(zip(instance.workers, reversed(instance.workers), strict=True))
    metrics = Accumulator(PRIORITIES, instance.workers)
    transfer_s = CUT_BYTES / NETWORK["bandwidth_bytes_per_s"]

    def sample(source: str, number: int) -> Generator[simpy.Event, Any, None]:
        rank, created_s = -int(PRIORITIES[source]), env.now
        for block, (name, other) in enumerate(route):
            with workers[name].request(rank) as turn:
                yield turn
                start_s = env.now
                block_run = RunBlock(SampleKey(source, number, 0), "m", block, begins_stage=True)
                yield env.timeout(devices[name].service_s(block_run))
                metrics.add(BlockRecord(name, source, number, block, start_s, env.now))
            with network.request(rank) as turn:
                yield turn
                start_s = env.now
                yield env.timeout(transfer_s)
                metrics.add(TransferRecord("lan", name, other, source, number, block + 1, CUT_BYTES, start_s, env.now))
            yield env.timeout(NETWORK["latency_s"])
        metrics.add(SampleRecord(source, number, created_s, env.now, "completed"))

    def arrivals(source: str) -> Generator[simpy.Event, Any, None]:
        for number, time_s in enumerate(instance_arrivals(instance, source, 0)):
            yield env.timeout(time_s - env.now)
            env.process(sample(source, number))

    for source in instance.sources:
        env.process(arrivals(source))
    env.run()
    return metrics.result()


if __name__ == "__main__":
    run()
