"""Exhaustive search over all combinations of routes, for tiny instances: the reference in tests."""

from __future__ import annotations

import itertools
import math

from planner.errors import SolveError
from planner.solvers.core.problem import Choice, Problem
from planner.solvers.core.search_state import Options, Outcome, Search
from planner.solvers.methods.explanation import infeasible

MAX_COMBINATIONS = 2_000_000
"""More would take many minutes."""


def solve(problem: Problem, options: Options) -> Outcome:
    """Minimise the surrogate objective over one route per source by trying all combinations.

    Raises
    ------
    SolveError
        There are more than :data:`MAX_COMBINATIONS` combinations.
    """
    search = Search(problem, options)
    count = math.prod(
        sum(math.prod(problem.runs(source, variant).sum(axis=1).tolist()) for variant in demand.variants)
        for source, demand in enumerate(problem.demands)
    )
    if count > MAX_COMBINATIONS:
        raise SolveError(
            "too many routes to try all", where="method exhaustive", value=count, expected="milp or search"
        )
    routes = [_routes(problem, source) for source in range(len(problem.demands))]
    best = float("inf")
    for combination in itertools.product(*routes):
        if search.out_of_time:
            return search.outcome()
        choices = tuple((choice,) for choice in combination)
        objective = problem.objective(choices)
        if objective < best and problem.feasible(choices):
            best = objective
            search.offer(choices)
    if not search.incumbents:
        return infeasible(problem, options)
    search.raise_bound(search.best)
    return search.outcome()


def _routes(problem: Problem, source: int) -> list[Choice]:
    """Return all routes of a source that have paths."""
    routes = []
    for variant in problem.demands[source].variants:
        allowed = [row.nonzero()[0].tolist() for row in problem.runs(source, variant)]
        for workers in itertools.product(*allowed):
            linked = all(problem.latency_s[pair] < float("inf") for pair in itertools.pairwise(workers))
            if linked:
                routes.append(Choice(variant, workers))
    return routes
