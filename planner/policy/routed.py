"""``local`` and ``planned``: policies under which a sample's whole route is known when it starts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import Final

from planner.plan.limits import tail_limits
from planner.plan.types import PlanSpec, Route
from planner.policy.base import BasePolicy, PriorityPolicy
from planner.policy.candidate_routes import whole_model_at_home
from planner.policy.types import Refuse, Task, View, Waiting
from planner.policy.urgency import Urgency
from planner.scenario.instance import Instance

_GOLDEN: Final = (5**0.5 - 1) / 2


class Local(BasePolicy):
    """Every sample is computed where it arrives, first come, first served."""


class Planned(PriorityPolicy):
    """The solver's routes, each as often as its share says, served by priority between blocks.

    The route of a source's n-th sample is the one whose cumulated share holds the n-th term of the additive recurrence
    n φ mod 1 with the golden ratio φ, which of all such sequences keeps the shares most evenly over any run of samples.
    When a worker has left, or a hop is broken, the routes over it drop out; a source with none left computes at home.

    Samples with deadlines are served in the scenario's order (:mod:`planner.policy.urgency`). Where a source limits its
    late samples or percentiles, and with ``order: priority``, that is by priority, and by slack within a class: delays
    remain those of priority queues, by which such limits are verified, and a sample is refused if what is served before
    it at home makes it late. Routes on which all samples of a source would be dropped are left out.
    """

    batches = True
    looks_between_blocks = True

    def __init__(self, instance: Instance, plan: PlanSpec) -> None:
        order = instance.scenario.policy.order
        limited = any(tail_limits(spec) for spec in instance.scenario.sources.values())
        self._urgency = Urgency(instance, order)
        self._as_evaluated = limited or order == "priority" or not self._urgency.deadline_s
        self._refuses = self._as_evaluated and instance.scenario.policy.admission
        self.keeps_order = not self._urgency.deadline_s
        self._routes: dict[str, tuple[Route, ...]] = {}
        self._follow(plan)
        self._drawn: dict[str, int] = defaultdict(int)

    def _follow(self, plan: PlanSpec) -> None:
        for source, entry in plan.sources.items():
            in_time = tuple(route for route in entry.routes if self._urgency.may_be_in_time(source, route))
            self._routes[source] = in_time or entry.routes

    def replanned(self, view: View, plan: PlanSpec) -> None:  # noqa: ARG002
        """Draw from another plan's routes from now on."""
        self._follow(plan)

    def route(self, view: View, source: str) -> Route | Refuse:
        """Draw one of the plan's routes by its share; refuse a sample that what waits here makes late."""
        route = self._draw(view, source)
        late_s = self._urgency.late_at_home_s(view, source, route) if self._refuses else 0.0
        return Refuse(late_s) if late_s > 0 else route

    def queue(self, task: Task) -> Hashable:
        """Put each task with a deadline into a queue of its own, unless it is served as the plan is evaluated."""
        return task.priority if self._as_evaluated else self._urgency.queue(task)

    def rank(self, task: Task) -> float:
        """Put the one first that has to begin its stage first; without deadlines, first come, first served."""
        return 0.0 if self.keeps_order else self._urgency.start_s(task)

    def choose(self, view: View, heads: Mapping[Hashable, Waiting]) -> Hashable | None:
        """Serve the highest priority, or in the order for samples with deadlines."""
        return super().choose(view, heads) if self._as_evaluated else self._urgency.choose(view, heads)

    def _draw(self, view: View, source: str) -> Route:
        routes: Sequence[Route] = self._routes[source]
        if view.impaired:
            home = view.instance.home(source)
            routes = [route for route in routes if view.passable(home, route)]
        if not routes:
            return whole_model_at_home(view.instance, source)
        self._drawn[source] += 1
        if len(routes) == 1:
            return routes[0]
        point = self._drawn[source] * _GOLDEN % 1.0 * sum([route.share for route in routes], 0.0)
        for route in routes[:-1]:
            point -= route.share
            if point < 0:
                return route
        return routes[-1]
