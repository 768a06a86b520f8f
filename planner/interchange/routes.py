"""The route of a plan that has only one, as the formats of other projects want it."""

from __future__ import annotations

from planner.errors import InterchangeError
from planner.plan.types import PlanSpec, Route


def only_route(plan: PlanSpec) -> tuple[str, Route]:
    """Return the source and the route of a plan with one source whose samples all take one route.

    Raises
    ------
    InterchangeError
        If there are several.
    """
    if len(plan.sources) > 1:
        raise InterchangeError(
            "a schedule is for one source, and the plan has several",
            where="plan: sources",
            value=list(plan.sources),
            expected="a plan of a scenario with one source",
        )
    (source, found), *_ = plan.sources.items()
    if len(found.routes) > 1:
        raise InterchangeError(
            "a schedule has one route, and the plan splits the samples among several",
            where=f"plan: sources.{source}",
            value=len(found.routes),
            expected="a plan by `planner solve --routes single`",
        )
    return source, found.routes[0]
