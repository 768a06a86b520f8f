"""The mixed-integer program of one route per source, as a Pyomo model.

Binary ``runs`` is 1 if a worker runs a block; ``stay`` and ``move`` join consecutive blocks (they are integral when
``runs`` is). Tangents bound the convex congestion G from below. They are added at each solution until
(G − tangent) / G ≤ 1e-6, so the solver's lower bound is always one on the surrogate objective.

Utilisations, numbers of samples and the objective are in the units of a :class:`~planner.solvers.core.scale.Scale`,
delays relative to their deadlines.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyomo.environ as pyo

from planner.plan.surrogate import congestion, congestion_slope
from planner.solvers.core.deadline import Deadline
from planner.solvers.core.problem import Choice, Choices, Problem
from planner.solvers.core.scale import MemoryUnit, Scale, ratio
from planner.solvers.methods.mip.equations import describe
from planner.solvers.methods.mip.program import ModelProgram
from planner.solvers.routes.arcs import Arc, move_arcs, node_arcs

FIRST_TANGENTS = (0.0, 0.3, 0.5, 0.65, 0.75, 0.85, 0.9, 0.95)
"""Utilisations at which G has a tangent from the start; closer together where G is steep."""
TANGENT_ERRORS = (1e-9, 1e-6)
"""Least and largest relative error of G from which a tangent is added; within them it depends on the gap."""
TOLERANCES = {"mip_feasibility_tolerance": 1e-9, "primal_feasibility_tolerance": 1e-9}
"""HiGHS settings tight enough for limits in seconds, whose values are as small as milliseconds."""

Key = tuple[int, int, int, int]
"""Source, variant, block, worker."""


def build_model(
    problem: Problem, *, scale: Scale | None = None, elastic: bool = False, deadline: Deadline | None = None
) -> Any:
    """Return the Pyomo model; an ``elastic`` one has slacks for its limits and no objective yet.

    Raises
    ------
    Expired
        The deadline has passed.
    """
    model = pyo.ConcreteModel()
    model.scale, model.until = scale or Scale(), deadline or Deadline()
    _add_routes(problem, model, elastic=elastic)
    _add_slacks(problem, model, elastic=elastic)
    _add_loads(problem, model)
    _add_memory(problem, model)
    _add_source_limits(problem, model)
    if problem.max_visits is not None:
        _add_visits(problem, model)
    if not elastic:
        {"delay": _add_delay, "throughput": _add_throughput, "makespan": _add_makespan, "energy": _add_energy}[
            problem.goal
        ](problem, model)
    describe(model, problem.goal)
    return model


def forget_constraints(model: Any) -> None:
    """Free the memory of the constraints, which HiGHS holds as well: most of the model."""
    model.arcs = ()
    for constraint in list(model.component_objects(pyo.Constraint)):
        model.del_component(constraint)


def read_choices(problem: Problem, model: Any) -> Choices:
    """Return the routes of the model's present solution."""
    assigned: list[list[tuple[int, int, int]]] = [[] for _ in problem.demands]
    for (source, variant, block, worker), variable in model.runs.items():
        if variable.value > 0.5:
            assigned[source].append((variant, block, worker))
    return tuple((Choice(nodes[0][0], tuple(worker for _, _, worker in sorted(nodes))),) for nodes in assigned)


def write_choices(model: Any, choices: Choices) -> None:
    """Set the binaries to the values of routes; HiGHS derives those of all other variables."""
    routes = {(source, choice.variant): choice.workers for source, (choice,) in enumerate(choices)}
    for pair, variable in model.chosen.items():
        variable.set_value(float(pair in routes))
    for (source, variant, block, worker), variable in model.runs.items():
        on_route = (source, variant) in routes and routes[source, variant][block] == worker
        variable.set_value(float(on_route))


def _add_routes(problem: Problem, model: Any, *, elastic: bool) -> None:
    """Add one path per source through the layered graph of one of its variants.

    Unless the model is ``elastic``, it lacks arcs that alone exceed a limit.
    """
    pairs = [(source, variant) for source, demand in enumerate(problem.demands) for variant in demand.variants]
    nodes = {
        (*pair, arc.block, arc.worker): arc
        for pair in pairs
        for arc in model.until.watch(node_arcs(problem, *pair))
        if elastic or (_within_limits(problem, pair[0], arc) and _fits(problem, pair[1], arc))
    }
    moves = {
        (*pair, arc.block, arc.sender, arc.worker): arc
        for pair in pairs
        for arc in model.until.watch(move_arcs(problem, *pair))
        if {(*pair, arc.block - 1, arc.sender), (*pair, arc.block, arc.worker)} <= nodes.keys()
        and (elastic or _within_limits(problem, pair[0], arc))
    }
    stays = [key for key in nodes if key[2] > 0 and (*key[:2], key[2] - 1, key[3]) in nodes]
    model.runs = pyo.Var(list(nodes), domain=pyo.Binary)
    model.stay = pyo.Var(stays, domain=pyo.NonNegativeReals)
    model.move = pyo.Var(list(moves), domain=pyo.NonNegativeReals)
    model.arcs = [(model.runs[key], key[0], arc) for key, arc in nodes.items()]
    model.arcs += [(model.move[key], key[0], arc) for key, arc in moves.items()]
    into: dict[Key, list[Any]] = {key: [model.stay[key]] if key in model.stay else [] for key in nodes}
    out: dict[Key, list[Any]] = {key: [] for key in nodes}
    for source, variant, block, sender, worker in model.until.watch(moves):
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
    model.first_block = pyo.Constraint(
        pairs,
        rule=lambda _, *pair: (
            model.chosen[pair] == _sum(model.runs[key] for key in nodes if key[:2] == pair and key[2] == 0)
        ),
    )
    model.inflow = pyo.Constraint(
        [key for key in nodes if key[2] > 0], rule=lambda _, *key: model.runs[key] == _sum(into[key])
    )
    model.outflow = pyo.Constraint(
        [key for key in nodes if key[2] < len(problem.variants[key[1]]) - 1],
        rule=lambda _, *key: model.runs[key] == _sum(out[key]),
    )


