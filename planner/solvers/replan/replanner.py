"""Re-planning: a new plan, warm-started from the old one, when workers leave, return or become slow."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from planner.plan.replan import Situation
from planner.plan.types import PlanSpec
from planner.policy.registry import needs_plan
from planner.scenario.instance import Instance
from planner.solvers.solve import load_method, solve

METHOD: Final = "colgen"

TIME_LIMIT_S: Final = 5.0
"""During a search, samples follow what is left of the old plan."""

GAP: Final = 0.01
"""Optimality gap; a quick plan is worth more than the last percent."""

_VIRTUAL_TIME_LIMIT_S: Final = 60.0
"""In virtual time nothing waits for a search, and one that ends by its gap is reproducible."""


def warm_up() -> None:
    """Import the solver library, so that the first plan does not wait for it."""
    load_method(METHOD)


def solve_again(instance: Instance, plan: PlanSpec, situation: Situation, time_limit_s: float) -> PlanSpec | None:
    """Return a plan for the sources whose workers are present, on routes that avoid absent workers, or None.

    Parameters
    ----------
    plan
        The plan for all workers; its routes that still exist are the warm start.
    time_limit_s
        Time limit of the search.
    """
    remaining = situation.applied(instance)
    # The goal delay needs the rates of all sources.
    rated = all(source.rate_per_s is not None for source in remaining.scenario.sources.values())
    if not remaining.sources or (remaining.scenario.objective.goal in {"delay", "misses"} and not rated):
        return None
    # Ranking by evaluated delay would take as long as the search.
    return solve(
        remaining, method=METHOD, routes="shared", start=plan, gap=GAP, rank="surrogate", time_limit_s=time_limit_s
    ).plan


class Replanner:
    """Re-plans for the present workers at their present speeds, and caches the plan of each situation.

    Parameters
    ----------
    plan
        The plan for all workers.
    time_limit_s
        Time limit of each search.
    """

    def __init__(self, instance: Instance, plan: PlanSpec, *, time_limit_s: float = TIME_LIMIT_S) -> None:
        self._instance = instance
        self._plan = plan
        self._time_limit_s = time_limit_s
        self._known: dict[Situation, PlanSpec | None] = {Situation(): plan}

    def __call__(self, absent: Collection[str], slowness: Mapping[str, float] | None = None) -> PlanSpec | None:
        """Return a plan without the absent workers, or None if there is none.

        Parameters
        ----------
        slowness
            By worker, the factor by which its blocks take longer than profiled.
        """
        situation = Situation.of(absent, slowness or {})
        if situation not in self._known:
            self._known[situation] = solve_again(self._instance, self._plan, situation, self._time_limit_s)
        return self._known[situation]


def replanner(instance: Instance, policy: str, plan: PlanSpec | None) -> Replanner | None:
    """Return a replanner in virtual time; None if the policy follows no plan or no event concerns a worker."""
    churn = any(event.worker is not None for event in instance.scenario.events)
    if plan is None or not churn or not needs_plan(policy):
        return None
    return Replanner(instance, plan, time_limit_s=_VIRTUAL_TIME_LIMIT_S)
