"""Methods in turn: each continues from the plans of those before, and the best bound of all counts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from planner.solvers.core.problem import Problem
from planner.solvers.core.search_state import Options, Outcome, Search

Method = Callable[[Problem, Options], Outcome]

BRIEF_FRACTION = 0.5
"""Fraction of the time left that a method may take before the last one."""
MAX_HANDED_OVER = 4
"""Number of plans, the best ones, that a method hands over."""


def solve_in_turn(
    problem: Problem, options: Options, methods: Sequence[Method], tighter: Sequence[Method] = ()
) -> Outcome:
    """Return the outcome of ``methods``, which run in turn until the gap is closed or the time is over.

    Parameters
    ----------
    tighter
        Methods for a tighter problem, whose plans are valid here but whose bounds are not; they run at the end.
    """
    if len(methods) == 1 and not tighter:
        return methods[0](problem, options)
    search = Search(problem, options)
    last = Outcome("no_solution")
    for number, method in enumerate(methods):
        final = number == len(methods) - 1
        best = sorted(search.incumbents, key=lambda choices: search.incumbents[choices])[:MAX_HANDED_OVER]
        last = method(
            problem,
            dataclasses.replace(
                options,
                time_limit_s=search.left_s * (1.0 if final else BRIEF_FRACTION),
                known=(*options.known, *best),
                brief=not final,
            ),
        )
        for choices in last.incumbents:
            search.offer(choices)
        search.raise_bound(last.bound)
        if search.gap <= options.gap or search.out_of_time or last.status == "infeasible":
            break
    if tighter and last.status != "infeasible" and search.gap > options.gap and not search.out_of_time:
        limited = dataclasses.replace(
            options, time_limit_s=search.left_s, known=tuple(search.incumbents), progress=None
        )
        for choices in solve_in_turn(problem, limited, tighter).incumbents:
            search.offer(choices)
    if not search.incumbents:
        return last
    return dataclasses.replace(search.outcome(), prices=last.prices, reasons=last.reasons)
