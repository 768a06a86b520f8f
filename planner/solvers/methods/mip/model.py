"""The mixed-integer program of one route a source, as a Pyomo model.

Binary ``place`` says which worker runs a block; ``stay`` and ``move`` join the blocks (they are integral when ``place``
is). The convex congestion G is met from below by tangents, which are added where a solution lies until
(G − tangent) / G ≤ 1e-6; so each solver's bound is a bound on the surrogate objective.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyomo.environ as pyo

from planner.plan.surrogate import congestion, congestion_slope
from planner.solvers.core.problem import Choice, Choices, Problem
from planner.solvers.methods.mip.program import ModelProgram
from planner.solvers.routes.arcs import Arc, move_arcs, place_arcs

FIRST_TANGENTS = (0.0, 0.3, 0.5, 0.65, 0.75, 0.85, 0.9, 0.95)
TANGENT_ERROR = 1e-6
TIGHT = {"mip_feasibility_tolerance": 1e-9, "primal_feasibility_tolerance": 1e-9}
"""Settings of HiGHS with which limits of milliseconds and of MiB are kept alike."""

Key = tuple[int, int, int, int]
"""Source, variant, block, worker."""


def build_model(problem: Problem, *, elastic: bool = False) -> Any:
    """Build the Pyomo model; in an ``elastic`` one limits give way, and it has no objective yet."""
    model = pyo.ConcreteModel()
    _add_routes(problem, model)
    _add_slacks(problem, model, elastic=elastic)
    _add_loads(problem, model)
    _add_memory(problem, model)
    _add_promises(problem, model)
    if problem.max_visits is not None:
        _add_visits(problem, model)
    if not elastic:
        {"delay": _add_delay, "throughput": _add_throughput, "makespan": _add_makespan}[problem.goal](problem, model)
    return model


def read_choices(problem: Problem, model: Any) -> Choices:
    """Give the routes of the model's present solution."""
    found: list[list[tuple[int, int, int]]] = [[] for _ in problem.demands]
    for (source, variant, block, worker), variable in model.place.items():
        if variable.value > 0.5:
            found[source].append((variant, block, worker))
    return tuple((Choice(own[0][0], tuple(worker for _, _, worker in sorted(own))),) for own in found)


def write_choices(model: Any, choices: Choices) -> None:
    """Give the binaries the values of routes; HiGHS finds those of all else."""
    routes = {(source, choice.variant): choice.workers for source, (choice,) in enumerate(choices)}
    for pair, variable in model.chosen.items():
        variable.set_value(float(pair in routes))
    for (source, variant, block, worker), variable in model.place.items():
        on_route = (source, variant) in routes and routes[source, variant][block] == worker
        variable.set_value(float(on_route))


def _add_routes(problem: Problem, model: Any) -> None:
    """Give each source one path through the layered graph of one of its variants."""
    pairs = [(source, variant) for source, demand in enumerate(problem.demands) for variant in demand.variants]
    places = {(*pair, arc.block, arc.worker): arc for pair in pairs for arc in place_arcs(problem, *pair)}
    moves = {(*pair, arc.block, arc.sender, arc.worker): arc for pair in pairs for arc in move_arcs(problem, *pair)}
    stays = [key for key in places if key[2] > 0 and (*key[:2], key[2] - 1, key[3]) in places]
    model.place = pyo.Var(list(places), domain=pyo.Binary)
    model.stay = pyo.Var(stays, domain=pyo.NonNegativeReals)
    model.move = pyo.Var(list(moves), domain=pyo.NonNegativeReals)
    model.arcs = [(model.place[key], key[0], arc) for key, arc in places.items()]
    model.arcs += [(model.move[key], key[0], arc) for key, arc in moves.items()]
    into: dict[Key, list[Any]] = {key: [model.stay[key]] if key in model.stay else [] for key in places}
    out: dict[Key, list[Any]] = {key: [] for key in places}
    for source, variant, block, sender, worker in moves:
        variable = model.move[source, variant, block, sender, worker]
        into[source, variant, block, worker].append(variable)
        out[source, variant, block - 1, sender].append(variable)
    for source, variant, block, worker in stays:
        out[source, variant, block - 1, worker].append(model.stay[source, variant, block, worker])
    model.chosen = pyo.Var(pairs, domain=pyo.Binary)
    model.one_route = pyo.Constraint(
        range(len(problem.demands)),
        rule=lambda _, source: _sum(model.chosen[pair] for pair in pairs if pair[0] == source) == 1,
    )
    model.begin = pyo.Constraint(
        pairs,
        rule=lambda _, *pair: (
            model.chosen[pair] == _sum(model.place[key] for key in places if key[:2] == pair and key[2] == 0)
        ),
    )
    model.enter = pyo.Constraint(
        [key for key in places if key[2] > 0], rule=lambda _, *key: model.place[key] == _sum(into[key])
    )
    model.leave = pyo.Constraint(
        [key for key in places if key[2] < len(problem.variants[key[1]]) - 1],
        rule=lambda _, *key: model.place[key] == _sum(out[key]),
    )


