"""The infeasibility explanation: in words, why a problem has no solution and which limits to relax."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from planner.solvers.core.problem import Choices, Problem
from planner.units import format_quantity

MAX_DIGITS = 9
"""Most digits in words; values that differ by less look equal."""
LARGEST_PERCENTAGE = 100.0
"""From this part on, which is 10 000 %, percentages are rounded to a few digits."""
Relaxations = Mapping[tuple[str, int], float]
"""By how much limits must be relaxed: ``overload`` of a resource, ``lack_bytes`` of a worker, ``late_s`` and
``inaccuracy`` of a source, each with its index."""


def explain_infeasibility(problem: Problem, relaxations: Relaxations | None) -> tuple[str, ...]:
    """Return one sentence per limit that has to be relaxed, with the amount.

    Parameters
    ----------
    relaxations
        None if they were not found, usually for lack of time; empty if relaxing limits does not help.
    """
    if relaxations is None:
        return ("no routes satisfy all limits; the limits to relax were not found",)
    if not relaxations:
        return ("no route joins the blocks of every source: see pins, max_visits and the networks",)
    return tuple(_sentence(problem, kind, index, amount) for (kind, index), amount in sorted(relaxations.items()))


def violations(problem: Problem, choices: Choices) -> tuple[str, ...]:
    """Return one sentence per limit that these routes violate; other routes might satisfy it."""
    overload = problem.load(choices).sum(axis=0) - problem.caps
    lack = problem.memory_used(choices) - problem.memory_bytes
    violated = [("lack_bytes", worker, float(lack[worker])) for worker in np.flatnonzero(lack > 0).tolist()]
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
            reached, required = apart(_percent, accuracy, demand.min_accuracy, 3)
            sentences.append(f"{demand.name} would reach accuracy {reached}, {required} is required")
        if not all(problem.allowed(source, choice) for choice in routes):
            sentences.append(
                f"the route of {demand.name} would violate its pins, use a missing path or exceed max_visits"
            )
    return tuple(sentences)


def late(source: str, delay_s: float, deadline_s: float) -> str:
    """Return the sentence that a source's routes exceed its largest mean delay."""
    delay, deadline = apart(_time, delay_s, deadline_s, 3)
    return f"{source} would take {delay}, its max_mean_delay is {deadline}"


def lacks(worker: str, lack_bytes: float) -> str:
    """Return the sentence that a worker has too little memory."""
    return f"worker {worker} lacks {format_quantity(lack_bytes, 'memory', digits=3)}"


def tried(problem: Problem, time_limit_s: float) -> tuple[str, ...]:
    """Return what was tried in vain, and how tight memory is, in words."""
    attempts = ["simple rules", "best responses of the sources"]
    if problem.memory_binds or problem.max_visits is not None:
        attempts.insert(1, "stages along workers by speed, room and distance")
    if problem.memory_binds:
        attempts.insert(2, "single blocks packed by size")
    within = format_quantity(time_limit_s, "time", digits=3)
    sentences = [f"no plan was found within {within}; tried: {', '.join(attempts)}"]
    if problem.memory_binds:
        needed, room = (
            format_quantity(size, "memory", digits=4)
            for size in (_least_bytes(problem), float(np.maximum(problem.memory_bytes, 0.0).sum()))
        )
        sentences.append(f"one copy of each block needs {needed} of weights, all workers together have room for {room}")
    return tuple(sentences)


def _least_bytes(problem: Problem) -> float:
    """Return the bytes of one copy of each block of the models that some source must use."""
    models = [{problem.variants[variant].model for variant in demand.variants} for demand in problem.demands]
    required = {next(iter(of_source)) for of_source in models if len(of_source) == 1}
    return float(sum(problem.weight_bytes[model].min(axis=1).sum() for model in required))


def _sentence(problem: Problem, kind: str, index: int, amount: float) -> str:
    if kind == "lack_bytes":
        return lacks(problem.workers[index], amount)
    if kind == "overload":
        what = "worker" if index < len(problem.workers) else "network"
        cap = float(problem.caps[index])
        busy, allowed = apart(_percent, cap + amount, cap, 2)
        return f"{what} {problem.resources[index]} would be {busy} busy, {allowed} is allowed"
    demand = problem.demands[index]
    if kind == "late_s":
        best, deadline = apart(_time, demand.deadline_s + amount, demand.deadline_s, 3)
        return f"no worker can meet max_mean_delay {deadline} of {demand.name}: the best is {best}"
    best, required = apart(_percent, demand.min_accuracy - amount, demand.min_accuracy, 3)
    return f"no model of {demand.name} reaches accuracy {required}: the best is {best}"


def apart(words: Callable[[float, int], str], value: float, limit: float, digits: int) -> tuple[str, str]:
    """Return a value and its limit in words, with as many digits as tell them apart."""
    for more in range(digits, MAX_DIGITS):
        if words(value, more) != words(limit, more):
            return words(value, more), words(limit, more)
    return words(value, MAX_DIGITS), words(limit, MAX_DIGITS)


def _time(time_s: float, digits: int) -> str:
    return format_quantity(time_s, "time", digits=digits)


def _percent(part: float, digits: int) -> str:
    """Return a part of one in percent: with a decimal if ``digits`` is 3, two if it is 4, and so on."""
    return f"{part:.{digits - 2}%}" if part < LARGEST_PERCENTAGE else f"{100 * part:.{digits}g}%"
