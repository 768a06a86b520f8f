"""What blocks cost in agents that share a host, measured on agents of this machine.

A profile is measured by a process that does nothing else. In an agent the same blocks take longer: other threads of the
agent handle messages on the same processors, and memory, caches and clocks are shared with the agents beside it. Both
are measured by running the model in one agent at a moderate load, in turns while the other agents are idle and while
they compute all the time. Each agent has processors of its own, as agents of :func:`local_agents` do.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from itertools import permutations
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from planner.errors import ProfileError
from planner.execution.coordinator.coordinator import Coordinator
from planner.execution.coordinator.deployment import deploy
from planner.execution.launch.local import local_agents
from planner.profiling.intervals import around, half_width
from planner.profiling.timing import MEASURED_COVERAGE
from planner.profiling.types import ColocationCosts, EstimateInterval, Profile
from planner.runtime.processors import available_processors
from planner.scenario.instance import Hop, Instance, NetworkPath
from planner.scenario.types import ModelSpec, NetworkSpec, ScenarioSpec, SourceSpec, WorkerSpec
from planner.trace.records import Record, SampleRecord
from planner.validation.calibration_run import in_situ_costs

if TYPE_CHECKING:
    from planner.model.load import ChainModel

MEASURED: Final = "measured"
"""Name of the agent that is measured, and of its source."""
OWN_LOAD: Final = 0.5
"""Share of the time in which the measured agent computes."""
TURNS: Final = 4
"""Number of runs beside idle agents, and beside busy ones."""
_AGENT_S: Final = 3e-4
"""Rough time that an agent takes between two blocks, which matters for the load where blocks are short."""
_FEWEST: Final = 10
"""Minimum number of samples of a run."""
_BYTES_PER_S: Final = 1e9
"""Of a network that carries nothing."""
_STARTING_S: Final = 120.0

Progress = Callable[[int, int], None]


def check_room(others: int, threads: int) -> None:
    """Check that this machine has processors for the measured agent and the others.

    Raises
    ------
    ProfileError
        If it has not, or there are no others.
    """
    available = len(available_processors())
    most = available // max(threads, 1) - 1
    if not 1 <= others <= most:
        raise ProfileError(
            "this machine has not the processors for so many agents",
            where="--beside",
            value=others,
            expected=f"from 1 to {most}: of {available} processors, each agent has {threads}"
            if most >= 1
            else f"a machine with {2 * threads} processors or more; this one has {available}",
        )


def with_colocation(
    model: ChainModel,
    profile: Profile,
    others: int,
    *,
    provider: str = "cpu",
    threads: int = 1,
    budget_s: float,
    inputs: Mapping[str, NDArray[Any]] | None = None,
    progress: Progress | None = None,
) -> Profile:
    """Return a measured profile with what its blocks cost in an agent, alone and beside ``others`` that compute.

    Parameters
    ----------
    provider, threads
        As the profile was measured.
    budget_s
        Approximate time for all runs, in seconds.
    inputs
        The model's inputs by name; drawn by default.

    Raises
    ------
    PlannerError
        If there are no processors for the agents, the model keeps state, or a run fails.
    """
    check_room(others, threads)
    if profile.sequences is not None:
        raise ProfileError(
            "models with state are not measured beside others", where="--beside", value=others, expected="no --beside"
        )
    names = [MEASURED, *(f"other-{index + 1}" for index in range(others))]
    options = ("--provider", provider, "--threads", str(threads))
    turn_s = budget_s / (2 * TURNS)
    times: dict[bool, list[NDArray[np.float64]]] = {False: [], True: []}
    with local_agents(names, options=options) as coordinator:
        for turn in range(2 * TURNS):
            busy = turn % 2 == 1
            instance = _instance(profile, names, turn_s, busy=busy)
            times[busy].append(_block_s(coordinator, instance, model, inputs, seed=turn))
            if progress is not None:
                progress(turn + 1, 2 * TURNS)
    return _with_costs(profile, others, times[False], times[True])


def _instance(profile: Profile, names: list[str], turn_s: float, *, busy: bool) -> Instance:
    """Return a scenario in which each agent computes samples of its own: the first at a moderate load."""
    name = profile.model.name
    total_s = sum(block.mean_s + _AGENT_S for block in profile.blocks)
    rate = OWN_LOAD / total_s
    sources = {
        worker: SourceSpec(
            worker=worker,
            models=(name,),
            arrivals="batch",
            in_flight=2,
            samples=max(math.ceil(turn_s / total_s), _FEWEST) if busy else 1,
        )
        for worker in names
    }
    samples = max(math.ceil(rate * turn_s), _FEWEST)
    sources[MEASURED] = SourceSpec(worker=MEASURED, models=(name,), rate_per_s=rate, samples=samples)
    paths: dict[str, dict[str, NetworkPath]] = {name: {} for name in names}
    for a, b in permutations(names, 2):
        hop = Hop(sender=a, receiver=b, resource="host", bytes_per_s=_BYTES_PER_S, latency_s=0.0)
        paths[a][b] = NetworkPath(hops=(hop,))
    network = NetworkSpec(kind="shared", members=tuple(names), bandwidth_bytes_per_s=_BYTES_PER_S)
    worker = WorkerSpec(device_class=profile.device_class, memory_bytes=float(2**40))
    scenario = ScenarioSpec(
        models={name: ModelSpec(profile=name)},
        workers=dict.fromkeys(names, worker),
        networks={"host": network},
        sources=sources,
    )
    return Instance(scenario=scenario, profiles={name: {profile.device_class: profile}}, paths=paths)


def _block_s(
    coordinator: Coordinator,
    instance: Instance,
    model: ChainModel,
    inputs: Mapping[str, NDArray[Any]] | None,
    seed: int,
) -> NDArray[np.float64]:
    """Return the mean time of each block of the measured agent while the others are as busy as intended; shape [L]."""
    (name,) = instance.profiles
    sent = {source: [dict(inputs)] for source in instance.sources} if inputs is not None else None
    deployment = deploy(instance, None, {name: model}, policy="local", seed=seed, sent=sent)
    records = list(coordinator.run(deployment, ready_timeout_s=_STARTING_S).records)
    costs = in_situ_costs(_meanwhile(records)).times_s(MEASURED)
    return np.array([np.mean(costs[name, block, block]) for block in range(instance.length(name))])


def _meanwhile(records: list[Record]) -> list[Record]:
    """Return the records of the measured samples that ended while the others had work, at least the first few."""
    ended = [record for record in records if isinstance(record, SampleRecord)]
    for sample in ended:
        if sample.status != "completed":
            raise ProfileError("a sample failed in an agent", where="--beside", value=sample.reason)
    others = defaultdict[str, list[float]](list)
    for sample in ended:
        if sample.source != MEASURED:
            others[sample.source].append(sample.finished_s)
    until_s = min((max(times_s) for times_s in others.values() if len(times_s) > 1), default=math.inf)
    own = sorted((sample for sample in ended if sample.source == MEASURED), key=lambda sample: sample.finished_s)
    counted = {sample.sample for rank, sample in enumerate(own) if rank < _FEWEST or sample.finished_s <= until_s}
    return [record for record in records if record.source == MEASURED and record.sample in counted]


def _with_costs(
    profile: Profile, others: int, idle_s: list[NDArray[np.float64]], busy_s: list[NDArray[np.float64]]
) -> Profile:
    """Return a profile with the costs in agents, from the mean times of each block in each run; shape [L] each."""
    mean_s = np.array([block.mean_s for block in profile.blocks])
    alone = np.mean(idle_s, axis=0) / mean_s
    beside = np.maximum(np.mean(busy_s, axis=0) / mean_s, alone)
    errors = [math.log(of_run.sum() / np.mean(runs, axis=0).sum()) for runs in (idle_s, busy_s) for of_run in runs]
    before_s = profile.interval.total_s[1] if profile.interval is not None else mean_s.sum()
    width = math.hypot(math.log(before_s / mean_s.sum()), half_width(errors, MEASURED_COVERAGE))
    return profile.model_copy(
        update={
            "colocation": ColocationCosts(others=others, alone=tuple(alone.tolist()), beside=tuple(beside.tolist())),
            "interval": EstimateInterval(coverage=MEASURED_COVERAGE, total_s=around(float(mean_s.sum()), width)),
        }
    )
