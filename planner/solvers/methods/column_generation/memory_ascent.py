"""First prices of memory for column generation, by subgradient steps at fixed prices of loads.

Without them the first routes would all run on the fastest workers, far beyond their memory, and the master would need
many rounds until its prices are of any use.

References
----------
B. T. Polyak, "Minimization of unsmooth functionals", USSR Computational Mathematics and Mathematical Physics 9 (1969).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from planner.solvers.core.problem import Array, Choice, Problem
from planner.solvers.core.resource_prices import Prices
from planner.solvers.core.search_state import Search

STEPS, MAX_IDLE_STEPS = 300, 10
"""Most steps, and steps without a better bound after which they become half as long."""
POLYAK_FACTOR, MIN_LENGTH = 0.5, 1e-3
"""Part of Polyak's step length at first, and the part of that below which the ascent ends."""
MOMENTUM = 0.7
"""Weight of the previous direction."""
TIME_FRACTION = 0.2
"""Part of the time left that the ascent takes at most."""
FIRST_TARGET = 1.5
"""Target without an incumbent, as a multiple of the bound."""

Routes = list[tuple[int, Choice]]


def ascend(search: Search, prices: Prices, price: Callable[[Prices], Routes]) -> tuple[Prices, Routes]:
    """Return prices of loads and memory with the best bound found, and the routes that were generated.

    Parameters
    ----------
    prices
        Prices of loads, which stay.
    price
        Generates the cheapest routes at some prices and raises the bound of the search that they prove.
    """
    problem = search.problem
    unit = _unit(problem)
    memory = _first(search)
    best, best_bound, direction = prices, search.bound, np.zeros(len(memory))
    seen: dict[tuple[int, Choice], None] = {}
    length, idle, until_s = 1.0, 0, search.elapsed_s + TIME_FRACTION * search.left_s
    for _ in range(STEPS):
        priced = dataclasses.replace(prices, memory=memory)
        routes = price(priced)
        seen.update(dict.fromkeys(routes))
        if search.bound > best_bound:
            best, best_bound, idle = priced, search.bound, 0
        else:
            idle += 1
        if search.gap <= search.options.gap or search.elapsed_s > until_s:
            break
        if idle == MAX_IDLE_STEPS:
            length, idle, direction = length / 2, 0, np.zeros(len(memory))
            memory = np.broadcast_to(best.memory, memory.shape)
            if length < MIN_LENGTH:
                break
            continue
        slope = sum(map(problem.room_used, (choice for _, choice in routes)), -np.ones(len(memory)))
        slope[(slope < 0) & (memory <= 0)] = 0.0
        direction = slope * unit**2 + MOMENTUM * direction
        target = search.best if search.incumbents else FIRST_TARGET * max(search.bound, 1e-300)
        steep = max(float(slope @ (slope * unit**2)), 1e-300)
        memory = np.maximum(memory + POLYAK_FACTOR * length * (target - search.bound) / steep * direction, 0.0)
    return best, list(seen)


def _unit(problem: Problem) -> Array:
    """Return an ordinary price of all of each worker's room, relative to each other; shape [D]."""
    taken = sum(parts.sum(axis=0) for parts in problem.room_parts)
    return np.asarray(1 / np.maximum(taken, 1e-9))


def _first(search: Search) -> Array:
    """Return prices [D] at which workers faster than the slowest one of good routes cost as much as that."""
    problem = search.problem
    prices = np.zeros(len(problem.workers))
    if not search.incumbents or problem.goal != "delay":
        return prices
    best = min(search.incumbents, key=lambda choices: search.incumbents[choices])
    for source, routes in enumerate(best):
        demand, choice = problem.demands[source], routes[0]
        variant = problem.variants[choice.variant]
        work = demand.priority * demand.volume * (variant.reach[:-1] @ variant.block_s)
        taken = np.maximum(problem.room_parts[variant.model].sum(axis=0), 1e-9)
        prices = np.maximum(prices, np.maximum(work[list(set(choice.workers))].max() - work, 0.0) / taken)
    return prices
