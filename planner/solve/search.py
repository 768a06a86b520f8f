"""One route a source on large instances: best replies by dynamic programming over stages, and a bound that fits them.

Incumbents: each source in turn takes its best route beside the others' loads, exactly priced, until none can gain; then
a few sources are taken out and put back in another order, for as long as time is left.

Bound: prices of loads take routes and resources apart (:mod:`planner.solve.dual`); the routes that answer the prices
are improved to incumbents, too.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from planner.errors import SolveError
from planner.plan.surrogate import congestion
from planner.solve.blame import Relaxations, blame, missed_limits
from planner.solve.climb import Climb
from planner.solve.greedy import greedy_rounds
from planner.solve.outcome import Options, Outcome, Search
from planner.solve.pricing import unroutable
from planner.solve.problem import Array, Choice, Choices, Integers, Problem
from planner.solve.smooth import KNEE
from planner.solve.staged import StagedRoutes

GREEDY_ROUNDS = 3
SHAKES, IDLE_SHAKES = 50, 500
"""Shakes between two rounds of climbing, and how many in a row without a gain end the search."""
CLIMBS = 400
"""Steps of the multipliers between two rounds of the search."""
TRY_EVERY = 5
"""In about so many steps the routes that answer the multipliers are once improved to an incumbent."""


def solve(problem: Problem, options: Options) -> Outcome:
    """Look for the best one route a source, and prove how good it is.

    Raises
    ------
    SolveError
        The goal is not ``delay``.
    """
    if problem.goal != "delay":
        raise SolveError(
            "this method solves the goal delay", where="method search", value=problem.goal, expected="milp"
        )
    problem, inaccurate = _accurate(problem)
    if inaccurate:
        return Outcome("infeasible", blame=blame(problem, lambda: inaccurate))
    if unroutable(problem):
        return Outcome("infeasible", blame=blame(problem, dict))
    search = Search(problem, options)
    staged = [
        [StagedRoutes.of(problem, source, variant) for variant in demand.variants]
        for source, demand in enumerate(problem.demands)
    ]
    random = np.random.default_rng(options.seed)
    near: Choices = ()
    for choices in greedy_rounds(problem, GREEDY_ROUNDS):
        search.offer(choices)
        near = _improve(search, staged, choices)
    climb = Climb(search, staged)
    seen: set[Choices] = set()
    idle = 0
    while not search.out_of_time and search.gap > options.gap and idle < IDLE_SHAKES:
        _climb(climb, seen)
        for _ in range(SHAKES):
            if search.out_of_time or not search.incumbents:
                break
            best = search.best
            _shake(search, staged, random)
            idle = idle + 1 if search.best >= best else 0
        idle += 0 if search.incumbents or not climb.stuck else IDLE_SHAKES
    if not search.incumbents:
        return Outcome("no_solution", bound=search.bound, blame=blame(problem, lambda: missed_limits(problem, near)))
    return search.outcome()


def _accurate(problem: Problem) -> tuple[Problem, Relaxations]:
    """Leave the sources the variants that are accurate enough; and by how much those miss that have none."""
    demands, missed = [], {}
    for source, demand in enumerate(problem.demands):
        accuracy = {variant: problem.variants[variant].accuracy for variant in demand.variants}
        kept = tuple(variant for variant in demand.variants if accuracy[variant] >= demand.min_accuracy)
        if not kept:
            missed["inaccuracy", source] = demand.min_accuracy - max(accuracy.values())
        demands.append(dataclasses.replace(demand, variants=kept or demand.variants))
    return dataclasses.replace(problem, demands=tuple(demands)), missed


def _climb(climb: Climb, seen: set[Choices]) -> None:
    """Raise the bound by some steps, and now and then improve the routes that answer the prices."""
    search = climb.search
    for _ in range(CLIMBS):
        if search.out_of_time or climb.stuck or search.gap <= search.options.gap:
            break
        climb.climb()
        if climb.answers not in seen and len(seen) < climb.steps // TRY_EVERY:
            seen.add(climb.answers)
            _improve(search, climb.dual.staged, climb.answers)
    search.raise_bound(climb.last)


def _improve(search: Search, staged: list[list[StagedRoutes]], choices: Choices) -> Choices:
    """Let the sources take their best replies in turn until none gains."""
    problem = search.problem
    load = problem.load(choices)
    current, value = list(choices), problem.objective(choices)
    source, settled = 0, 0
    while settled < len(current) and not search.out_of_time:
        kept, own = current[source], load[source].copy()
        load[source] = 0.0
        current[source] = (_reply(problem, staged[source], load),)
        now = problem.objective(tuple(current)) if current[source] != kept else value
        if now < value * (1 - 1e-9):
            value, settled = now, 1
            cost = problem.cost(source, current[source][0])
            load[source, cost.resources] = problem.demands[source].volume * cost.seconds
        else:
            current[source], load[source] = kept, own
            settled += 1
        source = (source + 1) % len(current)
    search.offer(tuple(current))
    return tuple(current)


def _reply(problem: Problem, routes: list[StagedRoutes], load: Array, phantom: Array | float = 0.0) -> Choice:
    """Give a source's best route beside the ``load`` of the others [S, R] and a ``phantom`` load of every class [R]."""
    sigma = np.minimum(problem.classes.nested(load) + phantom, KNEE)
    source = routes[0].source
    levels = range(int(problem.classes.of_source[source]), len(problem.classes.weight))
    before = congestion(sigma, problem.kappa)

    def cost(more: Array, resource: Integers) -> Array:
        total = np.zeros(more.shape)
        for level in levels:
            after = sigma[level][resource] + more
            fits = after <= problem.cap
            rise = congestion(np.where(fits, after, 0.0), problem.kappa) - before[level][resource]
            total += np.where(fits, problem.classes.weight[level] * rise, np.where(more > 0, np.inf, 0.0))
        return total

    return min((route.cheapest(cost) for route in routes), key=lambda found: found[0])[1]


def _shake(search: Search, staged: list[list[StagedRoutes]], random: np.random.Generator) -> None:
    """Take a few sources out of the best incumbent, put them back beside loads that are not there, and improve."""
    problem = search.problem
    best = min(search.incumbents, key=lambda choices: search.incumbents[choices])
    count = len(best)
    out = random.permutation(count)[: int(random.integers(1, min(count, 4) + 1))].tolist()
    load = problem.load(best)
    load[out] = 0.0
    current = list(best)
    for source in out:
        phantom = np.zeros(load.shape[1])
        workers = len(problem.workers)
        phantom[:workers] = random.uniform(0.0, 0.8, workers) * random.integers(0, 2, workers)
        current[source] = (_reply(problem, staged[source], load, phantom),)
        cost = problem.cost(source, current[source][0])
        load[source, cost.resources] = problem.demands[source].volume * cost.seconds
    _improve(search, staged, tuple(current))
