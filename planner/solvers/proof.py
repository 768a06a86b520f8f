"""What would help where a plan is far from its bound."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from planner.plan.types import PlanSpec

POOR_GAP: Final = 0.1
"""Relative gap above which a proof is called poor."""
OUT_OF_TIME: Final = 0.9
"""Fraction of its time limit after which a search counts as ended by it."""
MORE_TIME: Final = 4.0
"""How many times the time limit is recommended where it ended a search."""
LEAST_S: Final = 1.0
"""Least time limit that is recommended, in seconds."""
SHARED_METHODS: Final = ("colgen", "convex")


def poor_proof(plan: PlanSpec, *, fits_milp: bool) -> str | None:
    """Return a warning with what would help, if the gap of a plan is poor.

    Parameters
    ----------
    fits_milp
        Whether the instance is small enough for ``milp``.
    """
    if plan.gap <= POOR_GAP:
        return None
    if plan.bound <= 0:
        proof = f"{plan.method} proves nothing about how good this plan is"
    else:
        proof = f"a better plan may exist: {plan.gap:.0%} of the objective are not proven to be necessary"
    helps = list(_helps(plan, fits_milp=fits_milp))
    return f"{proof}; what may help: {'; '.join(helps)}" if helps else proof


def _helps(plan: PlanSpec, *, fits_milp: bool) -> Iterator[str]:
    limit_s = float(plan.options["time_limit_s"])
    if plan.bound <= 0 and plan.solve_s < OUT_OF_TIME * limit_s and plan.status != "interrupted":
        yield "another method (--method auto)"
        return
    if plan.status == "interrupted":
        yield "no interruption before the time limit"
    elif plan.solve_s >= OUT_OF_TIME * limit_s:
        longer_s = max(MORE_TIME * limit_s, LEAST_S)
        yield f"more time (--time-limit {round(longer_s, -math.floor(math.log10(longer_s))):g}s)"
    shared = plan.method in SHARED_METHODS
    if plan.method == "convex":
        yield "column generation, for any size (--method colgen)"
    if not shared:
        yield "samples shared among routes (--routes shared), for which bounds are close"
        if plan.method == "milp" and not fits_milp:
            yield "a method for this size (--method search)"
        if plan.method == "search" and fits_milp:
            yield "an exact method, since this size allows it (--method milp)"
