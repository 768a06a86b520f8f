"""Local search for one route per source on large instances: best response, perturbation, and a Lagrangian bound.

Incumbents: each source in turn takes its best response to the others' loads, priced exactly, until none improves. Then
a few sources are removed and routed again in another order, until the time limit.

Bound: for the goal ``delay``, prices of loads decouple routes from resources
(:mod:`planner.solvers.methods.local_search.lagrangian`); the cheapest routes at these prices are also improved to
incumbents. For the other goals it is the bound of shared routes, and the routes with the largest shares are improved.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from planner.solvers.core.deadline import Expired
from planner.solvers.core.infeasibility import Relaxations, explain_infeasibility, tried, violations
from planner.solvers.core.problem import Choices, Problem
from planner.solvers.core.search_state import Options, Outcome, Search
from planner.solvers.methods import bottleneck_dp as dp
from planner.solvers.methods.explanation import ELASTIC_MAX_ARCS, least_relaxations, unroutable_outcome
from planner.solvers.methods.local_search.memory_bound import raise_bound
from planner.solvers.methods.local_search.peak import PeakSearch
from planner.solvers.methods.local_search.peak_bound import PeakBound
from planner.solvers.methods.local_search.subgradient import Subgradient
from planner.solvers.methods.memory import pack
from planner.solvers.routes.best_response import BestResponse
from planner.solvers.routes.greedy import greedy_rounds
from planner.solvers.routes.order_search import LimitedSearch
from planner.solvers.routes.pricing import unroutable

GREEDY_ROUNDS = 3
IMPROVED_KNOWN = 2
"""Number of known plans, the best ones, that are improved by best responses."""
PERTURBATIONS = 50
"""Perturbations between two rounds of subgradient steps."""
PERTURBATION_TIME_FRACTION = 0.1
"""Fraction of the time limit that these perturbations take at most."""
MAX_IDLE_PERTURBATIONS, MAX_IDLE_PERTURBATIONS_BRIEF = 500, 50
"""Perturbations in a row without a better incumbent after which a search ends, and a brief one."""
SUBGRADIENT_STEPS = 400
"""Subgradient steps between two rounds of perturbations."""
IMPROVE_EVERY = 5
"""Number of subgradient steps per cheapest routes that are improved to an incumbent."""
EXPLANATION_LIMIT_S = 5.0
"""Time limit of each of the two programs that find the least relaxations."""


def solve(problem: Problem, options: Options) -> Outcome:
    """Find good single routes for all sources, and prove how good they are."""
    original = problem
    problem, inaccuracies = _accurate_variants(original)
    if inaccuracies:
        reasons = explain_infeasibility(original, inaccuracies)
        return Outcome("infeasible", reasons=_explain(Search(original, options), reasons))
    if unroutable(problem):
        return unroutable_outcome(problem)
    search = Search(problem, options)
    try:
        return _solve(search)
    except Expired:
        return search.outcome()


def _solve(search: Search) -> Outcome:
    problem, options = search.problem, search.options
    responses = BestResponse(search)
    responses.fill()
    if not search.incumbents and pack(responses):
        return Outcome("infeasible", reasons=_explain(search, tried(problem, options.time_limit_s)))
    limited = LimitedSearch(responses, np.random.default_rng(options.seed))
    limited.improve()
    last: Choices = ()
    known = sorted(options.known, key=problem.objective)[:IMPROVED_KNOWN] if problem.goal == "delay" else []
    for choices in (*greedy_rounds(problem, GREEDY_ROUNDS, deadline=options.deadline), *known):
        search.offer(choices)
        last = responses.improve(choices)
    raise_bound(search)
    peak = PeakSearch(search) if problem.goal in {"throughput", "makespan"} else None
    if problem.goal != "delay" or not search.incumbents:
        bound = PeakBound(search)
        shared = bound.share()
        if shared.status == "infeasible":
            return Outcome("infeasible", reasons=_explain(search, shared.reasons))
        _improve_shared(responses, shared)
    if peak:
        _offer_partition(search)
    if peak and search.incumbents:
        peak.search_on(bound)
    else:
        _search(responses, limited)
    if not search.incumbents:
        reasons = (*_explain(search, violations(problem, last)), *tried(problem, options.time_limit_s))
        return Outcome("no_solution", bound=search.bound, reasons=reasons)
    return search.outcome()


def _explain(search: Search, otherwise: tuple[str, ...]) -> tuple[str, ...]:
    """Return the least relaxations for one route per source in words, or ``otherwise`` if they were not found."""
    problem = search.problem
    if problem.arcs > ELASTIC_MAX_ARCS or search.out_of_time:
        return otherwise
    limited = dataclasses.replace(search.options, time_limit_s=min(search.left_s / 2, EXPLANATION_LIMIT_S))
    relaxations = least_relaxations(problem, limited)
    return explain_infeasibility(problem, relaxations) if relaxations else otherwise


def _search(responses: BestResponse, limited: LimitedSearch) -> None:
    """Alternate perturbations and subgradient steps until the time limit or until neither improves."""
    search = responses.search
    random = np.random.default_rng(search.options.seed)
    subgradient = Subgradient(search, responses.staged) if search.problem.goal == "delay" else None
    if subgradient is not None:  # the first prices prove a bound at once
        subgradient.step()
        search.raise_bound(subgradient.bound)
    _perturb(responses, random)
    seen: set[Choices] = set()
    idle, most = 0, MAX_IDLE_PERTURBATIONS_BRIEF if search.options.brief else MAX_IDLE_PERTURBATIONS
    while not search.out_of_time and search.gap > search.options.gap and idle < most:
        ascends = subgradient is not None and _raise_bound(subgradient, responses, seen)
        if not ascends and not search.incumbents:
            break
        best = search.best
        _perturb(responses, random)
        limited.improve()
        idle = idle + PERTURBATIONS if search.best >= best else 0


def _perturb(responses: BestResponse, random: np.random.Generator) -> None:
    """Perturb the best incumbent a number of times, for a part of the time limit at most."""
    search = responses.search
    end_s = search.elapsed_s + PERTURBATION_TIME_FRACTION * search.options.time_limit_s
    for _ in range(PERTURBATIONS):
        if search.out_of_time or search.elapsed_s > end_s:
            break
        responses.perturb(random)
    responses.search.report()


def _offer_partition(search: Search) -> None:
    """Offer the best bottleneck partition over distinct workers, a tighter problem, where its method applies."""
    tighter = dataclasses.replace(search.problem, goal="throughput", max_visits=1)
    if not dp.misfits(tighter):
        options = dataclasses.replace(
            search.options, time_limit_s=search.left_s, start=(), known=(), progress=None, brief=True
        )
        for choices in dp.solve(tighter, options).incumbents:
            search.offer(choices)
        search.report()


def _improve_shared(responses: BestResponse, shared: Outcome) -> None:
    """Improve each source's route with the largest share to incumbents."""
    problem = responses.search.problem
    for choices in sorted(shared.incumbents, key=problem.objective)[:GREEDY_ROUNDS]:
        largest = [max(routes, key=lambda choice: choice.share) for routes in choices]
        responses.improve(tuple((dataclasses.replace(choice, share=1.0),) for choice in largest))