def _within_limits(problem: Problem, source: int, arc: Arc) -> bool:
    """Return whether an arc alone keeps to the cap and to the deadline of its source."""
    demand = problem.demands[source]
    fits = all(seconds * demand.volume <= problem.caps[used] * (1 + 1e-9) for used, seconds in arc.seconds)
    return fits and arc.unloaded_s <= demand.deadline_s * (1 + 1e-6)


def _fits(problem: Problem, variant: int, arc: Arc) -> bool:
    """Return whether the block of a node fits alone into the memory of its worker."""
    model = problem.variants[variant].model
    needed = problem.weight_bytes[model][arc.block, arc.worker] + problem.activation_bytes[model][arc.block, arc.worker]
    return bool(needed <= problem.memory_bytes[arc.worker])


def _add_slacks(problem: Problem, model: Any, *, elastic: bool) -> None:
    """Add the slacks by which limits are relaxed, fixed at 0 unless the model is ``elastic``."""
    upper = None if elastic else 0.0
    workers, sources = range(len(problem.workers)), range(len(problem.demands))
    model.overload = pyo.Var(range(len(problem.resources)), bounds=(0, upper))
    model.lack = pyo.Var(workers, bounds=(0, upper))
    model.late = pyo.Var(sources, bounds=(0, upper))
    model.inaccuracy = pyo.Var(sources, bounds=(0, upper))


def _add_loads(problem: Problem, model: Any) -> None:
    """Add the utilisation of each resource by the classes 1..k, at most the cap."""
    classes, scale = problem.classes, model.scale
    terms: dict[tuple[int, int], list[Any]] = {}
    for variable, source, arc in model.until.watch(model.arcs):
        for resource, seconds in arc.seconds:
            amount = scale.loads(seconds * problem.demands[source].volume)
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
            rule=lambda _, resource: (
                model.sigma[levels[-1], resource] <= problem.caps[resource] / scale.load + model.overload[resource]
            ),
        )


def _add_memory(problem: Problem, model: Any) -> None:
    """Add the memory limits: one copy of each block for all sources, plus the largest activation."""
    if not problem.memory_binds:
        return
    users: dict[tuple[int, int, int], list[Any]] = {}
    for (_, variant, block, worker), variable in model.runs.items():
        users.setdefault((problem.variants[variant].model, block, worker), []).append(variable)
    copies = sorted(users)
    workers = range(len(problem.workers))
    units = [MemoryUnit.of(float(room_bytes)) for room_bytes in problem.memory_bytes]
    model.resident = pyo.Var(copies, bounds=(0, 1))
    model.largest_activation = pyo.Var(workers, domain=pyo.NonNegativeReals)
    model.residency = pyo.ConstraintList()
    for model_index, block, worker in model.until.watch(copies):
        for variable in users[model_index, block, worker]:
            model.residency.add(variable <= model.resident[model_index, block, worker])
    model.activation = pyo.Constraint(
        copies,
        rule=lambda _, model_index, block, worker: (
            model.largest_activation[worker]
            >= units[worker].size(float(problem.activation_bytes[model_index][block, worker]))
            * model.resident[model_index, block, worker]
        ),
    )
    model.memory = pyo.Constraint(
        workers,
        rule=lambda _, worker: (
            _sum(
                units[worker].size(float(problem.weight_bytes[model_index][block, worker]))
                * model.resident[model_index, block, worker]
                for model_index, block, holder in copies
                if holder == worker
            )
            + model.largest_activation[worker]
            <= units[worker].room + model.lack[worker]
        ),
    )


