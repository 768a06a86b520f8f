"""Deadlines that queueing breaks: solve again with tighter ones, and more weight for late sources."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from planner.scenario.instance import Instance
from planner.solvers.core.problem import Problem
from planner.solvers.core.search_state import Options, Outcome
from planner.solvers.ranking import Candidate, Rank, best_candidate

MAX_TIGHTENINGS = 4
"""Maximum number of times that deadlines are tightened because queueing makes a plan late."""
LATE_WEIGHT = 4.0
"""Factor on the priority of late sources each time, in the solver's objective only."""


def meet_deadlines(
    instance: Instance,
    problem: Problem,
    best: Candidate,
    *,
    rank: Rank,
    method_solve: Callable[[Problem, Options], Outcome],
    options: Options,
) -> Candidate:
    """Solve again with tighter deadlines while queueing makes sources late; return the best candidate.

    Late sources also weigh more in the objective. Where no plan keeps the tighter deadlines, that alone has to do.
    """
    first = problem
    for _ in range(MAX_TIGHTENINGS):
        if not best.late or options.deadline.passed:
            break
        problem = _tighten(problem, best)
        again = best_candidate(instance, problem, method_solve(problem, options), rank, options)
        if again is None and problem.demands != first.demands:
            relaxed = zip(problem.demands, first.demands, strict=True)
            demands = tuple(dataclasses.replace(demand, deadline_s=own.deadline_s) for demand, own in relaxed)
            problem = dataclasses.replace(problem, demands=demands)
            again = best_candidate(instance, problem, method_solve(problem, options), rank, options)
        if again is None:
            break
        best = min(best, again, key=lambda candidate: candidate.lateness)
    return best


def _tighten(problem: Problem, best: Candidate) -> Problem:
    """Return the problem with tighter deadlines and more weight for late sources.

    Deadlines are tightened in proportion to the evaluated time over its limit.
    """
    return dataclasses.replace(
        problem,
        demands=tuple(
            dataclasses.replace(
                demand,
                priority=demand.priority * LATE_WEIGHT,
                deadline_s=min(demand.deadline_s, _unloaded_s(problem, source, best)) * best.late[demand.name].ratio,
            )
            if demand.name in best.late
            else demand
            for source, demand in enumerate(problem.demands)
        ),
    )


def _unloaded_s(problem: Problem, source: int, best: Candidate) -> float:
    return sum(choice.share * problem.cost(source, choice).unloaded_s for choice in best.choices[source])
