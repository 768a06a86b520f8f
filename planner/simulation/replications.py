"""Independent replications of a simulated run, in parallel processes.

All policies use the same seeds, so that differences between policies are not caused by different arrivals (common
random numbers).
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from planner.cluster import on_cluster
from planner.errors import UsageError
from planner.plan.energy import energy_use
from planner.plan.replan import MakeReplan
from planner.plan.types import EnergyUse, PlanSpec
from planner.policy.registry import known_elsewhere
from planner.scenario.instance import Instance
from planner.simulation.simulator import Simulation, Simulator
from planner.trace.metrics import Accumulator, RunMetrics
from planner.trace.records import Record, record_file

Sink = Callable[[Record], None]

_WAKE_S: Final = 0.5
"""Maximum time this process sleeps, since a signal delivered to another of its threads does not wake it."""

_FEW_BLOCKS: Final = 20_000
"""Number of blocks that all runs together compute in less time than processes need to start."""


@dataclass(frozen=True)
class RunSpec:
    """A run to simulate: its policy, its seed, and the file for its records, if any."""

    policy: str
    seed: int
    trace: Path | None = None


@dataclass(frozen=True)
class Replication:
    """A simulated run."""

    case: RunSpec
    metrics: RunMetrics
    simulation: Simulation
    energy: EnergyUse | None = None
    """Energy of the run, if the scenario states the power of workers."""


def simulate_case(
    instance: Instance, plan: PlanSpec | None, case: RunSpec, *sinks: Sink, replanner: MakeReplan | None = None
) -> Replication:
    """Simulate one run, in memory that does not grow with the number of samples.

    Parameters
    ----------
    sinks
        Called with each record as it occurs.
    replanner
        Returns the function that adapts the plan when workers leave, come back or slow down. By default the plan stays,
        without the routes over absent workers.
    """
    priorities = {source: spec.priority for source, spec in instance.scenario.sources.items()}
    accumulator = Accumulator(priorities, instance.workers, instance.accuracies, instance.deadlines)
    with nullcontext() if case.trace is None else record_file(case.trace) as write:
        takers = (accumulator.add, *sinks) if write is None else (accumulator.add, write, *sinks)

        def take_record(record: Record) -> None:
            for take in takers:
                take(record)

        sink = takers[0] if len(takers) == 1 else take_record
        replan = replanner(instance, case.policy, plan) if replanner is not None else None
        simulation = Simulator(instance, policy=case.policy, plan=plan, seed=case.seed, sink=sink, replan=replan).run()
    metrics = accumulator.result()
    return Replication(case, metrics, simulation, run_energy(instance, metrics))


def run_energy(instance: Instance, metrics: RunMetrics) -> EnergyUse | None:
    """Return the energy of a run by the time that workers computed; None if the scenario states no power."""
    completed = sum(source.completed for source in metrics.sources.values())
    rate_per_s = completed / metrics.makespan_s if metrics.makespan_s > 0 else 0.0
    return energy_use(instance, metrics.utilisation, rate_per_s)


def simulate_cases(
    instance: Instance,
    plan: PlanSpec | None,
    cases: Sequence[RunSpec],
    *,
    processes: int | None = None,
    dask: str | None = None,
    replanner: MakeReplan | None = None,
) -> Iterator[Replication]:
    """Simulate independent runs in parallel processes, here or on a cluster.

    Parameters
    ----------
    processes
        Number of processes; by default that of the processors, or this one alone if that is quicker. A policy that is
        registered in this process only runs in this process.
    dask
        Address of the scheduler of a Dask cluster, where the runs are made instead; it keeps no traces.
    replanner
        As for :func:`simulate_case`; must be a function of a module, because it is pickled.

    Yields
    ------
    Replication
        Each run as soon as it ends, not in the order of ``cases``; on a cluster all in the end.

    Raises
    ------
    UsageError
        The cluster cannot be used, it does not know a policy, or a trace was asked for.
    """
    if dask is not None:
        yield from _on_cluster(instance, plan, cases, dask, replanner)
        return
    count = min(processes or os.cpu_count() or 1, len(cases))
    here = processes is None and _are_short(instance, len(cases))
    if here or not all(known_elsewhere(case.policy) for case in cases):
        count = 1
    if count == 1:
        yield from (simulate_case(instance, plan, case, replanner=replanner) for case in cases)
        return
    with _pool(count) as pool:
        pending = {pool.submit(_simulate_in_pool, instance, plan, case, replanner) for case in cases}
        while pending:
            done, pending = wait(pending, timeout=_WAKE_S, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)


def _are_short(instance: Instance, runs: int) -> bool:
    """Return whether runs end before a process has started; solving again and sequences may take any time."""
    spec = instance.scenario
    if spec.events or any(source.decode is not None for source in spec.sources.values()):
        return False
    longest = max(map(instance.length, instance.profiles), default=0)
    return runs * longest * sum(map(instance.samples, instance.sources)) <= _FEW_BLOCKS


def _on_cluster(
    instance: Instance, plan: PlanSpec | None, cases: Sequence[RunSpec], dask: str, replanner: MakeReplan | None
) -> list[Replication]:
    for case in cases:
        if case.trace is not None:
            raise UsageError("runs on a Dask cluster write no traces", where="dask", expected="no folder for them")
        if not known_elsewhere(case.policy):
            raise UsageError(
                "a policy that only this process knows does not run on a Dask cluster",
                where="dask",
                value=case.policy,
                expected="a built-in policy, or one of a package that is installed there",
            )
    there = partial(simulate_case, replanner=replanner)
    return on_cluster(dask, there, ((instance, plan, case) for case in cases), shared=[instance])


@contextmanager
def _pool(count: int) -> Iterator[ProcessPoolExecutor]:
    """Return processes that abandon all runs when one fails or the user interrupts."""
    # A forked process could inherit a lock that a thread of this process holds.
    context = multiprocessing.get_context("spawn")
    stop = context.RawValue("b", 0)
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_begin, initargs=(stop,))
    try:
        yield pool
    finally:
        stop.value = 1
        pool.shutdown(cancel_futures=True)


_STOPS: Final[list[Any]] = []
"""In a process of a pool: a byte in shared memory that becomes 1 to stop the process."""


def _begin(stop: Any) -> None:
    """Initialise a process of a pool; keyboard interrupts reach it, too, but its parent handles them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _STOPS.append(stop)


def _simulate_in_pool(
    instance: Instance, plan: PlanSpec | None, case: RunSpec, replanner: MakeReplan | None
) -> Replication:
    return simulate_case(instance, plan, case, _stop_if_requested, replanner=replanner)


def _stop_if_requested(_record: Record) -> None:
    if _STOPS[0].value:
        raise KeyboardInterrupt
