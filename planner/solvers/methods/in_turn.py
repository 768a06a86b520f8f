"""Methods in turn: each continues from the plans of those before, and the best bound of all counts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence

from planner.solvers.core.problem import Choices, Problem, largest
from planner.solvers.core.search_state import Options, Outcome, Search

Method = Callable[[Problem, Options], Outcome]

BRIEF_S = 20.0
"""Most seconds of a method that another one for the same routes follows; usually it ends by itself long before.
Whatever the time limit, it takes the same steps and hands over the same plans, so that more time is never worse."""
TIGHTER_FRACTION = 0.5
"""Fraction of the time left for methods that find single routes among shared ones, and for those before them."""
MAX_HANDED_OVER = 4
"""Number of plans, the best ones, that a method hands over."""


def solve_in_turn(
    problem: Problem, options: Options, methods: Sequence[Method], tighter: Sequence[Method] = ()
) -> Outcome:
    """Return the outcome of ``methods``, which run in turn until the gap is closed or the time is over.

    Parameters
    ----------
    tighter
        Methods for one route per source, whose plans are valid here but whose bounds are not; they run after
        ``methods``,
        of which the last one then continues from a better plan.
    """
    if len(methods) == 1 and not tighter:
        return methods[0](problem, options)
    search = Search(problem, options)
    last = Outcome("no_solution")
    for number, method in enumerate(methods):
        final = number == len(methods) - 1
        limit_s = search.left_s * (TIGHTER_FRACTION if tighter else 1.0) if final else BRIEF_S
        last = method(problem, _continued(search, limit_s, brief=not final))
        _take(search, last)
        if _ended(search) or last.status == "infeasible":
            break
    if tighter and last.status != "infeasible" and not _ended(search):
        best = search.best
        continued = _continued(search, search.left_s * TIGHTER_FRACTION)
        limited = dataclasses.replace(
            continued, start=_singly(continued.start), known=_singly(search.incumbents), progress=None
        )
        for choices in solve_in_turn(problem, limited, tighter).incumbents:
            search.offer(choices)
        if search.best < best and not _ended(search):
            last = methods[-1](problem, _continued(search, search.left_s))
            _take(search, last)
    if not search.incumbents:
        return last
    return dataclasses.replace(search.outcome(), prices=last.prices, reasons=last.reasons)


def _singly(plans: Iterable[Choices]) -> tuple[Choices, ...]:
    """Return plans with the largest route of each source alone, each once."""
    return tuple(dict.fromkeys(tuple(map(largest, choices)) for choices in plans))


def _continued(search: Search, limit_s: float, *, brief: bool = False) -> Options:
    """Return options to continue from the best plans so far, for ``limit_s`` seconds at most."""
    best = sorted(search.incumbents, key=lambda choices: search.incumbents[choices])[:MAX_HANDED_OVER]
    options = search.options
    return dataclasses.replace(
        options, time_limit_s=limit_s, known=(*options.known, *best), brief=brief or options.brief
    )


def _take(search: Search, outcome: Outcome) -> None:
    for choices in outcome.incumbents:
        search.offer(choices)
    search.raise_bound(outcome.bound)


def _ended(search: Search) -> bool:
    return search.gap <= search.options.gap or search.out_of_time
