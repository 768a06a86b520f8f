"""Memory limits for methods that share routes: relax, round the resident blocks, and solve again.

Whether a block is resident on a worker is binary even for shared routes. If blocks could be resident in part, the
problem would be convex; its lower bound holds for the whole problem. If these routes exceed a worker's memory, the
worker keeps the blocks with the most work per byte, all others are forbidden there, and the problem is solved again.
Where plans are known, samples are shared among their resident blocks, with further copies where there is room: that
is convex, too, and quick.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from planner.solvers.core.deadline import Expired
from planner.solvers.core.infeasibility import lacks, tried
from planner.solvers.core.problem import Array, Choices, Problem, Residency, largest
from planner.solvers.core.room import fitting, lacks_room, without_binary_residency
from planner.solvers.core.search_state import Options, Outcome, Search
from planner.solvers.methods.explanation import infeasible
from planner.solvers.routes.best_response import BestResponse
from planner.solvers.routes.copies import with_copies
from planner.solvers.routes.order_search import LimitedSearch
from planner.solvers.routes.pricing import unroutable

Method = Callable[[Problem, Options], Outcome]

PROOF_MAX_ARCS = 20_000
"""With more arcs the program that proves that memory is too small takes seconds to build."""
PROOF_LIMIT_S, PROOF_TIME_FRACTION = 5.0, 0.3
"""Time limit of that program, in seconds and as a fraction of the time left."""
SHARED_TIME_FRACTION, SINGLE_TIME_FRACTION = 0.5, 0.5
"""Fractions of the time left for a method that shares routes, while there is no plan, and then for single routes."""
BOUND_TIME_FRACTION = 0.9
"""The former where there is a plan."""
SINGLE_ROUNDS = 5
"""Rounds in which single routes are improved."""
MAX_IDLE_SHARES = 6
"""Plans in a row whose resident blocks are shared without a better plan, after which no more are tried."""


def solve_with_memory(problem: Problem, options: Options, method: Method) -> Outcome:
    """Solve with a ``method`` that knows memory only as a limit on shares of blocks."""
    if not problem.memory_binds:
        return method(problem, options)
    if lacking := _lacking(problem):
        return Outcome("infeasible", reasons=lacking)
    search = Search(problem, options)
    _share_known(search, method)
    if search.ends:
        return search.outcome()
    relaxed = without_binary_residency(problem)
    allowed = fitting(problem)
    outcome, attempt, fits = Outcome("no_solution"), 0, False
    for attempt in range(len(problem.workers) + 1):
        part = BOUND_TIME_FRACTION if search.incumbents else SHARED_TIME_FRACTION
        outcome = method(
            dataclasses.replace(relaxed, resident=allowed),
            dataclasses.replace(
                options,
                time_limit_s=search.left_s * part,
                progress=None if attempt else options.progress,  # later bounds hold for these blocks alone
            ),
        )
        if attempt == 0:
            if outcome.status == "infeasible":
                return _infeasible(search, method)
            search.raise_bound(outcome.bound)
        for choices in outcome.incumbents:
            search.offer(choices)
        best = min(outcome.incumbents, key=problem.objective, default=())
        fits = best in search.incumbents  # others may be known plans
        half_over = search.elapsed_s >= SHARED_TIME_FRACTION * options.time_limit_s
        if fits or not outcome.incumbents or half_over or search.ends:
            break
        allowed = _round(problem, best, allowed)
    if attempt == 0 and fits:
        return dataclasses.replace(search.outcome(), prices=outcome.prices)
    if not search.incumbents:
        return _single_routes(search, method)
    _share_known(search, method)
    return dataclasses.replace(search.outcome(), prices=outcome.prices)


def _infeasible(search: Search, method: Method) -> Outcome:
    """Return the reasons of limits other than memory, or what was tried to keep within memory."""
    problem, unlimited = search.problem, np.full(len(search.problem.workers), np.inf)
    options = dataclasses.replace(search.options, time_limit_s=search.left_s)
    outcome = method(dataclasses.replace(problem, memory_bytes=unlimited), options)
    return outcome if outcome.status == "infeasible" else _without_room(search)


def _lacking(problem: Problem) -> tuple[str, ...]:
    """Return one sentence per worker whose memory does not even hold the agent."""
    return tuple(
        lacks(problem.workers[worker], -float(problem.memory_bytes[worker]))
        for worker in np.flatnonzero(problem.memory_bytes < 0)
    )


def _solve_milp(problem: Problem, options: Options) -> Outcome:
    """Solve for one route per source with exact memory limits; imported here because Pyomo takes long to import."""
    from planner.solvers.methods.mip.method import solve

    return solve(problem, options)


def _single_routes(search: Search, method: Method) -> Outcome:
    """Look for one route per source, and share samples among its resident blocks."""
    problem, options = search.problem, search.options
    limit_s = search.left_s * SINGLE_TIME_FRACTION
    single = Search(problem, dataclasses.replace(options, time_limit_s=limit_s, progress=None))
    nothing = dataclasses.replace(search.outcome(), reasons=tried(problem, options.time_limit_s))
    try:
        responses = BestResponse(single)
    except Expired:
        return nothing
    responses.fill()
    if not single.incumbents and pack(responses):
        return _without_room(search)
    limited = LimitedSearch(responses, np.random.default_rng(options.seed))
    for _ in range(SINGLE_ROUNDS):
        limited.improve()
    for choices in single.incumbents:
        search.offer(choices)
    _share_known(search, method)
    return search.outcome() if search.incumbents else nothing


def _without_room(search: Search) -> Outcome:
    """Return the least relaxations if their program is small enough, or what was tried."""
    problem, options = search.problem, search.options
    if problem.arcs > PROOF_MAX_ARCS:
        return Outcome("infeasible", reasons=tried(problem, options.time_limit_s))
    return infeasible(problem, dataclasses.replace(options, time_limit_s=min(search.left_s / 2, PROOF_LIMIT_S)))


def _share_known(search: Search, method: Method) -> None:
    """Share samples among the resident blocks of the incumbents, the best first, and of those so found.

    Of shared routes the largest alone, which leave room for other copies, are worth trying, too. This takes a part of
    the time left at most.
    """
    problem = search.problem
    until = search.options.deadline.within(search.left_s * SHARED_TIME_FRACTION)
    unlimited, shared, idle = np.full(len(problem.workers), np.inf), set[Choices](), 0
    while idle < MAX_IDLE_SHARES and not (search.ends or until.passed):
        best_first = sorted(search.incumbents, key=lambda choices: search.incumbents[choices])
        plans = (plan for choices in best_first for plan in (choices, tuple(map(largest, choices))))
        plan = next((plan for plan in plans if plan not in shared), None)
        if plan is None:
            break
        best = search.best
        shared.add(plan)
        among = dataclasses.replace(problem, memory_bytes=unlimited, resident=with_copies(problem, plan))
        outcome = method(among, dataclasses.replace(search.options, deadline=until, start=(plan,), progress=None))
        search.offer(min(outcome.incumbents, key=problem.objective, default=plan))
        search.report()
        idle = idle + 1 if search.best >= best else 0


def no_room(problem: Problem, options: Options) -> bool:
    """Return whether it is proven that no routes fit into memory, whatever their loads, delays and accuracies.

    The proof for single routes holds for shared ones, which need at least as much memory as one of them per source.
    """
    if not problem.memory_binds:
        return False
    if _evidently_no_room(problem):
        return True
    return _packed(problem, options).status == "infeasible"


def pack(responses: BestResponse) -> bool:
    """Look for routes that fit into memory by a program without an objective, and improve them.

    Returns
    -------
    bool
        Whether it is proven that none fit.
    """
    search = responses.search
    if not search.problem.memory_binds:
        return False
    if _evidently_no_room(search.problem):
        return True
    options = dataclasses.replace(search.options, time_limit_s=search.left_s * PROOF_TIME_FRACTION)
    outcome = _packed(search.problem, options)
    for choices in outcome.incumbents:
        search.offer(choices)
        responses.improve(choices)
    return outcome.status == "infeasible"


def _evidently_no_room(problem: Problem) -> bool:
    routable = not unroutable(dataclasses.replace(problem, resident=fitting(problem)))
    return bool(_lacking(problem)) or not routable or lacks_room(problem)


def _packed(problem: Problem, options: Options) -> Outcome:
    """Return the outcome of the program of memory alone, without one if it would be too large."""
    if problem.arcs > PROOF_MAX_ARCS or options.stop.is_set():
        return Outcome("no_solution")
    demands = tuple(dataclasses.replace(demand, deadline_s=np.inf, min_accuracy=0.0) for demand in problem.demands)
    memory_alone = dataclasses.replace(problem, goal="throughput", demands=demands)
    limited = dataclasses.replace(
        options, time_limit_s=min(options.time_limit_s, PROOF_LIMIT_S), gap=1.0, start=(), progress=None
    )
    return _solve_milp(memory_alone, limited)


def _round(problem: Problem, choices: Choices, allowed: Residency) -> Residency:
    """Return ``allowed`` where each worker that lacks memory keeps only the blocks with the most work per byte."""
    work = _work(problem, choices)
    rounded = tuple(mask.copy() for mask in allowed)
    for worker in np.flatnonzero(problem.memory_used(choices) > problem.memory_bytes):
        pairs = [
            (work[model][block, worker] / max(problem.weight_bytes[model][block, worker], 1.0), model, block)
            for model in range(len(problem.models))
            for block in np.flatnonzero(work[model][:, worker] > 0).tolist()
        ]
        weights, activation = 0.0, 0.0
        for model in range(len(problem.models)):
            rounded[model][:, worker] = False
        for _, model, block in sorted(pairs, reverse=True):
            new_weights = weights + problem.weight_bytes[model][block, worker]
            new_activation = max(activation, float(problem.activation_bytes[model][block, worker]))
            if new_weights + new_activation <= problem.memory_bytes[worker]:
                weights, activation = new_weights, new_activation
                rounded[model][block, worker] = True
    return rounded


def _work(problem: Problem, choices: Choices) -> list[Array]:
    """Return the utilisation of each worker by each model's blocks; shape [L, D] per model."""
    work = [np.zeros(weights.shape) for weights in problem.weight_bytes]
    for source, routes in enumerate(choices):
        for choice in routes:
            variant = problem.variants[choice.variant]
            blocks, workers = np.arange(len(variant)), np.array(choice.workers)
            amount = problem.demands[source].volume * choice.share * variant.reach[:-1]
            np.add.at(work[variant.model], (blocks, workers), amount * variant.block_s[blocks, workers])
    return work
