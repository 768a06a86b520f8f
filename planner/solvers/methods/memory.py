"""Memory for methods that share routes: the bound of the relaxation, and a rounded, re-solved residency.

Whether a block resides on a worker is binary even for shared routes. Without memory the problem is convex and its bound
holds for the whole problem. Where the relaxed routes need more than a worker has, the worker keeps the blocks that do
most of its work per byte, the others are forbidden there, and the rest is solved again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from planner.solvers.core.problem import Array, Choices, Problem, Residency
from planner.solvers.core.search_state import Options, Outcome, Search
from planner.solvers.routes.pricing import unroutable

Method = Callable[[Problem, Options], Outcome]

PROOF_ARCS = 20_000
"""With more the program that proves that memory is too small takes seconds to be built."""
PROOF_S = 5.0
"""Time that it may take."""


def solve_with_memory(problem: Problem, options: Options, method: Method) -> Outcome:
    """Solve with a ``method`` that knows no memory."""
    if not problem.memory_binds:
        return method(problem, options)
    if lacking := _lacking(problem):
        return Outcome("infeasible", blame=lacking)
    search = Search(problem, options)
    free = dataclasses.replace(problem, memory_bytes=np.full(len(problem.workers), np.inf))
    allowed: Residency = tuple(
        np.ones((len(weights), len(problem.workers)), dtype=bool) for weights in problem.weight_bytes
    )
    outcome = Outcome("no_solution")
    for attempt in range(len(problem.workers) + 1):
        outcome = method(
            dataclasses.replace(free, resident=allowed), dataclasses.replace(options, time_limit_s=search.left_s)
        )
        if attempt == 0:
            search.raise_bound(outcome.bound)
            if outcome.status == "infeasible":
                return outcome
        for choices in outcome.incumbents:
            search.offer(choices)
        if search.incumbents or not outcome.incumbents or search.out_of_time:
            break
        best = min(outcome.incumbents, key=problem.objective)
        allowed = _round(problem, best, allowed)
    if not search.incumbents and not search.out_of_time:
        return _single(search)
    return dataclasses.replace(search.outcome(), prices=outcome.prices)


def _lacking(problem: Problem) -> tuple[str, ...]:
    """Name the workers that do not even hold the agent itself."""
    return tuple(
        f"worker {problem.workers[worker]} lacks {-problem.memory_bytes[worker] / 2**20:.3g} MiB"
        for worker in np.flatnonzero(problem.memory_bytes < 0)
    )


def _single(search: Search) -> Outcome:
    """Look for one route a source, by a method that keeps memory exactly, where rounding found no way."""
    from planner.solvers.methods.mip import method as milp

    single = milp.solve(search.problem, dataclasses.replace(search.options, time_limit_s=search.left_s, progress=None))
    for choices in single.incumbents:
        search.offer(choices)
    if search.incumbents:
        return search.outcome()
    if no_room(search.problem, search.options):
        return Outcome("infeasible", blame=single.blame)
    return dataclasses.replace(search.outcome(), blame=single.blame)


def no_room(problem: Problem, options: Options) -> bool:
    """Whether it is proven that no routes fit into the workers' memory, whatever their loads, delays and accuracy.

    Routes among which samples are shared need no less memory than one of them for each source.
    """
    if not problem.memory_binds:
        return False
    if _lacking(problem) or unroutable(dataclasses.replace(problem, resident=_fitting(problem))):
        return True
    if problem.arcs > PROOF_ARCS or options.stop.is_set():
        return False
    from planner.solvers.methods.mip import method as milp

    demands = tuple(dataclasses.replace(demand, deadline_s=np.inf, min_accuracy=0.0) for demand in problem.demands)
    careless = dataclasses.replace(problem, goal="throughput", demands=demands)
    hurried = dataclasses.replace(
        options, time_limit_s=min(options.time_limit_s, PROOF_S), gap=1.0, start=(), progress=None
    )
    return milp.solve(careless, hurried).status == "infeasible"


def _fitting(problem: Problem) -> Residency:
    """Give where each block fits if it is alone; shape [L, D] for each model."""
    fits = tuple(
        np.add.outer(weights + activations, -problem.memory_bytes * (1 + 1e-6)) <= 0
        for weights, activations in zip(problem.weight_bytes, problem.activation_bytes, strict=True)
    )
    if problem.resident is None:
        return fits
    return tuple(own & allowed for own, allowed in zip(fits, problem.resident, strict=True))


def _round(problem: Problem, choices: Choices, allowed: Residency) -> Residency:
    """Let each worker that lacks memory keep what does most work per byte, and forbid it all else."""
    work = _work(problem, choices)
    rounded = tuple(mask.copy() for mask in allowed)
    for worker in np.flatnonzero(problem.memory_used(choices) > problem.memory_bytes):
        pairs = [
            (work[model][block, worker] / max(problem.weight_bytes[model][block], 1.0), model, block)
            for model in range(len(problem.models))
            for block in np.flatnonzero(work[model][:, worker] > 0).tolist()
        ]
        weights, largest = 0.0, 0.0
        for model in range(len(problem.models)):
            rounded[model][:, worker] = False
        for _, model, block in sorted(pairs, reverse=True):
            more = weights + problem.weight_bytes[model][block]
            peak = max(largest, float(problem.activation_bytes[model][block]))
            if more + peak <= problem.memory_bytes[worker]:
                weights, largest = more, peak
                rounded[model][block, worker] = True
    return rounded


def _work(problem: Problem, choices: Choices) -> list[Array]:
    """Seconds per second that each model's blocks take on each worker; shape [L, D] each."""
    work = [np.zeros((len(weights), len(problem.workers))) for weights in problem.weight_bytes]
    for source, own in enumerate(choices):
        for choice in own:
            variant = problem.variants[choice.variant]
            blocks, workers = np.arange(len(variant)), np.array(choice.workers)
            amount = problem.demands[source].volume * choice.share * variant.reach[:-1]
            np.add.at(work[variant.model], (blocks, workers), amount * variant.block_s[blocks, workers])
    return work
