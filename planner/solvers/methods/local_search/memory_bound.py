"""Lower bound for ``throughput`` and ``makespan`` where memory is limited: the room for blocks, and priced memory."""

from __future__ import annotations

import dataclasses

from planner.solvers.core.room import largest_load_bound
from planner.solvers.core.search_state import Search
from planner.solvers.methods.local_search.subgradient import Subgradient
from planner.solvers.routes.stage_dp import StagedRoutes

LITTLE_LOAD, LITTLE_KAPPA = 1e-3, 1e-12
"""Load and κ at which queueing is negligible."""
DELAY_STEPS = 60
"""Subgradient steps of the bound on a source's delay."""
ROUNDING = 1e-9


def raise_bound(search: Search) -> None:
    """Raise the bound of a search for ``throughput`` or ``makespan`` by that of the room for blocks."""
    problem = search.problem
    if not problem.memory_binds or problem.goal not in {"throughput", "makespan"}:
        return
    load = largest_load_bound(problem, search.best, lambda: search.out_of_time)
    search.raise_bound(load + (longest_delay_bound(search) if problem.goal == "makespan" else 0.0))


def longest_delay_bound(search: Search) -> float:
    """Return a lower bound on the longest unloaded delay of any source, in seconds, by prices of memory.

    A single source with little load and almost no queueing has a weighted number of samples equal to its load.
    """
    problem, longest = search.problem, 0.0
    for source, demand in enumerate(problem.demands):
        slowest_s = max(float(problem.variants[v].block_s.max(axis=1).sum()) for v in demand.variants)
        volume = LITTLE_LOAD / max(slowest_s, 1e-300)
        alone = dataclasses.replace(
            problem,
            goal="delay",
            kappa=LITTLE_KAPPA,
            loss_s=0.0,
            demands=(dataclasses.replace(demand, volume=volume, priority=1.0),),
        )
        limited = dataclasses.replace(search.options, time_limit_s=search.left_s, start=(), known=(), progress=None)
        own = Search(alone, limited)
        for choices in search.incumbents:
            own.offer((choices[source],))
        staged = [StagedRoutes.of(alone, 0, variant) for variant in demand.variants]
        ascent = Subgradient(own, [staged])
        for _ in range(DELAY_STEPS):
            ascent.step()
            if search.out_of_time:
                break
        longest = max(longest, ascent.bound / volume * (1 - ROUNDING))
    return longest