def _accurate_variants(problem: Problem) -> tuple[Problem, Relaxations]:
    """Return the problem with only accurate enough variants, and the inaccuracy of sources that have none."""
    demands, inaccuracies = [], {}
    for source, demand in enumerate(problem.demands):
        accuracy = {variant: problem.variants[variant].accuracy for variant in demand.variants}
        kept = tuple(variant for variant in demand.variants if accuracy[variant] >= demand.min_accuracy)
        if not kept:
            inaccuracies["inaccuracy", source] = demand.min_accuracy - max(accuracy.values())
        demands.append(dataclasses.replace(demand, variants=kept or demand.variants))
    return dataclasses.replace(problem, demands=tuple(demands)), inaccuracies


def _raise_bound(subgradient: Subgradient, responses: BestResponse, seen: set[Choices]) -> bool:
    """Take subgradient steps, and improve some of the cheapest routes; return whether further steps may help."""
    search = subgradient.search
    for _ in range(SUBGRADIENT_STEPS):
        if search.out_of_time or subgradient.stalled or search.gap <= search.options.gap:
            break
        subgradient.step()
        if subgradient.routes not in seen and len(seen) < subgradient.steps // IMPROVE_EVERY:
            seen.add(subgradient.routes)
            responses.improve(subgradient.routes)
    search.raise_bound(subgradient.bound)
    return not subgradient.stalled
