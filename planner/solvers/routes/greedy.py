"""Greedy routes to start from: one source after another takes its cheapest route at the present marginal prices."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np

from planner.solvers.core.deadline import Deadline, Expired
from planner.solvers.core.problem import Choice, Choices, Problem
from planner.solvers.core.resource_prices import RunningPrices
from planner.solvers.routes.pricing import cheapest_routes

SITE_TURNS = 4
"""Turns of the sources of one class and site: those of one turn choose at the same prices."""


def greedy_rounds(
    problem: Problem, rounds: int, *, averaging: bool = False, deadline: Deadline | None = None
) -> list[Choices]:
    """Return the routes after each round; within a round the sources choose in order of priority.

    With ``averaging`` a source moves only 1 / t of its samples to its cheapest route in round t (method of successive
    averages, a Frank-Wolfe method); the routes of all rounds together are good candidates for sharing samples.
    At the ``deadline`` the list ends.

    Raises
    ------
    Expired
        The deadline passes in the first round.
    """
    running = RunningPrices(problem)
    chosen: dict[int, Choice] = {}
    after_rounds: list[Choices] = []
    turns = _turns(problem)
    for number in range(rounds):
        moved = 1 / (number + 1) if averaging else 1.0
        for sources in turns:
            if deadline is not None and deadline.passed:
                if not after_rounds:
                    raise Expired
                return after_rounds
            if not averaging:
                for source in sources:
                    running.drop(source)
            priced = cheapest_routes(problem, running.prices(), chosen, sources)
            for source, (_, choice) in zip(sources, priced, strict=True):
                chosen[source] = choice
                running.move(source, choice, moved)
        after_rounds.append(tuple((chosen[source],) for source in range(len(problem.demands))))
    return after_rounds


def _turns(problem: Problem) -> list[list[int]]:
    """Return the sources that choose together, in order of priority: one at a time unless workers form sites."""
    order: list[int] = np.argsort(problem.classes.of_source, kind="stable").tolist()
    if problem.sites is None:
        return [[source] for source in order]
    seen: Counter[tuple[int, int]] = Counter()
    turns: dict[tuple[int, int], list[int]] = defaultdict(list)
    for source in order:
        level, site = int(problem.classes.of_source[source]), int(problem.sites.of_worker[problem.demands[source].home])
        turns[level, seen[level, site] % SITE_TURNS].append(source)
        seen[level, site] += 1
    return [turns[key] for key in sorted(turns)]


def completed(problem: Problem, known: Choices) -> Choices:
    """Return ``known`` with the cheapest route, at marginal prices, for each source that has none."""
    choices = list(known)
    running = RunningPrices(problem, problem.load(known))
    for source in np.argsort(problem.classes.of_source, kind="stable").tolist():
        if not choices[source]:
            [(_, choice)] = cheapest_routes(problem, running.prices(), sources=[source])
            choices[source] = (choice,)
            running.move(source, choice)
    return tuple(choices)
