"""Policies by name."""

from __future__ import annotations

from planner.errors import UsageError
from planner.plan.types import Plan
from planner.policy.routed import Local, Planned
from planner.policy.types import Policy

POLICIES = ("local", "planned")


def make_policy(name: str, plan: Plan | None) -> Policy:
    """Make one worker's policy.

    Raises
    ------
    UsageError
        The name is unknown, or the policy follows a plan and there is none.
    """
    if name == "local":
        return Local()
    if name == "planned":
        if plan is None:
            raise UsageError("policy 'planned' follows a plan, and none was given", expected="--plan PLAN")
        return Planned(plan)
    raise UsageError("unknown policy", where="--policy", value=name, expected=" or ".join(POLICIES))
