"""One route per source by mixed-integer programming (Pyomo and HiGHS): the reference for the other methods."""

from __future__ import annotations

import dataclasses

import numpy as np

from planner.solvers.core.deadline import Expired
from planner.solvers.core.infeasibility import explain_infeasibility, tried
from planner.solvers.core.problem import Choices, Problem
from planner.solvers.core.room import largest_load_bound
from planner.solvers.core.scale import Scale
from planner.solvers.core.search_state import Options, Outcome, Search
from planner.solvers.methods.mip.elastic import relaxations
from planner.solvers.methods.mip.model import (
    TOLERANCES,
    add_tangents,
    build_model,
    forget_constraints,
    read_choices,
    write_choices,
)
from planner.solvers.methods.mip.program import ModelProgram
from planner.solvers.routes.best_response import BestResponse
from planner.solvers.routes.greedy import greedy_rounds
from planner.solvers.routes.pricing import unroutable

GREEDY_ROUNDS = 3
MAX_PERTURBATIONS = 20
WARM_START_FRACTION = 0.1
"""Fraction of the time limit after which the warm start is perturbed no further."""
BUILD_FRACTION = 0.85
"""Fraction of the time left in which the program must be ready: Python frees one that is not in up to a sixth of the
time that it took to build, without looking at the deadline."""


def solve(problem: Problem, options: Options) -> Outcome:
    """Minimise the surrogate objective over one route per source."""
    search = Search(problem, options)
    try:
        return _solve(search)
    except Expired:
        return search.outcome()


def _solve(search: Search) -> Outcome:
    problem, options = search.problem, search.options
    scale = Scale()
    if not unroutable(problem):
        scale = Scale.of(problem, _find_warm_start(search))
        if problem.memory_binds and problem.goal in {"throughput", "makespan"}:
            search.raise_bound(largest_load_bound(problem, search.best, lambda: search.out_of_time))
    built_by = options.deadline.within(BUILD_FRACTION * options.deadline.left_s)
    model = build_model(problem, scale=scale, deadline=built_by)
    settings = {"random_seed": options.seed, "mip_rel_gap": options.gap / 2, **TOLERANCES}
    program = ModelProgram(
        model, threads=options.threads, deadline=options.deadline, built_by=built_by, settings=settings
    )
    forget_constraints(model)
    if search.incumbents:
        write_choices(model, min(search.incumbents, key=lambda choices: search.incumbents[choices]))
        program.start_from_values()
    while True:
        result = program.run()
        if result.end == "infeasible":
            return Outcome("infeasible", reasons=explain_infeasibility(problem, relaxations(problem, options)))
        if np.isfinite(result.bound):
            search.raise_bound(result.bound * scale.objective)
        if result.values is None:
            break
        search.offer(read_choices(problem, model))
        if search.gap <= options.gap or search.out_of_time or not add_tangents(problem, model, program, options.gap):
            break
        program.start_from_values()
    outcome = search.outcome()
    return outcome if search.incumbents else dataclasses.replace(outcome, reasons=tried(problem, options.time_limit_s))


def _find_warm_start(search: Search) -> Choices:
    """Look for incumbents by best response, because HiGHS alone may take long to find its first; return good routes."""
    random = np.random.default_rng(search.options.seed)
    responses = BestResponse(search)
    responses.fill()
    last: Choices = ()
    for choices in greedy_rounds(search.problem, GREEDY_ROUNDS, deadline=search.options.deadline):
        search.offer(choices)
        last = responses.improve(choices)
    for _ in range(MAX_PERTURBATIONS):
        if search.out_of_time or search.elapsed_s > search.options.time_limit_s * WARM_START_FRACTION:
            break
        responses.perturb(random)
    return min(search.incumbents, key=lambda choices: search.incumbents[choices], default=last)
