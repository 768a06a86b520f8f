"""Independent replications of a simulated run, in processes side by side, and what they amount to together.

Each policy meets the same seeds, so that differences between policies are not differences in what arrived
(common random numbers).
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from planner.plan.replan import MakeReplan
from planner.plan.types import PlanSpec
from planner.policy.registry import known_elsewhere
from planner.scenario.instance import Instance
from planner.simulation.simulator import Simulation, Simulator
from planner.trace.metrics import Accumulator, RunMetrics
from planner.trace.records import Record, record_file

Sink = Callable[[Record], None]

_WAKE_S: Final = 0.5
"""How long this process sleeps at most: a signal that the system gives to another of its threads does not wake it."""


@dataclass(frozen=True)
class RunSpec:
    """One run to be made: its policy, its seed, and the file that takes its records, if any."""

    policy: str
    seed: int
    trace: Path | None = None


@dataclass(frozen=True)
class Replication:
    """One run that was made."""

    case: RunSpec
    metrics: RunMetrics
    simulation: Simulation


def simulate_case(
    instance: Instance, plan: PlanSpec | None, case: RunSpec, *sinks: Sink, replanner: MakeReplan | None = None
) -> Replication:
    """Make one run in memory that does not grow with the number of samples.

    Parameters
    ----------
    sinks
        Take each record, too, as it comes about.
    replanner
        Makes what solves the plan again when workers leave, come back or become slow; by default the plan stays, less
        the routes over those that left.
    """
    priorities = {source: spec.priority for source, spec in instance.scenario.sources.items()}
    accumulator = Accumulator(priorities, instance.workers, instance.accuracies)
    with nullcontext() if case.trace is None else record_file(case.trace) as write:
        every = (accumulator.add, *sinks) if write is None else (accumulator.add, write, *sinks)

        def all_of_them(record: Record) -> None:
            for take in every:
                take(record)

        sink = every[0] if len(every) == 1 else all_of_them
        replan = replanner(instance, case.policy, plan) if replanner is not None else None
        simulation = Simulator(instance, policy=case.policy, plan=plan, seed=case.seed, sink=sink, replan=replan).run()
    return Replication(case, accumulator.result(), simulation)


def simulate_cases(
    instance: Instance,
    plan: PlanSpec | None,
    cases: Sequence[RunSpec],
    *,
    processes: int | None = None,
    replanner: MakeReplan | None = None,
) -> Iterator[Replication]:
    """Make independent runs in processes side by side.

    Parameters
    ----------
    processes
        How many; by default one a processor. A policy that only this process knows runs in this process.
    replanner
        As for :func:`simulate_case`; a function of a module, for it goes to the processes.

    Yields
    ------
    Replication
        Each run as soon as it is made, not in the order of ``cases``.
    """
    count = min(processes or os.cpu_count() or 1, len(cases))
    if not all(known_elsewhere(case.policy) for case in cases):
        count = 1
    if count == 1:
        yield from (simulate_case(instance, plan, case, replanner=replanner) for case in cases)
        return
    with _pool(count) as pool:
        left = {pool.submit(_simulate_in_pool, instance, plan, case, replanner) for case in cases}
        while left:
            done, left = wait(left, timeout=_WAKE_S, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)


@contextmanager
def _pool(count: int) -> Iterator[ProcessPoolExecutor]:
    """Give processes that drop what they do, and what has not begun, when one run fails or the user interrupts."""
    # A forked process may inherit a lock that a thread of this one holds; a spawned one starts clean.
    context = multiprocessing.get_context("spawn")
    stop = context.RawValue("b", 0)
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_begin, initargs=(stop,))
    try:
        yield pool
    finally:
        stop.value = 1
        pool.shutdown(cancel_futures=True)


_STOPS: Final[list[Any]] = []
"""In a process of a pool: the byte in shared memory that is not 0 when it is to stop."""


def _begin(stop: Any) -> None:
    """Begin a process of a pool; an interrupt from the keyboard reaches it, too, and is for its parent alone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _STOPS.append(stop)


def _simulate_in_pool(
    instance: Instance, plan: PlanSpec | None, case: RunSpec, replanner: MakeReplan | None
) -> Replication:
    return simulate_case(instance, plan, case, _stop_if_told, replanner=replanner)


def _stop_if_told(_record: Record) -> None:
    if _STOPS[0].value:
        raise KeyboardInterrupt
