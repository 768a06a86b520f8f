"""The infeasibility explanation: in words, why a problem has no solution and which limits to relax."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from planner.solvers.core.problem import Choices, Problem

Relaxations = Mapping[tuple[str, int], float]
"""By how much limits must be relaxed: ``overload`` of a resource, ``lack_mib`` of a worker, ``late_s`` and
``inaccuracy`` of a source, each with its index."""


def explain_infeasibility(problem: Problem, relaxations: Relaxations | None) -> tuple[str, ...]:
    """Return one sentence per limit that has to be relaxed, with the amount.

    Parameters
    ----------
    relaxations
        None if they were not found within the time limit; empty if relaxing limits does not help.
    """
    if relaxations is None:
        return ("no routes satisfy all limits; the limits to relax were not found in time",)
    if not relaxations:
        return ("no route joins the blocks of every source: see pins, max_visits and the networks",)
    return tuple(_sentence(problem, kind, index, amount) for (kind, index), amount in sorted(relaxations.items()))


def violations(problem: Problem, choices: Choices) -> tuple[str, ...]:
    """Return one sentence per limit that these routes violate; other routes might satisfy it."""
    overload = problem.load(choices).sum(axis=0) - problem.caps
    lack_mib = (problem.memory_used(choices) - problem.memory_bytes) / 2**20
    violated = [("lack_mib", worker, float(lack_mib[worker])) for worker in np.flatnonzero(lack_mib > 0).tolist()]
    violated += [
        ("overload", resource, float(overload[resource])) for resource in np.flatnonzero(overload > 0).tolist()
    ]
    sentences = [_sentence(problem, *limit) for limit in violated]
    for source, routes in enumerate(choices):
        demand = problem.demands[source]
        delay_s = sum(choice.share * problem.cost(source, choice).unloaded_s for choice in routes)
        accuracy = sum(choice.share * problem.variants[choice.variant].accuracy for choice in routes)
        if delay_s > demand.deadline_s:
            sentences.append(late(demand.name, delay_s, demand.deadline_s))
        if accuracy < demand.min_accuracy:
            sentences.append(
                f"{demand.name} would reach accuracy {accuracy:.1%}, {demand.min_accuracy:.1%} is required"
            )
        if not all(problem.allowed(source, choice) for choice in routes):
            sentences.append(
                f"the route of {demand.name} would violate its pins, use a missing path or exceed max_visits"
            )
    return tuple(sentences)


def late(source: str, delay_s: float, deadline_s: float) -> str:
    """Return the sentence that a source's routes miss its deadline."""
    return f"{source} would take {delay_s * 1e3:.3g} ms, its deadline is {deadline_s * 1e3:.3g} ms"


def _sentence(problem: Problem, kind: str, index: int, amount: float) -> str:
    if kind == "lack_mib":
        size = f"{amount:.0f}" if amount >= 10 else f"{amount:.3g}"
        return f"worker {problem.workers[index]} lacks {size} MiB"
    if kind == "overload":
        what = "worker" if index < len(problem.workers) else "network"
        cap = float(problem.caps[index])
        return f"{what} {problem.resources[index]} would be {cap + amount:.0%} busy, {cap:.0%} is allowed"
    demand = problem.demands[index]
    if kind == "late_s":
        best_s = demand.deadline_s + amount
        return (
            f"no worker can meet deadline {demand.deadline_s * 1e3:.3g} ms of {demand.name}: "
            f"the best is {best_s * 1e3:.3g} ms"
        )
    best = demand.min_accuracy - amount
    return f"no model of {demand.name} reaches accuracy {demand.min_accuracy:.1%}: the best is {best:.1%}"
