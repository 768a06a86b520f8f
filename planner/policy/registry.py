"""Policies by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from planner.errors import UsageError
from planner.plan.types import Plan
from planner.policy.adaptive import Adaptive
from planner.policy.batch import Batch
from planner.policy.ddi import Ddi
from planner.policy.mdi import ArMdi, Mdi
from planner.policy.ms_mdi import MsMdi
from planner.policy.pa_mdi import PaMdi
from planner.policy.routed import Local, Planned
from planner.policy.types import Policy
from planner.scenario.instance import Instance
from planner.scenario.types import PolicySpec

_WITHOUT_PLAN: Final[dict[str, Callable[[PolicySpec], Policy]]] = {
    "local": lambda _: Local(),
    "ddi": lambda _: Ddi(),
    "mdi": lambda _: Mdi(),
    "ar-mdi": lambda _: ArMdi(),
    "ms-mdi": lambda spec: MsMdi(reservoir_limit=spec.reservoir_limit, literal=spec.literal),
    "pa-mdi": lambda _: PaMdi(),
}
_WITH_PLAN: Final[dict[str, Callable[[Instance, Plan], Policy]]] = {
    "planned": lambda _, plan: Planned(plan),
    "adaptive": lambda instance, plan: (Batch if plan.goal == "makespan" else Adaptive)(instance, plan),
}

POLICIES: Final = (*_WITHOUT_PLAN, *_WITH_PLAN)


def needs_plan(name: str) -> bool:
    """Tell whether a policy follows a plan."""
    return name in _WITH_PLAN


def make_policy(name: str, instance: Instance, plan: Plan | None) -> Policy:
    """Make one worker's policy, with the options of the scenario's policy section.

    Raises
    ------
    UsageError
        The name is unknown, or the policy follows a plan and there is none.
    """
    if name in _WITHOUT_PLAN:
        return _WITHOUT_PLAN[name](instance.scenario.policy)
    if name not in _WITH_PLAN:
        raise UsageError("unknown policy", where="--policy", value=name, expected=" | ".join(POLICIES))
    if plan is None:
        raise UsageError(f"policy {name!r} follows a plan, and none was given", expected="--plan PLAN")
    return _WITH_PLAN[name](instance, plan)
