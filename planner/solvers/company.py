"""Plans for workers that share hosts and slow each other down while they compute.

How much depends on the plan. Routes are searched with the times of workers that are alone on their hosts, which gives a
bound for every plan since no block ever takes less; then with the times in the company that these routes bring about;
and, if no plan keeps to all limits so far, with the times beside workers that compute all the time. Each plan is
evaluated in its own company, and the best that keeps to all limits is returned.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Final

from planner.errors import PlanError
from planner.plan.evaluate import Evaluation, Routes, evaluate, in_company
from planner.plan.interval import coverage, with_intervals
from planner.plan.types import PlanSpec
from planner.plan.verify import relative_gap, verify
from planner.scenario.instance import Instance
from planner.solvers.core.deadline import Deadline
from planner.solvers.core.solution import Solution
from planner.solvers.ranking import Rank

SMALL: Final = 1e-3
"""Mean number of co-located workers that compute, below which their company is not worth another search."""


def solve_in_company(
    instance: Instance,
    search: Callable[..., Solution],
    *,
    time_limit_s: float,
    start: PlanSpec | None,
    rank: Rank,
) -> Solution:
    """Return the best plan, with its figures in its own company.

    Parameters
    ----------
    search
        Solves an instance whose company is stated; takes ``time_limit_s`` and ``start``.
    """
    started_s, deadline = time.monotonic(), Deadline.after(time_limit_s)
    alone = search(_beside(instance, 0.0), time_limit_s=time_limit_s / 2, start=start)
    if alone.plan is None:
        return alone
    first = alone.plan
    kept: list[tuple[float, PlanSpec]] = []
    reasons: tuple[str, ...] = ()
    for find in _attempts(instance, first, search, deadline, done=lambda: bool(kept)):
        plan = find()
        if plan is None:
            continue
        evaluation = evaluate(instance, _routes(plan))
        plan = _recorded(instance, plan, evaluation, first)
        try:
            verify(instance, plan)
        except PlanError as error:
            reasons = tuple(map(str, error.faults))
        else:
            kept.append((_value(plan, evaluation, rank), plan))
    if not kept:
        return Solution("no_solution", reasons=reasons)
    plan = min(kept, key=lambda ranked: ranked[0])[1]
    options = {**plan.options, "time_limit_s": time_limit_s}
    plan = plan.model_copy(update={"options": options, "solve_s": time.monotonic() - started_s})
    return Solution(plan.status, plan)


def _attempts(
    instance: Instance,
    first: PlanSpec,
    search: Callable[..., Solution],
    deadline: Deadline,
    *,
    done: Callable[[], bool],
) -> Iterator[Callable[[], PlanSpec | None]]:
    """Yield the searches worth making one after another; ``done`` tells whether one found a plan within all limits."""
    yield lambda: first
    if first.status == "interrupted":
        return
    settled = in_company(instance, _routes(first))
    if max(settled.company.values()) > SMALL:
        yield lambda: search(settled, time_limit_s=max(deadline.left_s, 0.0) / 2, start=first).plan
    if not done():
        crowded = _beside(instance, 1.0)
        yield lambda: search(crowded, time_limit_s=max(deadline.left_s, 0.0), start=first).plan


def _value(plan: PlanSpec, evaluation: Evaluation, rank: Rank) -> float:
    """Return what ranks a plan: less is better."""
    by_delay = {"delay": evaluation.weighted_delay_s, "misses": evaluation.weighted_misses}
    return evaluation.objective if rank == "surrogate" else by_delay.get(plan.goal, evaluation.objective)


def _beside(instance: Instance, share: float) -> Instance:
    """Return the instance in which all co-located workers compute for a share of the time."""
    company = {worker: share * len(others) for worker, others in instance.colocated.items()}
    return instance.model_copy(update={"company": company})


def _routes(plan: PlanSpec) -> Routes:
    return {name: source.routes for name, source in plan.sources.items()}


def _recorded(instance: Instance, plan: PlanSpec, evaluation: Evaluation, first: PlanSpec) -> PlanSpec:
    """Return a plan with its figures in its own company, the bound of ``first``, and how that was found."""
    gap = relative_gap(evaluation.objective, first.bound)
    unproven = "interrupted" if plan.status == "interrupted" else "feasible"
    return plan.model_copy(
        update={
            "options": first.options,
            "status": "optimal" if gap <= first.options["gap"] else unproven,
            "objective": evaluation.objective,
            "bound": min(first.bound, evaluation.objective),
            "gap": gap,
            "search": first.search,
            "coverage": coverage(instance, _routes(plan)),
            "sources": with_intervals(instance, evaluation.sources),
            "workers": evaluation.workers,
            "networks": evaluation.networks,
            "energy": evaluation.energy,
        }
    )
