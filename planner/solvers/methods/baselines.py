"""Baseline methods to compare with: ``local``, ``equal``, ``ar-mdi`` (eq. 1) and ``two-part``, without a bound.

``equal`` and ``ar-mdi`` are the fixed and the adaptive segments of model-distributed inference with several sources.
``ar-mdi`` assigns worker n the fraction (1 / γ_n) / Σ (1 / γ) of the parameters, where γ_n is its time per parameter
(eq. 1). Only ``two-part`` considers the objective.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import numpy as np

from planner.solvers.core.deadline import NEVER, Deadline
from planner.solvers.core.infeasibility import violations
from planner.solvers.core.problem import Array, Choice, Choices, Integers, Problem
from planner.solvers.core.resource_prices import RunningPrices, marginal_prices
from planner.solvers.core.search_state import Options, Outcome, Search
from planner.solvers.routes.pricing import cheapest_split

CONGESTION_WEIGHT = 1e-3
"""For the goal ``energy``, weight of the congestion beside the power: it matters where a worker would be overloaded."""


def local(problem: Problem, options: Options) -> Outcome:
    """Run each sample entirely on the worker where it arrives."""
    return _outcome(problem, options, local_plan(problem))


def equal(problem: Problem, options: Options) -> Outcome:
    """Assign segments of equally many parameters around the ring, starting at the source's worker."""
    return _outcome(problem, options, equal_plan(problem))


def ar_mdi(problem: Problem, options: Options) -> Outcome:
    """Assign segments in proportion to speed around the ring, starting at the source's worker (eq. 1)."""
    return _outcome(problem, options, ar_mdi_plan(problem))


def two_part(problem: Problem, options: Options) -> Outcome:
    """Split each source once: its first blocks run where samples arrive, the rest on one other worker."""
    return _outcome(problem, options, two_part_plan(problem))


def local_plan(problem: Problem, deadline: Deadline = NEVER) -> Choices | None:
    """Return the plan of ``local``."""
    return _plan(problem, deadline, lambda source, variant: (problem.demands[source].home,) * _length(problem, variant))


def equal_plan(problem: Problem, deadline: Deadline = NEVER) -> Choices | None:
    """Return the plan of ``equal``; None if it lacks a path."""
    ring = _ring(problem)
    even = np.ones(len(problem.workers))
    return _plan(problem, deadline, lambda source, variant: _cut(problem, source, variant, ring, even))


def ar_mdi_plan(problem: Problem, deadline: Deadline = NEVER) -> Choices | None:
    """Return the plan of ``ar-mdi``; None if it lacks a path."""
    ring = _ring(problem)
    return _plan(
        problem, deadline, lambda source, variant: _cut(problem, source, variant, ring, _speed(problem, variant))
    )


def by_speed_plan(problem: Problem, deadline: Deadline = NEVER) -> Choices | None:
    """Return segments in proportion to speed, the fastest worker first; None if the plan lacks a path."""

    def route(source: int, variant: int) -> tuple[int, ...]:
        speed = _speed(problem, variant)
        return _cut(problem, source, variant, np.argsort(-speed, kind="stable"), speed, from_home=False)

    return _plan(problem, deadline, route)


def two_part_plan(problem: Problem, deadline: Deadline = NEVER) -> Choices:
    """Return the plan of ``two-part``.

    Sources choose their best split in order of priority, all of them twice, at the marginal prices of the others' load.
    """
    order = np.argsort(problem.classes.of_source, kind="stable").tolist()
    running = RunningPrices(problem)
    chosen: dict[int, Choice] = {}
    for source in deadline.watch(order * 2):
        running.drop(source)
        chosen[source] = cheapest_split(problem, source, running.prices())
        running.move(source, chosen[source])
    return tuple((chosen[source],) for source in range(len(problem.demands)))


RULES: Final[Mapping[str, Callable[[Problem, Deadline], Choices | None]]] = {
    "local": local_plan,
    "two-part": two_part_plan,
    "equal": equal_plan,
    "ar-mdi": ar_mdi_plan,
    "by-speed": by_speed_plan,
}
"""The plan of each rule, None if it lacks a path; plans may violate limits. They raise ``Expired`` at a deadline."""


def _plan(problem: Problem, deadline: Deadline, route: Callable[[int, int], tuple[int, ...]]) -> Choices | None:
    """Return the plan in which each source takes the best variant of its ``route`` as if it were alone."""
    price = marginal_prices(problem, np.zeros((len(problem.classes.weight), len(problem.resources))))[-1]
    chosen = []
    for source, demand in enumerate(deadline.watch(problem.demands)):
        possible = _allowed(problem, source, [Choice(variant, route(source, variant)) for variant in demand.variants])
        if not possible:
            return None
        chosen.append((min(possible, key=lambda choice: _price(problem, source, choice, price)),))
    return tuple(chosen)


def _outcome(problem: Problem, options: Options, choices: Choices | None) -> Outcome:
    if choices is None:
        return Outcome("no_solution", reasons=("the fixed routes use a path that does not exist",))
    search = Search(problem, dataclasses.replace(options, start=(), known=()))
    search.offer(choices)
    if search.incumbents:
        return search.outcome()
    return Outcome("no_solution", reasons=violations(problem, choices))


def _allowed(problem: Problem, source: int, routes: Iterable[Choice]) -> list[Choice]:
    """Return the routes that have paths, only the accurate enough ones if there are any."""
    possible = [choice for choice in routes if np.isfinite(problem.cost(source, choice).latency_s)]
    accurate = [
        choice
        for choice in possible
        if problem.variants[choice.variant].accuracy >= problem.demands[source].min_accuracy
    ]
    return accurate or possible


def _price(problem: Problem, source: int, choice: Choice, price: Array) -> float:
    cost, volume = problem.cost(source, choice), problem.demands[source].volume
    if problem.goal == "energy":
        of_load = problem.watts + CONGESTION_WEIGHT * problem.watts.max() * price
        return volume * float(of_load[cost.resources] @ cost.seconds)
    return volume * float(price[cost.resources] @ cost.seconds) + problem.fixed_cost(source, choice, cost.latency_s)


def _cut(
    problem: Problem, source: int, variant: int, ring: Integers, part: Array, *, from_home: bool = True
) -> tuple[int, ...]:
    """Return the route that gives each worker its ``part`` [D] of the parameters, in the order of a ``ring``.

    A block runs on the worker in whose segment its middle lies. The first segment is that of the source's worker, or of
    the ring's first worker.
    """
    home = np.flatnonzero(ring == problem.demands[source].home)
    ring = np.roll(ring, -int(home[0])) if len(home) and from_home else ring
    parameters = np.maximum(problem.parameters[problem.variants[variant].model], 1e-9)
    middle = (np.cumsum(parameters) - parameters / 2) / parameters.sum()
    ends = np.cumsum(part[ring]) / part[ring].sum()
    return tuple(ring[np.minimum(np.searchsorted(ends, middle), len(ring) - 1)].tolist())


def _ring(problem: Problem) -> Integers:
    return np.array(problem.ring or range(len(problem.workers)), dtype=np.intp)


def _speed(problem: Problem, variant: int) -> Array:
    """Return samples per second of a variant on each worker; shape [D]."""
    return np.asarray(1 / np.maximum(problem.variants[variant].block_s.sum(axis=0), 1e-12))


def _length(problem: Problem, variant: int) -> int:
    return len(problem.variants[variant])
