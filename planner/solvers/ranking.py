"""Evaluate the incumbents of a method, and choose among them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from planner.errors import SolveError
from planner.plan.evaluate import Evaluation, evaluate
from planner.plan.journey import Journeys
from planner.plan.limits import tail_limits
from planner.plan.loops import other_loops, with_loops
from planner.plan.sessions import choices_of_wait, join_blocks
from planner.scenario.instance import Instance
from planner.solvers.core.deadline import Deadline
from planner.solvers.core.problem import Choice, Choices, Problem
from planner.solvers.core.search_state import Options, Outcome
from planner.solvers.tails import Broken, broken_limits, improved

MAX_EVALUATED = 6
"""Maximum number of incumbents that are evaluated and ranked, those with the best surrogate objective."""

MAX_REFINED = 200
"""Maximum number of plans that are evaluated to refine one by single routes."""

CAP_ROUNDING = 1e-7
"""By how much a utilisation may exceed its cap: sums of floats differ."""

Rank = Literal["evaluated", "surrogate"]


@dataclass(frozen=True)
class Candidate:
    """An evaluated incumbent, and the limits on delay that it breaks because of queueing, by source."""

    choices: Choices
    evaluation: Evaluation
    late: dict[str, Broken]

    def missed_deadlines(self) -> tuple[str, ...]:
        """Return one sentence per source that breaks a limit."""
        return tuple(broken.sentence for broken in self.late.values())

    @property
    def lateness(self) -> tuple[float, float]:
        """Return the number of sources that break limits, and by how much they do."""
        return len(self.late), sum(1 - broken.ratio for broken in self.late.values())


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
    """Return the incumbent that breaks the fewest limits on delay, and of these the best by ``rank``; None without one.

    The plan to start from competes as well, however poor its objective is, and so do feasible known plans where the
    evaluated delay or misses rank them, or single samples have limits. After the deadline only the plan to start from
    and the incumbent with the best objective are evaluated.
    """
    by_delay = rank == "evaluated" and instance.scenario.objective.goal in {"delay", "misses"}
    best = sorted(outcome.incumbents, key=problem.objective)
    known = set(options.known) if by_delay or any(demand.tail for demand in problem.demands) else set()
    started = [choices for choices in best[1:] if choices in options.start]
    rivals = [choices for choices in best[MAX_EVALUATED:] if choices in known]
    journeys = Journeys(instance)
    candidates: list[Candidate] = []
    first = (*best[:1], *started)
    for number, choices in enumerate(dict.fromkeys((*first, *best[:MAX_EVALUATED], *rivals)), start=1):
        candidates.append(candidate(journeys, instance, problem, _with_unreached_at_home(problem, choices), rank))
        decided = not by_delay and not candidates[-1].late  # the others have worse objectives
        if decided or (options.deadline.passed and number >= len(first)):
            break
    return min(candidates, key=lambda it: (*it.lateness, *rank_of(it, instance, rank)), default=None)


def _by_more(instance: Instance, rank: Rank) -> bool:
    """Return whether plans are ranked by more than the problem has: misses, weights of tokens' times, steps' ways."""
    goal, specs = instance.scenario.objective.goal, instance.scenario.sources.values()
    weighed = any(spec.decode is not None and spec.decode.weighed for spec in specs)
    fed_back = any(phase.fed_back for phases in instance.phases.values() for phase in phases)
    return rank == "evaluated" and (goal == "misses" or (goal == "delay" and (weighed or fed_back)))


def single_samples_count(instance: Instance, rank: Rank) -> bool:
    """Return whether a plan is judged by single samples or tokens, not by mean delays alone."""
    specs = instance.scenario.sources.values()
    return _by_more(instance, rank) or any(tail_limits(spec) or (spec.decode and spec.decode.bounded) for spec in specs)


def refined(
    instance: Instance, problem: Problem, best: Candidate, plans: Iterable[Choices], *, rank: Rank, deadline: Deadline
) -> Candidate:
    """Return a candidate that is no worse, by other routes of single sources; ``plans`` are those that were found.

    A candidate that breaks no limit is refined only where more than mean delays rank plans.
    """
    if not _by_more(instance, rank) and not best.late:
        return best
    journeys, tried = Journeys(instance), {best.choices: best}

    def worth(choices: Choices) -> tuple[float, ...]:
        if choices not in tried:
            tried[choices] = candidate(journeys, instance, problem, choices, rank)
        return (*tried[choices].lateness, *rank_of(tried[choices], instance, rank))

    def stopped() -> bool:
        return deadline.passed or len(tried) > MAX_REFINED

    return tried[improved(problem, best.choices, plans, worth, stopped)]


def with_other_loops(instance: Instance, problem: Problem, best: Candidate, rank: Rank) -> Candidate:
    """Return a candidate that is no worse, with the tokens of single sources fed back elsewhere."""
    journeys = Journeys(instance)

    def worth(found: Candidate) -> tuple[object, ...]:
        return (overloaded(problem, found.evaluation), *found.lateness, *rank_of(found, instance, rank))

    routes = {name: own.routes for name, own in best.evaluation.sources.items()}
    for source, others in other_loops(instance, routes):
        evaluation = evaluate(instance, {**routes, source: others}, journeys)
        other = Candidate(best.choices, evaluation, broken_limits(instance, evaluation))
        if worth(other) < worth(best):
            best, routes[source] = other, others
    return best


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


def candidate(journeys: Journeys, instance: Instance, problem: Problem, choices: Choices, rank: Rank) -> Candidate:
    """Return evaluated routes with the limits that they break.

    Blocks are joined to sessions as long as is best: longer ones save time, shorter ones let urgent work go ahead.
    """
    routes = with_loops(instance, problem.routes(choices), journeys)
    found = []
    waits = choices_of_wait(instance, routes) if problem.max_wait_s is None else [problem.max_wait_s]
    for max_wait_s in waits:
        evaluation = evaluate(instance, join_blocks(instance, routes, max_wait_s), journeys)
        found.append(Candidate(choices, evaluation, broken_limits(instance, evaluation)))
    return min(found, key=lambda it: (overloaded(problem, it.evaluation), *it.lateness, *rank_of(it, instance, rank)))


def overloaded(problem: Problem, evaluation: Evaluation) -> bool:
    """Return whether a worker is busier than it may be because blocks are not joined as far as the problem assumes.

    Routes that share a worker may have shorter sessions than each would have alone.
    """
    if not any(np.any(variant.saving_s) for variant in problem.variants):
        return False
    busy = [evaluation.workers[name].utilisation for name in problem.workers]
    return bool((np.array(busy) > problem.caps[: len(busy)] + CAP_ROUNDING).any())


def rank_of(candidate: Candidate, instance: Instance, rank: Rank) -> tuple[float, ...]:
    """Return by what candidates that break the same limits are ranked; the less the better."""
    evaluation, goal = candidate.evaluation, instance.scenario.objective.goal
    evaluated = {"delay": (evaluation.weighted_delay_s,), "misses": (evaluation.weighted_misses,)}.get(goal, ())
    if rank == "surrogate":
        return (evaluation.objective, *evaluated)
    return (*evaluated, evaluation.objective, evaluation.weighted_delay_s)
