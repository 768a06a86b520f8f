"""Why a problem has no solution, in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from planner.solvers.core.problem import Choices, Problem

Relaxations = Mapping[tuple[str, int], float]
"""By how much limits must give way: ``overload`` of a resource, ``lack_mib`` of a worker, ``late_s`` and
``inaccuracy`` of a source, each with its number."""


def explain_infeasibility(problem: Problem, relax: Callable[[], Relaxations | None]) -> tuple[str, ...]:
    """Say in words which limits would have to give way, and by how much."""
    relaxations = relax()
    if relaxations is None:
        return ("no routes keep all limits; which of them would have to give way was not found in time",)
    if not relaxations:
        return ("no route joins the blocks of every source: see pins, max_visits and the networks",)
    return tuple(_sentence(problem, kind, index, amount) for (kind, index), amount in sorted(relaxations.items()))


def misses(problem: Problem, choices: Choices) -> tuple[str, ...]:
    """Say in words which limits fixed routes miss; others might keep them."""
    over = problem.load(choices).sum(axis=0) - problem.cap
    lack = (problem.memory_used(choices) - problem.memory_bytes) / 2**20
    missed = [("lack_mib", index, float(lack[index])) for index in np.flatnonzero(lack > 0).tolist()]
    missed += [("overload", index, float(over[index])) for index in np.flatnonzero(over > 0).tolist()]
    found = [_sentence(problem, *own) for own in missed]
    for source, own in enumerate(choices):
        demand = problem.demands[source]
        delay_s = sum(choice.share * problem.cost(source, choice).unloaded_s for choice in own)
        accuracy = sum(choice.share * problem.variants[choice.variant].accuracy for choice in own)
        if delay_s > demand.deadline_s:
            found.append(late(demand.name, delay_s, demand.deadline_s))
        if accuracy < demand.min_accuracy:
            found.append(f"{demand.name} would reach accuracy {accuracy:.1%}, {demand.min_accuracy:.1%} is asked for")
        if not all(problem.allowed(source, choice) for choice in own):
            found.append(f"the route of {demand.name} would not keep its pins, the paths there are, or max_visits")
    return tuple(found)


def late(source: str, delay_s: float, deadline_s: float) -> str:
    """Say that a source's routes miss its deadline."""
    return f"{source} would take {delay_s * 1e3:.3g} ms, its deadline is {deadline_s * 1e3:.3g} ms"


def _sentence(problem: Problem, kind: str, index: int, amount: float) -> str:
    if kind == "lack_mib":
        size = f"{amount:.0f}" if amount >= 10 else f"{amount:.3g}"
        return f"worker {problem.workers[index]} lacks {size} MiB"
    if kind == "overload":
        what = "worker" if index < len(problem.workers) else "network"
        busy = problem.cap + amount
        return f"{what} {problem.resources[index]} would be {busy:.0%} busy, {problem.cap:.0%} is allowed"
    demand = problem.demands[index]
    if kind == "late_s":
        best_s = demand.deadline_s + amount
        return (
            f"no worker can meet deadline {demand.deadline_s * 1e3:.3g} ms of {demand.name}: "
            f"the best is {best_s * 1e3:.3g} ms"
        )
    best = demand.min_accuracy - amount
    return f"no model of {demand.name} reaches accuracy {demand.min_accuracy:.1%}: the best is {best:.1%}"
