"""Conversion of an instance and of a plan's routes into the arrays that methods solve."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np

from planner.errors import SolveError
from planner.plan.energy import require_power
from planner.plan.evaluate import surrogate_priorities
from planner.plan.limits import tail_limits
from planner.plan.rates import volumes
from planner.plan.surrogate import kappa
from planner.plan.tokens import most_s
from planner.plan.types import Route
from planner.scenario.instance import Instance
from planner.scenario.phases import Phase
from planner.solvers.core.demand import Demand, Variant
from planner.solvers.core.problem import Array, Choice, Choices, Integers, Problem, normalised

MIN_RUNS = 1e-6
"""Number of runs from home that counts where there are none, since what the others take is stated relative to it."""


def build_problem(
    instance: Instance,
    *,
    max_visits: int | None = None,
    pins: Mapping[str, Mapping[int, str]] | None = None,
    max_wait_s: float | None = None,
) -> Problem:
    """Return the problem of an instance.

    Parameters
    ----------
    max_visits
        How many stages of one sample a worker may run; unlimited by default.
    pins
        By source, the worker that must run each block.
    max_wait_s
        Longest time of a session of several blocks that more urgent work may wait for; chosen for each plan by default.

    Raises
    ------
    PlanError
        The goal is ``delay`` or ``energy`` and a source has no rate, or it is ``energy`` and a worker has no power.
    SolveError
        A pin names a source, worker or block that does not exist, or needs more visits than are allowed; or
        ``max_wait_s`` is no time.
    """
    if max_wait_s is not None and not max_wait_s >= 0:
        raise SolveError("not a time", where="max_wait_s", value=max_wait_s, expected="seconds, 0 or more")
    instance = instance.in_full_batches()  # no plan does with less time per sample
    scenario = instance.scenario
    if scenario.objective.goal == "energy":
        require_power(instance)
    models = tuple(sorted({model for spec in scenario.sources.values() for model in spec.models}))
    variants: list[Variant] = []
    of_model: dict[tuple[str, tuple[Phase, ...]], list[int]] = {}
    for index, model in enumerate(models):
        users = (name for name, spec in scenario.sources.items() if model in spec.models)
        for phases in dict.fromkeys(instance.phases[name] for name in users):
            points = _variants(instance, index, model, phases)
            of_model[model, phases] = list(range(len(variants), len(variants) + len(points)))
            variants += points
    demands = tuple(
        Demand(
            name=name,
            home=instance.workers.index(spec.worker),
            volume=float(volume),
            priority=float(weight),
            deadline_s=min(most_s(spec.decode), np.inf if spec.max_mean_delay_s is None else spec.max_mean_delay_s),
            min_accuracy=spec.min_accuracy or 0.0,
            variants=tuple(
                variant for model in dict.fromkeys(spec.models) for variant in of_model[model, instance.phases[name]]
            ),
            tail=bool(tail_limits(spec)) or (spec.decode is not None and spec.decode.bounded),
        )
        for (name, spec), volume, weight in zip(
            scenario.sources.items(), volumes(instance), surrogate_priorities(instance), strict=True
        )
    )
    hop_resource, hop_s_per_byte, latency_s = _paths(instance)
    return Problem(
        goal="delay" if scenario.objective.goal == "misses" else scenario.objective.goal,
        kappa=kappa(scenario.objective.service_cv),
        loss_s=100 * scenario.objective.accuracy_worth_s,
        workers=instance.workers,
        resources=(*instance.workers, *instance.resources),
        models=models,
        demands=demands,
        variants=tuple(variants),
        hop_resource=hop_resource,
        hop_s_per_byte=hop_s_per_byte,
        latency_s=latency_s,
        memory_bytes=np.array([spec.memory_bytes - spec.base_memory_bytes for spec in scenario.workers.values()]),
        weight_bytes=tuple(_of_blocks(instance, model, instance.held_bytes) for model in models),
        activation_bytes=tuple(_of_blocks(instance, model, instance.peak_bytes) for model in models),
        parameters=tuple(
            np.array([float(block.parameters) for block in instance.any_profile(model).blocks]) for model in models
        ),
        ring=tuple(instance.workers.index(name) for name in scenario.policy.ring or instance.workers),
        max_visits=max_visits,
        max_wait_s=max_wait_s,
        pins=_pins(instance, pins or {}, max_visits),
        max_utilisation=np.array([instance.max_utilisation[name] for name in (*instance.workers, *instance.resources)]),
        **_power(instance),
    )


def _power(instance: Instance) -> dict[str, Any]:
    """Return the power of idle workers, and what load adds to it; that of workers without a stated power is 0."""
    powers = [worker.power for worker in instance.scenario.workers.values()]
    more_w = [0.0 if power is None else power.busy_w - power.idle_w for power in powers]
    return {
        "idle_w": sum(power.idle_w for power in powers if power is not None),
        "load_w": np.array([*more_w, *(0.0 for _ in instance.resources)]),
    }


def _pins(
    instance: Instance, pins: Mapping[str, Mapping[int, str]], max_visits: int | None
) -> dict[str, dict[int, int]]:
    for source, workers in pins.items():
        if source not in instance.sources:
            raise SolveError("no such source", where="pin", value=source, expected=" or ".join(instance.sources))
        length = min(instance.length(model) for model in instance.scenario.sources[source].models)
        for block, worker in workers.items():
            if worker not in instance.workers:
                raise SolveError("no such worker", where="pin", value=worker, expected=" or ".join(instance.workers))
            if not 0 <= block < length:
                raise SolveError("no such block", where="pin", value=block, expected=f"0 to {length - 1}")
        if max_visits is not None:
            _check_visits(source, workers, max_visits)
    return {
        source: {block: instance.workers.index(worker) for block, worker in workers.items()}
        for source, workers in pins.items()
    }


def _check_visits(source: str, pinned: Mapping[int, str], max_visits: int) -> None:
    """Check that a source's pinned blocks need no more visits to a worker than are allowed."""
    in_order = [pinned[block] for block in sorted(pinned)]
    visits = Counter(worker for worker, _ in groupby(in_order))
    for worker, count in visits.items():
        if count > max_visits:
            raise SolveError(
                f"the pinned blocks of {source} need {count} visits to {worker}",
                where="pin",
                value=", ".join(f"{block}={name}" for block, name in sorted(pinned.items())),
                expected=f"at most {max_visits}, as max_visits says",
            )


