"""Result of a solver."""

from __future__ import annotations

from dataclasses import dataclass

from planner.plan.types import PlanSpec, Status


@dataclass(frozen=True)
class Solution:
    """Result of :func:`planner.solvers.solve.solve`: a plan, or the reasons in words why there is none."""

    status: Status
    plan: PlanSpec | None = None
    reasons: tuple[str, ...] = ()
