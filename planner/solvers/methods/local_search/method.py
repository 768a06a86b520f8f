"""One route a source on large instances: best replies by dynamic programming over stages, and a bound that fits them.

Incumbents: each source in turn takes its best route beside the others' loads, exactly priced, until none can gain; then
a few sources are taken out and put back in another order, for as long as time is left.

Bound: for the goal ``delay`` prices of loads take routes and resources apart
(:mod:`planner.solvers.methods.local_search.lagrangian`), and the routes that answer the prices are improved to
incumbents, too. For the other goals it is the bound of shared routes, whose widest ones are improved.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from planner.plan.types import Status
from planner.solvers.core.infeasibility import Relaxations, explain_infeasibility, misses
from planner.solvers.core.problem import Choices, Problem
from planner.solvers.core.search_state import Options, Outcome, Search
from planner.solvers.methods.column_generation import method as colgen
from planner.solvers.methods.column_generation.method import ELASTIC_ARCS
from planner.solvers.methods.local_search.subgradient import Subgradient
from planner.solvers.methods.memory import no_room
from planner.solvers.routes.best_response import Replies
from planner.solvers.routes.greedy import greedy_rounds
from planner.solvers.routes.pricing import unroutable

GREEDY_ROUNDS = 3
SHAKES, IDLE_SHAKES = 50, 500
"""Shakes between two rounds of climbing, and how many in a row without a gain end the search."""
CLIMBS = 400
"""Steps of the multipliers between two rounds of the search."""
TRY_EVERY = 5
"""In about so many steps the routes that answer the multipliers are once improved to an incumbent."""
SHARED_TIME = 0.3
"""Part of the time limit that sharing may take."""
BLAME_S = 5.0
"""Time that looking for the least relaxations may take, twice."""


def solve(problem: Problem, options: Options) -> Outcome:
    """Look for the best one route a source, and prove how good it is."""
    asked = problem
    problem, inaccurate = _accurate(asked)
    if inaccurate:
        return Outcome("infeasible", blame=_blame(asked, options, explain_infeasibility(asked, lambda: inaccurate)))
    if unroutable(problem):
        return Outcome("infeasible", blame=explain_infeasibility(problem, dict))
    search = Search(problem, options)
    replies = Replies(search)
    near: Choices = ()
    for choices in greedy_rounds(problem, GREEDY_ROUNDS):
        search.offer(choices)
        near = replies.improve(choices)
    if problem.goal != "delay" or not search.incumbents:
        shared = _share(replies)
        if shared.status == "infeasible":
            return Outcome("infeasible", blame=_blame(problem, options, shared.blame))
    _look(replies)
    if not search.incumbents:
        found = misses(problem, near)
        status: Status = "infeasible" if no_room(problem, options) else "no_solution"
        return Outcome(status, bound=search.bound, blame=_blame(problem, options, found))
    return search.outcome()


def _blame(problem: Problem, options: Options, otherwise: tuple[str, ...]) -> tuple[str, ...]:
    """Name the least relaxations for one route a source where they can be found."""
    from planner.solvers.methods.mip.elastic import relaxations

    hurried = dataclasses.replace(options, time_limit_s=min(options.time_limit_s, BLAME_S))
    least = relaxations(problem, hurried) if problem.arcs <= ELASTIC_ARCS else None
    return explain_infeasibility(problem, lambda: least) if least else otherwise


def _look(replies: Replies) -> None:
    """Shake and raise the bound in turn, until time is over or nothing is gained."""
    search = replies.search
    random = np.random.default_rng(search.options.seed)
    _shake(replies, random)
    climb = Subgradient(search, replies.staged) if search.problem.goal == "delay" else None
    seen: set[Choices] = set()
    idle = 0
    while not search.out_of_time and search.gap > search.options.gap and idle < IDLE_SHAKES:
        helps = climb is not None and _climb(climb, replies, seen)
        if not helps and not search.incumbents:
            break
        best = search.best
        _shake(replies, random)
        idle = idle + SHAKES if search.best >= best else 0


def _shake(replies: Replies, random: np.random.Generator) -> None:
    """Shake the best incumbent some times."""
    for _ in range(SHAKES):
        if replies.search.out_of_time:
            break
        replies.shake(random)
    replies.search.report()


def _share(replies: Replies) -> Outcome:
    """Take the bound of shared routes, and improve what the widest of each source make together."""
    search = replies.search
    problem, options = search.problem, search.options
    free = dataclasses.replace(problem, memory_bytes=np.full(len(problem.workers), np.inf))
    shared = colgen.solve(
        free, dataclasses.replace(options, time_limit_s=SHARED_TIME * search.left_s, progress=None, start=())
    )
    search.raise_bound(shared.bound)
    for choices in sorted(shared.incumbents, key=problem.objective)[:GREEDY_ROUNDS]:
        widest = [max(own, key=lambda choice: choice.share) for own in choices]
        replies.improve(tuple((dataclasses.replace(choice, share=1.0),) for choice in widest))
    return shared


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


def _climb(climb: Subgradient, replies: Replies, seen: set[Choices]) -> bool:
    """Raise the bound by some steps, and now and then improve the routes that answer the prices; whether to go on."""
    search = climb.search
    for _ in range(CLIMBS):
        if search.out_of_time or climb.stuck or search.gap <= search.options.gap:
            break
        climb.climb()
        if climb.answers not in seen and len(seen) < climb.steps // TRY_EVERY:
            seen.add(climb.answers)
            replies.improve(climb.answers)
    search.raise_bound(climb.last)
    return not climb.stuck
