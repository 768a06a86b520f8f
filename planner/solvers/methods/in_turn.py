"""Methods in turn: each continues from the plans of those before, and the best bound of all counts."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Sequence

from planner.solvers.core.infeasibility import explain_infeasibility
from planner.solvers.core.problem import Choices, Problem, largest
from planner.solvers.core.search_state import Options, Outcome, Search

Method = Callable[[Problem, Options], Outcome]

BRIEF_S = 20.0
"""Most seconds of a method that another one for the same routes follows; usually it ends by itself long before.
Whatever the time limit, it takes the same steps and hands over the same plans, so that more time is never worse."""
SHARED_FRACTION, SHARED_FRACTION_WITH_MEMORY = 0.5, 0.15
"""Fraction of the time limit for a first turn of a method that shares routes, and where memory binds: its plans are
good only where other routes tell which blocks should be resident."""
SINGLE_FRACTION = 0.8
"""Fraction of the time left for a turn of a method that finds single routes."""
MAX_HANDED_OVER = 4
"""Number of plans, the best ones, that a method hands over."""


def solve_in_turn(
    problem: Problem,
    options: Options,
    methods: Sequence[Method],
    tighter: Sequence[Method] = (),
    otherwise: Method | None = None,
) -> Outcome:
    """Return the outcome of ``methods``, which run in turn until the gap is closed or the time is over.

    Parameters
    ----------
    tighter
        Methods for one route per source, whose plans are valid here but whose bounds are not; the last of ``methods``
        and they take turns, and each continues from the plans of the other.
    otherwise
        Uses the time that is left where the others end without a plan: to find one, or to prove that there is none.
    """
    search = Search(problem, options)
    last = Outcome("no_solution")
    for method in methods[:-1]:
        last = method(problem, _continued(search, BRIEF_S, brief=True))
        _take(search, last)
        if _ended(search) or last.status == "infeasible":
            return _outcome(search, last)
    if tighter:
        return _alternate(search, methods[-1], tighter)
    if len(methods) == 1 and otherwise is None:
        return methods[0](problem, options)
    last = methods[-1](problem, _continued(search, search.left_s))
    _take(search, last)
    if otherwise and last.status == "no_solution" and not search.out_of_time:
        last = _proved(search, last, otherwise)
    return _outcome(search, last)


def _proved(search: Search, unsolved: Outcome, method: Method) -> Outcome:
    """Return the outcome of another method, with the reasons of one that found no plan where it adds none."""
    last = method(search.problem, _continued(search, search.left_s))
    _take(search, last)
    if last.status != "infeasible":
        return dataclasses.replace(last, reasons=unsolved.reasons)
    unknown = last.reasons == explain_infeasibility(search.problem, None)
    return dataclasses.replace(last, reasons=(*last.reasons, *unsolved.reasons)) if unknown else last


def _alternate(search: Search, method: Method, tighter: Sequence[Method]) -> Outcome:
    """Return the outcome of a ``method`` that shares routes, which takes turns with each of the ``tighter`` ones.

    What one of them leaves of its time, the next uses. They end when none finds a better plan or bound any more.
    """
    problem, last = search.problem, Outcome("no_solution")
    part = SHARED_FRACTION_WITH_MEMORY if problem.memory_binds else SHARED_FRACTION
    idle = 0
    for turn in itertools.count():
        before = search.best, search.bound
        last = method(problem, _continued(search, search.left_s * part))
        _take(search, last)
        if _ended(search) or last.status == "infeasible":
            break
        number = turn % len(tighter)
        final = number == len(tighter) - 1
        _search_singly(search, tighter[number], turn, brief=not final)
        part = 1.0 if final else SHARED_FRACTION
        idle = idle + 1 if (search.best, search.bound) == before else 0
        if _ended(search) or idle == len(tighter):
            break
    return _outcome(search, last)


def _search_singly(search: Search, method: Method, turn: int, *, brief: bool) -> None:
    """Offer the plans of a method for single routes.

    The first one takes the same steps as if routes were not shared, later ones go on from all plans.
    """
    limit_s = search.left_s * SINGLE_FRACTION
    options = _continued(search, min(limit_s, BRIEF_S) if brief else limit_s, brief=brief)
    known = options.known if turn else search.options.known
    options = dataclasses.replace(
        options, seed=options.seed + turn, start=_singly(options.start), known=_singly(known), progress=None
    )
    for choices in method(search.problem, options).incumbents:
        search.offer(choices)


def _outcome(search: Search, last: Outcome) -> Outcome:
    """Return what was found so far, and what only the ``last`` method knows."""
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
