"""A plan for what is left: solved again, from the plan before, when workers left, came back or became slow."""

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
"""While it lasts the samples go on by what is left of the plan before."""

GAP: Final = 0.01
"""Enough for a plan that replaces one which has lost a worker."""

_REPEATABLE_S: Final = 60.0
"""A search cut short would not be repeatable, and in virtual time nothing waits for it."""


def warm_up() -> None:
    """Load what solves, so that the first plan does not wait for it."""
    load_method(METHOD)


def solve_again(instance: Instance, plan: PlanSpec, situation: Situation, time_limit_s: float) -> PlanSpec | None:
    """Give a plan for the sources whose workers are there, if there is one; its routes avoid the absent ones.

    Parameters
    ----------
    plan
        The plan for all workers: its routes that still exist are where the search starts.
    """
    left = situation.applied(instance)
    # Arrivals without a rate have a plan only for the goals that do without rates.
    rated = all(source.rate_per_s is not None for source in left.scenario.sources.values())
    if not left.sources or (left.scenario.objective.goal == "delay" and not rated):
        return None
    return solve(left, method=METHOD, routes="shared", start=plan, gap=GAP, time_limit_s=time_limit_s).plan


class Replanner:
    """Solves an instance for the workers that are there, as fast as they are; it remembers what it has found before.

    Parameters
    ----------
    plan
        The plan for all workers.
    """

    def __init__(self, instance: Instance, plan: PlanSpec, *, time_limit_s: float = TIME_LIMIT_S) -> None:
        self._instance = instance
        self._plan = plan
        self._time_limit_s = time_limit_s
        self._known: dict[Situation, PlanSpec | None] = {Situation(): plan}

    def __call__(self, absent: Collection[str], slowness: Mapping[str, float] | None = None) -> PlanSpec | None:
        """Give a plan without some workers, if there is one.

        Parameters
        ----------
        slowness
            How many times longer blocks take now on some workers.
        """
        situation = Situation.of(absent, slowness or {})
        if situation not in self._known:
            self._known[situation] = solve_again(self._instance, self._plan, situation, self._time_limit_s)
        return self._known[situation]


def replanner(instance: Instance, policy: str, plan: PlanSpec | None) -> Replanner | None:
    """Give what solves a plan again in virtual time, where a policy follows it and workers leave or change."""
    churn = any(event.worker is not None for event in instance.scenario.events)
    if plan is None or not churn or not needs_plan(policy):
        return None
    return Replanner(instance, plan, time_limit_s=_REPEATABLE_S)
