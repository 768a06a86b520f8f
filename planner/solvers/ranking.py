"""Evaluate the incumbents of a method, and choose among them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from planner.errors import SolveError
from planner.plan.evaluate import Evaluation, evaluate
from planner.plan.journey import Journeys
from planner.scenario.instance import Instance
from planner.solvers.core.infeasibility import late
from planner.solvers.core.problem import Choice, Choices, Problem
from planner.solvers.core.search_state import Options, Outcome

MAX_EVALUATED = 6
"""Maximum number of incumbents that are evaluated and ranked, those with the best surrogate objective."""

Rank = Literal["evaluated", "surrogate"]


@dataclass(frozen=True)
class Candidate:
    """An evaluated incumbent, and the deadlines in seconds that it misses because of queueing, by source."""

    choices: Choices
    evaluation: Evaluation
    late: dict[str, float]

    def missed_deadlines(self) -> tuple[str, ...]:
        """Return one sentence per missed deadline."""
        return tuple(
            late(name, self.evaluation.sources[name].delay_s, deadline_s) for name, deadline_s in self.late.items()
        )


def check_rank(rank: str) -> None:
    """Raise an error unless a ranking exists.

    Raises
    ------
    SolveError
        ``rank`` is not one of :data:`Rank`.
    """
    if rank not in get_args(Rank):
        raise SolveError("unknown ranking", where="rank", value=rank, expected=" or ".join(get_args(Rank)))


def best_candidate(
    instance: Instance, problem: Problem, outcome: Outcome, rank: Rank, options: Options
) -> Candidate | None:
    """Return the incumbent that misses the fewest deadlines, and of these the best by ``rank``; None without one.

    The plan to start from competes as well, however poor its objective is, and so do feasible known plans where the
    evaluated delay ranks them. After the deadline only the plan to start from and the incumbent with the best objective
    are evaluated.
    """
    by_delay = rank == "evaluated" and instance.scenario.objective.goal == "delay"
    best = sorted(outcome.incumbents, key=problem.objective)
    known = set(options.known) if by_delay else set()
    started = [choices for choices in best[1:] if choices in options.start]
    rivals = [choices for choices in best[MAX_EVALUATED:] if choices in known]
    journeys = Journeys(instance)
    candidates: list[Candidate] = []
    first = (*best[:1], *started)
    for number, choices in enumerate(dict.fromkeys((*first, *best[:MAX_EVALUATED], *rivals)), start=1):
        candidates.append(_candidate(journeys, instance, problem, _with_unreached_at_home(problem, choices)))
        decided = not by_delay and not candidates[-1].late  # the others have worse objectives
        if decided or (options.deadline.passed and number >= len(first)):
            break
    return min(
        candidates, key=lambda candidate: (len(candidate.late), *_rank(candidate, by_delay=by_delay)), default=None
    )


def _with_unreached_at_home(problem: Problem, choices: Choices) -> Choices:
    """Return the routes with blocks that no sample reaches at the source's worker, if they fit there."""
    by_source = []
    for routes, demand in zip(choices, problem.demands, strict=True):
        share: dict[tuple[int, tuple[int, ...]], float] = {}
        for choice in routes:
            reached = problem.variants[choice.variant].reach[:-1] > 0
            workers = tuple(np.where(reached, choice.workers, demand.home).tolist())
            share[choice.variant, workers] = share.get((choice.variant, workers), 0.0) + choice.share
        by_source.append(tuple(Choice(*route, part) for route, part in share.items()))
    moved = tuple(by_source)
    return moved if moved == choices or problem.feasible(moved) else choices


def _candidate(journeys: Journeys, instance: Instance, problem: Problem, choices: Choices) -> Candidate:
    evaluation = evaluate(instance, problem.routes(choices), journeys)
    deadlines = {name: spec.deadline_s for name, spec in instance.scenario.sources.items()}
    late = {
        name: deadline_s
        for name, deadline_s in deadlines.items()
        if deadline_s is not None and evaluation.sources[name].delay_s > deadline_s
    }
    return Candidate(choices, evaluation, late)


def _rank(candidate: Candidate, *, by_delay: bool) -> tuple[float, float]:
    objective, delay = candidate.evaluation.objective, candidate.evaluation.weighted_delay_s
    return (delay, objective) if by_delay else (objective, delay)
