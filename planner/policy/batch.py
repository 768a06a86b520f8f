"""``adaptive`` for the goal ``makespan``: the plan's shares, and samples that leave as fast as the plan can carry them.

The least makespan is that of a fluid: all sources end together, and no bottleneck is ever idle. Samples that all left
at once would be served by priority, so one source would be done first, while workers that only the others need idle.
So here priorities say nothing: workers serve the source first that is furthest behind, and each route of the plan has
a pace. The k-th of the n samples of a source that take a route leaves at (k − 1) M / n at the earliest, where M is the
work of the busiest resource under the plan; less a head start, the time that a sample of the slowest source takes
alone, which keeps the bottleneck busy when some are late. Workers and networks that are faster than the plan thinks are
not held up: a source always has as many samples in flight as it would have at its pace if none of them had to wait
(Little's law).

Workers tell the homes of the sources how much work waits. While that is far more than it should be somewhere, as when
a worker has become slow, samples take other routes, whatever the shares.

The constants are :class:`planner.scenario.types.BatchParameters`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from planner.plan.types import PlanSpec, Route
from planner.policy.base import BasePolicy
from planner.policy.candidate_routes import whole_model_at_home
from planner.policy.types import Status, Task, View
from planner.scenario.instance import Instance
from planner.scenario.types import BatchParameters


@dataclass(slots=True)
class _PacedRoute:
    """A route of the plan, paced for the samples of one source.

    Parameters
    ----------
    due_s
        When the next sample is to leave.
    every_s
        The time between two samples.
    left
        Number of samples that the plan still has for it; a share is no whole number of them.
    """

    route: Route
    due_s: float
    every_s: float
    left: float


class Batch(BasePolicy):
    """The plan's routes by their shares, each at its pace.

    Parameters
    ----------
    parameters
        By default those of the instance's scenario.
    """

    looks_between_blocks = True
    gossips = True

    def __init__(self, instance: Instance, plan: PlanSpec, parameters: BatchParameters | None = None) -> None:
        self._parameters = parameters or instance.scenario.policy.batch
        self._priority = max(spec.priority for spec in instance.scenario.sources.values())
        self._samples = {source: max(instance.samples(source), 1) for source in instance.sources}
        self._gone = dict.fromkeys(instance.sources, 0)
        self._paced: dict[str, list[_PacedRoute]] = {}
        self._follow(plan, now_s=0.0)

    def _follow(self, plan: PlanSpec, now_s: float) -> None:
        works_s = [use.utilisation for use in plan.workers.values()]
        self._makespan_s = max(works_s + [use.utilisation for use in plan.networks.values()])
        self._head_start_s = max(entry.delay_s for entry in plan.sources.values())
        for source, entry in plan.sources.items():
            samples = self._samples[source]
            left = max(samples - self._gone[source], 0)
            self._paced[source] = [
                _PacedRoute(
                    route,
                    due_s=now_s - self._head_start_s,
                    every_s=self._makespan_s / (samples * route.share),
                    left=left * route.share,
                )
                for route in entry.routes
                if route.share > 0
            ]

    def replanned(self, view: View, plan: PlanSpec) -> None:
        """Send what is left on the routes of another plan, at its pace."""
        self._follow(plan, view.now_s)

    def priority(self, view: View, source: str) -> float:  # noqa: ARG002
        """Return the highest of all, whatever the source: the batch is done when the last of all samples is."""
        return self._priority

    def rank(self, task: Task) -> float:
        """Return the share of its source's samples that came before it."""
        return task.key.sample / self._samples[task.key.source]

    def route(self, view: View, source: str) -> Route | float | None:
        """Return the passable route that is due first, or the time at which it is due."""
        home = view.instance.home(source)
        passable = [paced for paced in self._paced[source] if view.passable(home, paced.route)]
        in_flight = view.in_flight.get(source, 0)
        if not passable:
            return None if in_flight else whole_model_at_home(view.instance, source)
        excess_s = {worker: self._excess_s(view, worker) for paced in passable for worker in paced.route.workers}
        if any(excess_s.values()):
            avoid = self._parameters.avoid
            chosen = min(
                passable,
                key=lambda paced: paced.due_s + avoid * max(excess_s[worker] for worker in paced.route.workers),
            )
            whole_s = self._gone[source] * self._makespan_s / self._samples[source] - self._head_start_s
            due_s = min(chosen.due_s, whole_s)
        else:
            fullest = max(paced.left for paced in passable)
            chosen = min(
                (paced for paced in passable if paced.left >= min(fullest, 0.5)), key=lambda paced: paced.due_s
            )
            due_s = chosen.due_s
        enough = in_flight * self._makespan_s >= self._head_start_s * self._samples[source]
        if enough and view.now_s < due_s:
            return due_s
        chosen.due_s += chosen.every_s
        chosen.left -= 1
        self._gone[source] += 1
        return chosen.route

    def _excess_s(self, view: View, worker: str) -> float:
        """Return how much more work waits at a worker than there should be, as far as is known, in seconds."""
        if worker == view.worker:
            backlog_s = sum(view.backlog_s.values(), 0.0)
        else:
            status = view.statuses.get(worker)
            backlog_s = sum([work_s for _, work_s in status.backlog_s], 0.0) if status is not None else 0.0
        return max(backlog_s - self._parameters.behind * self._head_start_s, 0.0)

    # ---- gossip ---------------------------------------------------------------------------------------------------

    def status(self, view: View) -> Status:
        """Return the backlog."""
        step_s = max(self._head_start_s, self._parameters.backlog_step_s)
        steps = round(sum(view.backlog_s.values(), 0.0) / step_s)
        return Status(at_s=view.now_s, backlog_s=((self._priority, steps * step_s),) if steps else ())

    def listeners(self, view: View) -> Iterable[str]:
        """Return the homes of the sources."""
        return dict.fromkeys(spec.worker for spec in view.instance.scenario.sources.values())