def _add_source_limits(problem: Problem, model: Any) -> None:
    """Add deadlines, which count work and transfers without waiting, and minimum accuracies."""
    unloaded: list[list[Any]] = [[] for _ in problem.demands]
    for variable, source, arc in model.until.watch(model.arcs):
        unloaded[source].append(ratio(arc.unloaded_s, problem.demands[source].deadline_s) * variable)
    model.deadline = pyo.Constraint(
        [source for source, demand in enumerate(problem.demands) if np.isfinite(demand.deadline_s)],
        rule=lambda _, source: _sum(unloaded[source]) <= 1 + model.late[source],
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
    """Add the limit ``max_visits`` on the stages of each source at each worker."""
    stages: dict[tuple[int, int], list[Any]] = {}
    for variable, source, arc in model.until.watch(model.arcs):
        if arc.block == 0 or arc.sender != arc.worker:
            stages.setdefault((source, arc.worker), []).append(variable)
    model.visits = pyo.Constraint(
        sorted(stages), rule=lambda _, source, worker: _sum(stages[source, worker]) <= problem.max_visits
    )


def _add_delay(problem: Problem, model: Any) -> None:
    """Add the objective Σ_k (p_(k) − p_(k+1)) G(σ_k), by tangents, plus latency and lost accuracy."""
    scale = model.scale
    model.mean_number = pyo.Var(model.sigma.index_set(), domain=pyo.NonNegativeReals)
    model.congestion = pyo.ConstraintList()
    tangents = [(point, *_tangent(problem, point)) for point in FIRST_TANGENTS]
    for key in model.until.watch(model.sigma):
        for point, value, slope in tangents:
            least = (value - slope * point) / scale.load
            model.congestion.add(model.mean_number[key] >= least + slope * model.sigma[key])
    arcs = model.until.watch(model.arcs)
    fixed = [scale.costs(_fixed_cost(problem, source, arc)) * variable for variable, source, arc in arcs]
    for (source, variant), variable in model.chosen.items():
        demand = problem.demands[source]
        lost_s = problem.loss_s * (1 - problem.variants[variant].accuracy)
        fixed.append(scale.costs(demand.priority * demand.volume * lost_s) * variable)
    unit = scale.load / scale.objective
    queued = [unit * float(problem.classes.weight[key[0]]) * variable for key, variable in model.mean_number.items()]
    model.objective = pyo.Objective(expr=_sum(fixed) + _sum(queued))


def _fixed_cost(problem: Problem, source: int, arc: Arc) -> float:
    demand = problem.demands[source]
    return demand.priority * demand.volume * arc.latency_s


def _tangent(problem: Problem, point: float) -> tuple[float, float]:
    """Return value and slope of the congestion at a utilisation."""
    sigma = np.array(point)
    return float(congestion(sigma, problem.kappa)), float(congestion_slope(sigma, problem.kappa))


def add_tangents(problem: Problem, model: Any, program: ModelProgram, gap: float) -> bool:
    """Add a tangent wherever the present solution is too far below G for a ``gap``; return whether any was added."""
    if problem.goal != "delay":
        return False
    added, unit = False, model.scale.load
    error = float(np.clip(gap / 4, *TANGENT_ERRORS))
    for key, variable in model.sigma.items():
        sigma = min(max(variable.value * unit, 0.0), problem.caps[key[1]])
        value, slope = _tangent(problem, sigma)
        if value - model.mean_number[key].value * unit > error * max(value, 1e-6 * unit):
            program.add_at_least([(model.mean_number[key], 1.0), (variable, -slope)], (value - slope * sigma) / unit)
            added = True
    return added


def _add_energy(problem: Problem, model: Any) -> None:
    """Add the objective: the average power of the workers."""
    last, unit = len(problem.classes.weight) - 1, model.scale.load / model.scale.objective
    terms = [unit * problem.watts[index] * sigma for (level, index), sigma in model.sigma.items() if level == last]
    model.objective = pyo.Objective(expr=problem.idle_w / model.scale.objective + _sum(terms))


def _add_throughput(problem: Problem, model: Any) -> None:
    """Add the objective: the largest utilisation relative to the share that may be used."""
    _add_bottleneck(problem, model)
    model.objective = pyo.Objective(expr=model.largest)


def _add_makespan(problem: Problem, model: Any) -> None:
    """Add the objective: the work of the busiest resource plus the longest unloaded delay."""
    _add_bottleneck(problem, model)
    model.longest_delay = pyo.Var(domain=pyo.NonNegativeReals)
    delays: list[list[Any]] = [[] for _ in problem.demands]
    for variable, source, arc in model.until.watch(model.arcs):
        delays[source].append(model.scale.costs(arc.unloaded_s) * variable)
    model.longest = pyo.Constraint(
        range(len(problem.demands)), rule=lambda _, source: model.longest_delay >= _sum(delays[source])
    )
    model.objective = pyo.Objective(expr=model.largest + model.longest_delay)


def _add_bottleneck(problem: Problem, model: Any) -> None:
    model.largest = pyo.Var(domain=pyo.NonNegativeReals)
    last = max((level for level, _ in model.sigma), default=0)
    model.bottleneck = pyo.Constraint(
        sorted({resource for _, resource in model.sigma}),
        rule=lambda _, resource: problem.usable[resource] * model.largest >= model.sigma[last, resource],
    )


def _sum(terms: Any) -> Any:
    return pyo.quicksum(terms)