def _of_blocks(instance: Instance, model: str, figure: Callable[[str, str], Sequence[int]]) -> Array:
    """Return a figure of each block on each worker, by its own device class; shape [L, D]."""
    return np.array([figure(model, worker) for worker in instance.workers], dtype=np.float64).T


def _variants(instance: Instance, model_index: int, model: str, phases: Sequence[Phase]) -> list[Variant]:
    """Return a model at each of its operating points, for samples of some phases: the mean over all of their runs."""
    runs = [phase.count for phase in phases]
    from_home = sum(phase.count for phase in phases if not phase.fed_back) or MIN_RUNS
    block_s = np.stack(
        [
            np.average([instance.block_s(model, worker, phase) for phase in phases], axis=0, weights=runs)
            for worker in instance.workers
        ],
        axis=1,
    )
    cut_bytes = np.average([instance.run_bytes(model, phase) for phase in phases], axis=0, weights=runs)
    overhead_s = np.array([instance.stage_overhead_s(model, worker) for worker in instance.workers])
    saving_s = np.stack([instance.saving_s(model, worker) for worker in instance.workers], axis=1)
    variants = []
    for index, point in enumerate(instance.operating_points(model)):
        reach = sum(runs) * np.array([*point.reach, point.reach[-1]])
        times, sizes = block_s - saving_s, cut_bytes
        if from_home < sum(runs):
            reach, times, sizes = _fed_back(reach, times, sizes, overhead_s, from_home)
            sent = sum(phase.count * instance.run_bytes(model, phase)[0] for phase in phases if not phase.fed_back)
            sizes[0] = sent / from_home
        exit_bytes, exit_share = np.zeros(len(block_s)), np.zeros(len(block_s))
        for exit_point in instance.any_profile(model).exits:
            leaves = reach[exit_point.cut - 1] - reach[exit_point.cut]
            exit_share[exit_point.cut - 1] += leaves
            exit_bytes[exit_point.cut - 1] += leaves * exit_point.result_bytes
        variants.append(
            Variant(
                model=model_index,
                operating_point=index,
                accuracy=point.accuracy,
                reach=reach,
                block_s=times,
                overhead_s=overhead_s,
                cut_bytes=sizes,
                exit_bytes=exit_bytes,
                exit_share=exit_share,
                saving_s=saving_s if saving_s.any() else 0.0,
            )
        )
    return variants


