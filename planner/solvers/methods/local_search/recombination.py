"""Recombination of the routes of many plans by a mixed-integer program, for ``throughput`` and ``makespan``.

One route of each source is chosen so that the busiest resource, and for ``makespan`` the longest unloaded delay, are
least. Only routes that are by themselves better than the best plan take part.

References
----------
Y. Rochat and É. D. Taillard, "Probabilistic diversification and intensification in local search for vehicle routing",
Journal of Heuristics 1 (1995): a set partitioning program over the routes of many solutions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from planner.solvers.core.highs import INFINITY, Program
from planner.solvers.core.problem import Choice, Choices
from planner.solvers.core.search_state import Search

MAX_NODES = 300
"""Nodes of the program's tree: a number, unlike seconds, ends it at the same plan on every machine."""
GAP = 1e-3

Candidate = tuple[int, Choice]
"""A source and one of its routes."""


def recombine(search: Search, routes: Iterable[Candidate]) -> None:
    """Offer the best combination of ``routes``, and of those of the best plan, that the program finds."""
    if not search.incumbents:
        return
    best = min(search.incumbents, key=lambda choices: search.incumbents[choices])
    chosen = [(source, choice) for source, (choice,) in enumerate(best)]
    promising = (candidate for candidate in routes if _alone(search, *candidate) < search.best)
    candidates = list(dict.fromkeys([*chosen, *promising]))
    if len(candidates) == len(chosen):
        return
    program = _program(search, candidates)
    program.start_from({number: float(number < len(chosen)) for number in range(len(candidates))})
    result = program.run()
    if result.values is None:
        return
    found: list[tuple[Choice, ...]] = [() for _ in chosen]
    for (source, choice), value in zip(candidates, result.values.tolist(), strict=False):
        if value > 1 / 2:
            found[source] = (choice,)
    combined: Choices = tuple(found)
    search.offer(combined)
    search.report()


def _alone(search: Search, source: int, choice: Choice) -> float:
    """Return the objective of a route as if there were no other; infinite where it is not allowed."""
    problem = search.problem
    if not problem.allowed(source, choice):
        return float("inf")
    cost = problem.cost(source, choice)
    busiest = float((problem.demands[source].volume * cost.seconds / problem.usable[cost.resources]).max())
    return busiest + cost.unloaded_s * (problem.goal == "makespan")


def _program(search: Search, candidates: list[Candidate]) -> Program:
    """Return the program: a binary column for each candidate, then the largest load and the longest delay."""
    problem, options = search.problem, search.options
    settings = {"mip_rel_gap": GAP, "random_seed": options.seed, "mip_max_nodes": MAX_NODES}
    program = Program(threads=options.threads, deadline=options.deadline, settings=settings)
    count, unit = len(candidates), search.best
    largest, longest = count, count + 1
    program.add_columns(np.zeros(count + 2), np.append(np.ones(count), [INFINITY] * 2), integer=np.arange(count))
    shares: dict[int, dict[int, float]] = defaultdict(dict)
    delays: dict[int, dict[int, float]] = defaultdict(lambda: {longest: -1.0})
    loads: dict[int, dict[int, float]] = defaultdict(dict)
    for number, (source, choice) in enumerate(candidates):
        cost = problem.cost(source, choice)
        shares[source][number] = 1.0
        delays[source][number] = cost.unloaded_s / unit
        used = problem.demands[source].volume * cost.seconds / (unit * problem.usable[cost.resources])
        for resource, part in zip(cost.resources.tolist(), used.tolist(), strict=True):
            loads[resource][number] = part
    for entries in shares.values():
        program.add_row(1.0, 1.0, entries)
    for entries in (*delays.values(), *({largest: -1.0, **of_resource} for of_resource in loads.values())):
        program.add_row(-INFINITY, 0.0, entries)
    program.set_costs(np.append(np.zeros(count), [1.0, float(problem.goal == "makespan")]))
    return program