def _add_slacks(problem: Problem, model: Any, *, elastic: bool) -> None:
    """Let limits give way; the slacks are fixed at 0 unless the model is ``elastic``."""
    upper = None if elastic else 0.0
    workers, sources = range(len(problem.workers)), range(len(problem.demands))
    model.overload = pyo.Var(range(len(problem.resources)), bounds=(0, upper))
    model.lack_mib = pyo.Var(workers, bounds=(0, upper))
    model.late_s = pyo.Var(sources, bounds=(0, upper))
    model.inaccuracy = pyo.Var(sources, bounds=(0, upper))


def _add_loads(problem: Problem, model: Any) -> None:
    """Utilisation of each resource by the classes 1..k, kept under the cap."""
    classes = problem.classes
    terms: dict[tuple[int, int], list[Any]] = {}
    for variable, source, arc in model.arcs:
        for resource, seconds in arc.seconds:
            amount = seconds * problem.demands[source].volume
            terms.setdefault((int(classes.of_source[source]), resource), []).append(amount * variable)
    used = sorted({resource for _, resource in terms})
    levels = range(len(classes.weight))
    model.sigma = pyo.Var(levels, used, domain=pyo.NonNegativeReals)
    model.utilisation = pyo.Constraint(
        levels,
        used,
        rule=lambda _, level, resource: (
            model.sigma[level, resource]
            == (model.sigma[level - 1, resource] if level else 0) + _sum(terms.get((level, resource), []))
        ),
    )
    if np.isfinite(problem.cap):
        model.capacity = pyo.Constraint(
            used,
            rule=lambda _, resource: model.sigma[levels[-1], resource] <= problem.cap + model.overload[resource],
        )


def _add_memory(problem: Problem, model: Any) -> None:
    """One copy of a block on a worker serves all sources; the largest activation comes on top. In MiB."""
    if not problem.memory_binds:
        return
    users: dict[Key, list[Any]] = {}
    for (_, variant, block, worker), variable in model.place.items():
        users.setdefault((problem.variants[variant].model, block, worker, 0), []).append(variable)
    copies = sorted((number, block, worker) for number, block, worker, _ in users)
    workers = range(len(problem.workers))
    model.resident = pyo.Var(copies, bounds=(0, 1))
    model.largest_mib = pyo.Var(workers, domain=pyo.NonNegativeReals)
    model.residency = pyo.ConstraintList()
    for number, block, worker in copies:
        for variable in users[number, block, worker, 0]:
            model.residency.add(variable <= model.resident[number, block, worker])
    model.activation = pyo.Constraint(
        copies,
        rule=lambda _, number, block, worker: (
            model.largest_mib[worker]
            >= problem.activation_bytes[number][block] / 2**20 * model.resident[number, block, worker]
        ),
    )
    model.memory = pyo.Constraint(
        workers,
        rule=lambda _, worker: (
            _sum(
                problem.weight_bytes[number][block] / 2**20 * model.resident[number, block, worker]
                for number, block, where in copies
                if where == worker
            )
            + model.largest_mib[worker]
            <= problem.memory_bytes[worker] / 2**20 + model.lack_mib[worker]
        ),
    )


