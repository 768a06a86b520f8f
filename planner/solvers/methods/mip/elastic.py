"""The elastic filter: the fewest limits to relax so that an infeasible problem has a solution.

Every limit gets a slack, and a binary that is 1 if the limit is relaxed. The first objective is the number of relaxed
limits; the second, with that number fixed, the sum of their relative slacks.

References
----------
J. W. Chinneck and E. W. Dravnieks, "Locating minimal infeasible constraint sets in linear programs", ORSA Journal on
Computing 3 (1991): elastic programs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyomo.environ as pyo

from planner.solvers.core.deadline import Expired
from planner.solvers.core.equations import Equation
from planner.solvers.core.infeasibility import Relaxations
from planner.solvers.core.problem import Problem
from planner.solvers.core.scale import HOPELESS, MemoryUnit, Scale, ratio
from planner.solvers.core.search_state import Options
from planner.solvers.methods.mip.model import TOLERANCES, build_model
from planner.solvers.methods.mip.program import ModelProgram
from planner.solvers.routes.pricing import unroutable


class _Limit(NamedTuple):
    """A slack with the limit it belongs to, in the slack's unit, the largest value that it may need, and its violation.

    ``violation`` is computed from the solution, because the program sees no hopelessly large numbers.
    """

    kind: str
    number: int
    slack: Any
    limit: float
    most: float
    violation: Callable[[], float]


def relaxations(problem: Problem, options: Options, *, shared: bool = False) -> Relaxations | None:
    """Return the fewest limits to relax and the least amounts; empty if relaxing limits does not help.

    Parameters
    ----------
    shared
        Relax limits for routes among which samples may be shared, instead of one route per source.

    Returns
    -------
    Relaxations or None
        None if they were not found, usually because the time limit passed.
    """
    try:
        return _relaxations(problem, options, shared=shared)
    except Expired:
        return None


def _relaxations(problem: Problem, options: Options, *, shared: bool) -> Relaxations | None:
    model = build_model(problem, scale=Scale(most=HOPELESS), elastic=True, deadline=options.deadline)
    if shared:
        pyo.TransformationFactory("core.relax_integer_vars").apply_to(model)
    limits = list(_limits(problem, model))
    if not limits:
        return {}
    _add_filter(model, limits)
    settings = {"random_seed": options.seed, **TOLERANCES}
    program = ModelProgram(model, threads=options.threads, deadline=options.deadline, settings=settings)
    first = program.run()
    if first.end == "infeasible":
        return {} if unroutable(problem) or problem.max_visits is not None else None
    if first.values is None:
        return None
    program.limit(0, round(first.objective))
    program.minimise(1)
    program.run()  # the first solution remains if there is no time for a better one
    return {
        (limit.kind, limit.number): limit.violation()
        for row, limit in enumerate(limits)
        if model.relaxed[row].value > 0.5 and limit.slack.value > 1e-9
    }


def _add_filter(model: Any, limits: list[_Limit]) -> None:
    """Add which limits are relaxed, and the two objectives."""
    model.relaxed = pyo.Var(
        range(len(limits)),
        domain=pyo.Binary,
        doc=Equation("Whether a limit is relaxed.", r"\delta_i \in \lbrace 0, 1 \rbrace").doc,
    )
    model.only_relaxed = pyo.Constraint(
        range(len(limits)),
        rule=lambda _, row: limits[row].slack <= limits[row].most * model.relaxed[row],
        doc=Equation(
            "Only a relaxed limit has a slack, which is no larger than it may have to be.",
            r"\epsilon_i \le \bar\epsilon_i \delta_i \quad \forall i",
        ).doc,
    )
    model.fewest = pyo.Objective(
        expr=pyo.quicksum(model.relaxed.values()),
        doc=Equation("First, the number of relaxed limits.", r"\min \sum_{i} \delta_i").doc,
    )
    model.total_slack = pyo.Objective(
        expr=pyo.quicksum(limit.slack / max(limit.limit, 1e-6) for limit in limits),
        doc=Equation(
            "Then, with that number fixed, the sum of their relative slacks.", r"\min \sum_{i} \epsilon_i / \ell_i"
        ).doc,
    )


def _limits(problem: Problem, model: Any) -> Iterator[_Limit]:
    busiest, longest = _extremes(problem, model)
    if np.isfinite(problem.cap):
        for index, slack in model.overload.items():
            yield _Limit(
                "overload",
                index,
                slack,
                float(problem.caps[index]),
                busiest[index],
                partial(_overload, problem, model, index),
            )
    if problem.memory_binds:
        most = _most_memory(problem)
        for index, slack in model.lack.items():
            room = MemoryUnit.of(float(problem.memory_bytes[index])).room
            violation = partial(_lack_bytes, problem, model, index)
            yield _Limit("lack_bytes", index, slack, room, max(most[index] - min(room, 0.0), 0.0), violation)
    for index, demand in enumerate(problem.demands):
        if np.isfinite(demand.deadline_s):
            violation = partial(_late_s, problem, model, index)
            yield _Limit("late_s", index, model.late[index], 1.0, longest[index], violation)
        if demand.min_accuracy > 0:
            slack = model.inaccuracy[index]
            yield _Limit("inaccuracy", index, slack, demand.min_accuracy, 1.0, partial(pyo.value, slack))


def _overload(problem: Problem, model: Any, resource: int) -> float:
    """Return the utilisation of a resource above the cap, in the present solution."""
    busy = sum(
        variable.value * problem.demands[source].volume * seconds
        for variable, source, arc in model.arcs
        for used, seconds in arc.seconds
        if used == resource
    )
    return float(busy) - float(problem.caps[resource])


def _late_s(problem: Problem, model: Any, source: int) -> float:
    """Return the unloaded delay of a source beyond its deadline, in the present solution, in seconds."""
    delay_s = sum(variable.value * arc.unloaded_s for variable, other, arc in model.arcs if other == source)
    return float(delay_s) - problem.demands[source].deadline_s


def _lack_bytes(problem: Problem, model: Any, worker: int) -> float:
    """Return the memory that a worker lacks in the present solution, in bytes."""
    weights = largest = 0.0
    for (index, block, holder), variable in model.resident.items():
        if holder == worker:
            part = round(variable.value, 6)
            weights += part * problem.weight_bytes[index][block, worker]
            largest = max(largest, part * problem.activation_bytes[index][block, worker])
    return float(weights + largest - problem.memory_bytes[worker])


def _most_memory(problem: Problem) -> list[float]:
    """Return the memory that all blocks of all models take on each worker, in its unit [D]."""
    most = []
    for worker, room_bytes in enumerate(problem.memory_bytes.tolist()):
        size = MemoryUnit.of(room_bytes).size
        weights = sum(size(weight) for model in problem.weight_bytes for weight in model[:, worker].tolist())
        most.append(weights + max(size(float(peaks[:, worker].max())) for peaks in problem.activation_bytes))
    return most


def _extremes(problem: Problem, model: Any) -> tuple[list[float], list[float]]:
    """Return upper bounds, as the program sees them, on each resource's load [R] and source's relative delay [S].

    A route uses one node of each block and at most one move across each cut.
    """
    heaviest: dict[tuple[int, int, int, bool], float] = {}
    slowest: dict[tuple[int, int, bool], float] = {}
    for _, source, arc in model.arcs:
        key = (source, arc.block, arc.sender == arc.worker)
        slowest[key] = max(slowest.get(key, 0.0), ratio(arc.unloaded_s, problem.demands[source].deadline_s))
        for resource, seconds in _sums(arc.seconds).items():
            load = model.scale.loads(problem.demands[source].volume * seconds)
            heaviest[(resource, *key)] = max(heaviest.get((resource, *key), 0.0), load)
    busiest, longest = [0.0] * len(problem.resources), [0.0] * len(problem.demands)
    for (resource, *_), load in heaviest.items():
        busiest[resource] += load
    for (source, *_), seconds in slowest.items():
        longest[source] += seconds
    return busiest, longest


def _sums(pairs: tuple[tuple[int, float], ...]) -> dict[int, float]:
    sums: dict[int, float] = {}
    for resource, seconds in pairs:
        sums[resource] = sums.get(resource, 0.0) + seconds
    return sums