def _fed_back(
    reach: Array, block_s: Array, cut_bytes: Array, overhead_s: Array, from_home: float
) -> tuple[Array, Array, Array]:
    """Return reach, times and sizes where home need not begin all runs: of the others, no route does with less.

    Those begin and end at no cost but that of the token's bytes: the way from the last block's worker to the first
    one's, or the token's way home, is left to the evaluation. ``reach`` counts, at the first block and at the result,
    the ``from_home`` runs that come from home and whose result is awaited there, so the first block, which begins a
    stage in each run, takes correspondingly longer there.
    """
    total = reach[0]
    reach, block_s, cut_bytes = reach.copy(), block_s.copy(), cut_bytes.copy()
    block_s[0] = (total * (block_s[0] + overhead_s)) / from_home - overhead_s
    cut_bytes[-1] *= total / from_home
    reach[[0, -1]] = from_home
    return reach, block_s, cut_bytes


def of_phase(instance: Instance, problem: Problem, source: int, phase: int) -> Problem:
    """Return the problem in which only the runs of one phase of a source's samples are made."""
    demand = problem.demands[source]
    variants = [
        variant
        for model in instance.scenario.sources[demand.name].models
        for variant in _variants(instance, problem.models.index(model), model, [instance.phases[demand.name][phase]])
    ]
    first = len(problem.variants)
    demands = list(problem.demands)
    demands[source] = replace(demand, variants=tuple(range(first, first + len(variants))))
    return replace(problem, demands=tuple(demands), variants=(*problem.variants, *variants))


def _paths(instance: Instance) -> tuple[Integers, Array, Array]:
    count = len(instance.workers)
    resource_index = {name: index + count for index, name in enumerate(instance.resources)}
    paths = {
        (sender, receiver): instance.path(instance.workers[sender], instance.workers[receiver])
        for sender in range(count)
        for receiver in range(count)
    }
    longest = max([1, *(len(path.hops) for path in paths.values() if path)])
    hop_resource = np.zeros((count, count, longest), dtype=np.intp)
    hop_s_per_byte = np.zeros((count, count, longest))
    latency_s = np.full((count, count), np.inf)
    for pair, path in paths.items():
        if path is None:
            continue
        latency_s[pair] = sum(hop.latency_s for hop in path.hops)
        for index, hop in enumerate(path.hops):
            hop_resource[(*pair, index)] = resource_index[hop.resource]
            hop_s_per_byte[(*pair, index)] = 1 / hop.bytes_per_s
    return hop_resource, hop_s_per_byte, latency_s


def read_routes(problem: Problem, routes: Mapping[str, Sequence[Route]]) -> Choices:
    """Return the routes of a plan that are still possible, with each source's shares scaled to 1.

    A source has no route left if all of its routes use workers, models or paths that no longer exist.
    """
    choices = []
    for source, demand in enumerate(problem.demands):
        of_point = {
            (problem.models[problem.variants[index].model], problem.variants[index].operating_point): index
            for index in demand.variants
        }
        possible = []
        for route in routes.get(demand.name, ()):
            workers = tuple(
                problem.workers.index(stage.worker) if stage.worker in problem.workers else -1
                for stage in route.stages
                for _ in range(stage.first_block, stage.last_block + 1)
            )
            variant = of_point.get((route.model, route.operating_point), -1)
            if variant < 0 or -1 in workers or len(workers) != len(problem.variants[variant]):
                continue
            choice = Choice(variant, workers, route.share)
            if problem.allowed(source, choice):
                possible.append(choice)
        choices.append(normalised(possible))
    return tuple(choices)