def _add_promises(problem: Problem, model: Any) -> None:
    """Deadlines, as far as pure work and transfers go, and least accuracies."""
    unloaded: list[list[Any]] = [[] for _ in problem.demands]
    for variable, source, arc in model.arcs:
        unloaded[source].append(arc.unloaded_s * variable)
    model.unloaded_s = [_sum(own) for own in unloaded]
    model.deadline = pyo.Constraint(
        [source for source, demand in enumerate(problem.demands) if np.isfinite(demand.deadline_s)],
        rule=lambda _, source: model.unloaded_s[source] <= problem.demands[source].deadline_s + model.late_s[source],
    )
    model.accuracy = pyo.Constraint(
        [source for source, demand in enumerate(problem.demands) if demand.min_accuracy > 0],
        rule=lambda _, source: (
            _sum(
                problem.variants[variant].accuracy * model.chosen[source, variant]
                for variant in problem.demands[source].variants
            )
            >= problem.demands[source].min_accuracy - model.inaccuracy[source]
        ),
    )


def _add_visits(problem: Problem, model: Any) -> None:
    """No source begins a stage at a worker more often than ``max_visits``."""
    begun: dict[tuple[int, int], list[Any]] = {}
    for variable, source, arc in model.arcs:
        if arc.block == 0 or arc.sender != arc.worker:
            begun.setdefault((source, arc.worker), []).append(variable)
    model.visits = pyo.Constraint(
        sorted(begun), rule=lambda _, source, worker: _sum(begun[source, worker]) <= problem.max_visits
    )


def _add_delay(problem: Problem, model: Any) -> None:
    """Σ_k (p_(k) − p_(k+1)) G(σ_k) by tangents, latency and accuracy lost."""
    model.number = pyo.Var(model.sigma.index_set(), domain=pyo.NonNegativeReals)
    model.congestion = pyo.ConstraintList()
    tangents = [(point, *_tangent(problem, point)) for point in FIRST_TANGENTS]
    for key in model.sigma:
        for point, value, slope in tangents:
            model.congestion.add(model.number[key] >= value + slope * (model.sigma[key] - point))
    fixed = [_fixed_cost(problem, source, arc) * variable for variable, source, arc in model.arcs]
    for (source, variant), variable in model.chosen.items():
        demand = problem.demands[source]
        lost_s = problem.loss_s * (1 - problem.variants[variant].accuracy)
        fixed.append(demand.priority * demand.volume * lost_s * variable)
    queued = [float(problem.classes.weight[key[0]]) * variable for key, variable in model.number.items()]
    model.objective = pyo.Objective(expr=_sum(fixed) + _sum(queued))


def _fixed_cost(problem: Problem, source: int, arc: Arc) -> float:
    demand = problem.demands[source]
    return demand.priority * demand.volume * arc.latency_s


def _tangent(problem: Problem, point: float) -> tuple[float, float]:
    """Give value and slope of the congestion at a utilisation."""
    at = np.array(point)
    return float(congestion(at, problem.kappa)), float(congestion_slope(at, problem.kappa))


def add_tangents(problem: Problem, model: Any, program: ModelProgram) -> bool:
    """Add a tangent wherever the present solution lies too far under G; whether there was any such place."""
    if problem.goal != "delay":
        return False
    added = False
    for key, variable in model.sigma.items():
        sigma = min(max(variable.value, 0.0), problem.cap)
        value, slope = _tangent(problem, sigma)
        if value - model.number[key].value > TANGENT_ERROR * max(value, 1e-6):
            program.add_at_least([(model.number[key], 1.0), (variable, -slope)], value - slope * sigma)
            added = True
    return added


def _add_throughput(_: Problem, model: Any) -> None:
    """Add the largest utilisation."""
    _add_bottleneck(model)
    model.objective = pyo.Objective(expr=model.largest)


def _add_makespan(problem: Problem, model: Any) -> None:
    """Add the largest resource's work and the longest unloaded route."""
    _add_bottleneck(model)
    model.longest_s = pyo.Var(domain=pyo.NonNegativeReals)
    model.longest = pyo.Constraint(
        range(len(problem.demands)), rule=lambda _, source: model.longest_s >= model.unloaded_s[source]
    )
    model.objective = pyo.Objective(expr=model.largest + model.longest_s)


def _add_bottleneck(model: Any) -> None:
    model.largest = pyo.Var(domain=pyo.NonNegativeReals)
    last = max(level for level, _ in model.sigma)
    model.bottleneck = pyo.Constraint(
        sorted({resource for _, resource in model.sigma}),
        rule=lambda _, resource: model.largest >= model.sigma[last, resource],
    )


def _sum(terms: Any) -> Any:
    return pyo.quicksum(terms)
