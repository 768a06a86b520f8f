"""Baseline methods to compare with: ``local``, ``equal``, ``ar-mdi`` (eq. 1) and ``two-part``, without a bound.

``equal`` and ``ar-mdi`` are the fixed and the adaptive segments of model-distributed inference with several sources.
``ar-mdi`` assigns worker n the fraction (1 / γ_n) / Σ (1 / γ) of the parameters, where γ_n is its time per parameter
(eq. 1). Only ``two-part`` considers the objective.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from planner.solvers.core.infeasibility import violations
from planner.solvers.core.problem import Array, Choice, Choices, Integers, Problem
from planner.solvers.core.resource_prices import marginal_prices
from planner.solvers.core.search_state import Options, Outcome, Search

CONGESTION_WEIGHT = 1e-3
"""For the goal ``energy``, weight of the congestion beside the power: it matters where a worker would be overloaded."""


def local(problem: Problem, options: Options) -> Outcome:
    """Run each sample entirely on the worker where it arrives."""
    return _plan(
        problem, options, lambda source, variant: [(problem.demands[source].home,) * _length(problem, variant)]
    )


def equal(problem: Problem, options: Options) -> Outcome:
    """Assign segments of equally many parameters around the ring, starting at the source's worker."""
    return _plan(problem, options, lambda source, variant: [_cut(problem, source, variant, np.ones(len(problem.ring)))])


def ar_mdi(problem: Problem, options: Options) -> Outcome:
    """Assign segments in proportion to speed around the ring, starting at the source's worker (eq. 1)."""

    def routes(source: int, variant: int) -> list[tuple[int, ...]]:
        ring = _ring_from_home(problem, source)
        return [_cut(problem, source, variant, 1 / problem.variants[variant].block_s.sum(axis=0)[ring])]

    return _plan(problem, options, routes)


def two_part(problem: Problem, options: Options) -> Outcome:
    """Split each source once: its first blocks run where samples arrive, the rest on one other worker.

    Sources choose their best split in order of priority, all of them twice, at the marginal prices of the others' load.
    """
    order = np.argsort(problem.classes.of_source, kind="stable").tolist()
    load = np.zeros((len(problem.demands), len(problem.resources)))
    chosen: dict[int, Choice] = {}
    for source in order * 2:
        load[source] = 0.0
        price = marginal_prices(problem, problem.classes.nested(load))[problem.classes.of_source[source]]
        chosen[source] = min(
            _allowed(problem, source, _splits(problem, source)),
            key=lambda choice: _price(problem, source, choice, price),
        )
        cost = problem.cost(source, chosen[source])
        load[source, cost.resources] = problem.demands[source].volume * cost.seconds
    return _outcome(problem, options, tuple((chosen[source],) for source in range(len(problem.demands))))


def _plan(problem: Problem, options: Options, routes: Callable[[int, int], Iterable[tuple[int, ...]]]) -> Outcome:
    """Return the outcome in which each source takes the best of its ``routes`` as if it were alone."""
    price = marginal_prices(problem, np.zeros((len(problem.classes.weight), len(problem.resources))))[-1]
    chosen = []
    for source, demand in enumerate(problem.demands):
        all_routes = [Choice(variant, workers) for variant in demand.variants for workers in routes(source, variant)]
        possible = _allowed(problem, source, all_routes)
        if not possible:
            return Outcome("no_solution", reasons=(f"no path for the fixed route of {demand.name}",))
        chosen.append((min(possible, key=lambda choice: _price(problem, source, choice, price)),))
    return _outcome(problem, options, tuple(chosen))


def _outcome(problem: Problem, options: Options, choices: Choices) -> Outcome:
    search = Search(problem, options)
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


def _splits(problem: Problem, source: int) -> Iterable[Choice]:
    home = problem.demands[source].home
    for variant in problem.demands[source].variants:
        length = _length(problem, variant)
        for other in range(len(problem.workers)):
            for cut in range(length if other != home else 1):
                yield Choice(variant, (home,) * cut + (other,) * (length - cut))


def _cut(problem: Problem, source: int, variant: int, part: Array) -> tuple[int, ...]:
    """Return the route that gives each worker of the ring its ``part`` of the parameters.

    A block runs on the worker in whose segment its middle lies.
    """
    ring = _ring_from_home(problem, source)
    parameters = np.maximum(problem.parameters[problem.variants[variant].model], 1e-9)
    middle = (np.cumsum(parameters) - parameters / 2) / parameters.sum()
    ends = np.cumsum(part) / part.sum()
    return tuple(ring[np.minimum(np.searchsorted(ends, middle), len(ring) - 1)].tolist())


def _ring_from_home(problem: Problem, source: int) -> Integers:
    ring = np.array(problem.ring)
    home = np.flatnonzero(ring == problem.demands[source].home)
    return np.roll(ring, -int(home[0])) if len(home) else ring


def _length(problem: Problem, variant: int) -> int:
    return len(problem.variants[variant])
