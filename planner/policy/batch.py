"""Routes for the goal ``makespan``: the plan's shares, and samples that leave as fast as the plan can carry them.

The least makespan is that of a fluid: all sources end together, and the bottleneck is never idle. Samples that all left
at once would be served by priority, so one source would be done first, while workers that only the others need idle.
So a source's k-th sample leaves its reservoir at k M / n at the earliest, where n is the source's number of samples and
M the work of the busiest resource under the plan; less the time that a sample of the slowest source takes alone, which
keeps the bottleneck busy when some are late. With much more than that priorities decide again who is done first.
"""

from __future__ import annotations

from collections import defaultdict

from planner.plan.types import Plan, Route
from planner.policy.routed import Planned
from planner.policy.types import View


class Batch(Planned):
    """The plan's routes by their shares, each source at its pace."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self._gone: dict[str, int] = defaultdict(int)
        self._keep_pace(plan)

    def _keep_pace(self, plan: Plan) -> None:
        works_s = [use.utilisation for use in plan.workers.values()]
        self._makespan_s = max(works_s + [use.utilisation for use in plan.networks.values()])
        self._head_start_s = max(entry.delay_s for entry in plan.sources.values())

    def replanned(self, view: View, plan: Plan) -> None:
        """Keep the routes and the pace of another plan from now on."""
        super().replanned(view, plan)
        self._keep_pace(plan)

    def route(self, view: View, source: str) -> Route | None:
        """Draw a route by its share, unless it is too early; one sample is always on its way."""
        due_s = self._gone[source] * self._makespan_s / view.instance.samples(source) - self._head_start_s
        if view.in_flight.get(source, 0) and view.now_s < due_s:
            return None
        self._gone[source] += 1
        return super().route(view, source)
