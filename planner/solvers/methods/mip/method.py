"""One route a source by mixed-integer programming: Pyomo and HiGHS, the reference of the other methods."""

from __future__ import annotations

import numpy as np

from planner.solvers.core.infeasibility import explain_infeasibility
from planner.solvers.core.problem import Problem
from planner.solvers.core.search_state import Options, Outcome, Search
from planner.solvers.methods.mip.elastic import relaxations
from planner.solvers.methods.mip.model import TIGHT, add_tangents, build_model, read_choices, write_choices
from planner.solvers.methods.mip.program import ModelProgram
from planner.solvers.routes.best_response import Replies
from planner.solvers.routes.greedy import greedy_rounds
from planner.solvers.routes.pricing import unroutable

GREEDY_ROUNDS, SHAKES = 3, 20
BEGINNING = 0.1
"""Part of the time limit after which the first plan is shaken no more."""


def solve(problem: Problem, options: Options) -> Outcome:
    """Minimise the surrogate objective over one route a source."""
    search = Search(problem, options)
    if not unroutable(problem):
        _begin(search)
    model = build_model(problem)
    settings = {"random_seed": options.seed, "mip_rel_gap": options.gap / 2, **TIGHT}
    program = ModelProgram(model, threads=options.threads, stop=options.stop, settings=settings)
    if search.incumbents:
        write_choices(model, min(search.incumbents, key=lambda choices: search.incumbents[choices]))
        program.start_from_values()
    while True:
        answer = program.run(search.left_s)
        if answer.end == "infeasible":
            return Outcome("infeasible", blame=explain_infeasibility(problem, lambda: relaxations(problem, options)))
        if np.isfinite(answer.bound):
            search.raise_bound(answer.bound)
        if answer.values is None:
            break
        search.offer(read_choices(problem, model))
        if search.gap <= options.gap or search.out_of_time or not add_tangents(problem, model, program):
            break
        program.start_from_values()
    return search.outcome()


def _begin(search: Search) -> None:
    """Look for a plan to start from: HiGHS may find none of its own for long."""
    random = np.random.default_rng(search.options.seed)
    replies = Replies(search)
    for choices in greedy_rounds(search.problem, GREEDY_ROUNDS):
        search.offer(choices)
        replies.improve(choices)
    for _ in range(SHAKES):
        if search.left_s < search.options.time_limit_s * (1 - BEGINNING):
            break
        replies.shake(random)
