"""The order of service where samples have deadlines: priority and then slack, or as many in time as can be.

The slack of a sample that waits at a worker is the time that it may still wait there: until its deadline, less the work
and the transfers that are left on its route. A sample without slack cannot be saved: it is served after all others.
Slack grows with each block that is computed. Samples of like slack would take turns, block by block, and all end late;
so their order is that of the slack with which they would have begun here.

``priority``: the highest priority first, and the least slack within a class.

``value``: the earliest due first, as long as all that wait can be done in time. Where they cannot, the samples are put
aside that are worth least for the work that they ask for here, priority by second, until the rest can (Moore and
Hodgson; for unlike weights and times a heuristic). They are served when nothing else waits.

References
----------
J. M. Moore, "An n job, one machine sequencing algorithm for minimizing the number of late jobs", Management Science 15
(1968).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from heapq import heappop, heappush
from itertools import pairwise
from math import inf
from operator import itemgetter
from typing import NamedTuple

from planner.plan.types import Route
from planner.policy.costs import CostTable
from planner.policy.types import SampleKey, Task, View, Waiting
from planner.scenario.instance import Instance
from planner.scenario.types import ServiceOrder


class OwnQueue(NamedTuple):
    """Name of the queue of a single task."""

    priority: float
    key: SampleKey


class Job(NamedTuple):
    """A task with a deadline that waits at a worker: when it has to be done here, and the work that it needs here.

    ``service_s`` is the work that it has had here.
    """

    due_s: float
    work_s: float
    priority: float
    queue: Hashable
    service_s: float = 0.0

    @property
    def latest_s(self) -> float:
        """When it has to go on, without a break."""
        return self.due_s - self.work_s

    @property
    def start_s(self) -> float:
        """When it had to begin here, without a break."""
        return self.latest_s - self.service_s


class Urgency:
    """The deadlines of an instance's samples, and the order in which one worker serves them.

    Parameters
    ----------
    order
        See the module.
    """

    def __init__(self, instance: Instance, order: ServiceOrder) -> None:
        specs = instance.scenario.sources
        self.deadline_s = {source: spec.deadline_s for source, spec in specs.items() if spec.deadline_s is not None}
        """Deadline of a sample of each source that has one, in seconds."""
        self.drops = frozenset(source for source in self.deadline_s if specs[source].late == "drop")
        """Sources whose samples may be given up."""
        self._longest_s = max(self.deadline_s.values(), default=0.0)
        self._instance = instance
        self._costs = CostTable(instance)
        self._first = _PICKS[order]
        self._after_s: dict[Hashable, float] = {}

    def queue(self, task: Task) -> Hashable:
        """Put each task with a deadline into a queue of its own, so that all are seen; others by priority."""
        return OwnQueue(task.priority, task.key) if task.key.source in self.deadline_s else task.priority

    def choose(self, view: View, heads: Mapping[Hashable, Waiting], ageing_s: float = inf) -> Hashable:
        """Choose the queue to serve; tasks without a deadline and hopeless ones go by priority that grows with age."""
        now_s, jobs = view.now_s, []
        best: Hashable = None
        highest = -inf
        for queue, head in heads.items():
            task = head.task
            if task.key.source in self.deadline_s:
                job = self._job(view, head, queue)
                if job.latest_s >= now_s:
                    jobs.append(job)
                    continue
            aged = aged_priority(task, now_s, ageing_s)
            if aged > highest:
                best, highest = queue, aged
        if not jobs:
            return best
        first = jobs[0] if len(jobs) == 1 else self._first(now_s, jobs)
        if best is not None and highest > first.priority and heads[best].task.key.source not in self.deadline_s:
            return best
        return first.queue

    def may_be_in_time(self, source: str, route: Route) -> bool:
        """Return whether a sample that may be given up meets its deadline on a route where nothing else is."""
        if source not in self.drops or self._instance.any_profile(route.model).exits:
            return True
        stage, costs, point = route.stages[0], self._costs, route.operating_point
        task = Task(SampleKey(source, 0, 0), route.model, point, 0.0, 0.0, 0, route.stages)
        size_bytes = costs.cut_bytes[route.model][stage.first_block]
        sent_s = costs.transfer_s(self._instance.home(source), stage.worker, size_bytes)
        work_s = costs.stage_s(route.model, stage.worker, stage.first_block, stage.last_block, point, stage=stage)
        return sent_s + work_s + self._after(costs, task) <= self.deadline_s[source]

    def late_at_home_s(self, view: View, source: str, route: Route) -> float:
        """Return by how much what is served before a new sample at home makes it late at least, in seconds.

        0 for a route that begins elsewhere, and for samples that may not be given up.
        """
        stage = route.stages[0]
        if source not in self.drops or stage.worker != view.worker:
            return 0.0
        point = route.operating_point
        work_s = view.costs.stage_s(route.model, stage.worker, stage.first_block, stage.last_block, point, stage=stage)
        task = Task(SampleKey(source, 0, 0), route.model, point, 0.0, 0.0, 0, route.stages)
        ahead_s = view.ahead_s(view.priorities[source])
        return max(ahead_s + work_s + self.left_s(view, task) - self.deadline_s[source], 0.0)

    def start_s(self, task: Task) -> float:
        """Return when a task has to begin its stage, by the profiles; 0 where no source has a deadline.

        One without a deadline counts as if it had the longest of all.
        """
        deadline_s = self.deadline_s.get(task.key.source)
        if deadline_s is None:
            return task.created_s + self._longest_s if self.deadline_s else 0.0
        stage, costs = task.stages[0], self._costs
        first, last, point = stage.first_block, stage.last_block, task.operating_point
        work_s = costs.compute_s(task.model, stage.worker, first, last, point, stage=stage)
        return task.created_s + deadline_s - work_s - self._after(costs, task)

    def left_s(self, view: View, task: Task) -> float:
        """Return the time from the end of a task's current stage until its result is home, without waiting."""
        return _left_s(view.costs, self._instance, task) if view.costs.slowness else self._after(view.costs, task)

    def _after(self, costs: CostTable, task: Task) -> float:
        key = (task.key.source, task.model, task.operating_point, task.stages)
        if key not in self._after_s:
            self._after_s[key] = _left_s(costs, self._instance, task)
        return self._after_s[key]

    def _job(self, view: View, waiting: Waiting, queue: Hashable) -> Job:
        task = waiting.task
        due_s = task.created_s + self.deadline_s[task.key.source] - self.left_s(view, task)
        first, last = waiting.next_block, waiting.last_block
        work_s = view.costs.compute_s(task.model, view.worker, first, last, task.operating_point, stage=waiting.joined)
        return Job(due_s, work_s, task.priority, queue, waiting.service_s)


def _left_s(costs: CostTable, instance: Instance, task: Task) -> float:
    sizes = costs.cut_bytes[task.model]
    stops = [*(stage.worker for stage in task.stages), instance.home(task.key.source)]
    cuts = [sizes[stage.last_block + 1] for stage in task.stages]
    sent_s = [costs.transfer_s(here, there, size) for (here, there), size in zip(pairwise(stops), cuts, strict=True)]
    point = task.operating_point
    work_s = [
        costs.stage_s(task.model, stage.worker, stage.first_block, stage.last_block, point, stage=stage)
        for stage in task.stages[1:]
    ]
    return sum(sent_s, 0.0) + sum(work_s, 0.0)


def aged_priority(task: Task, now_s: float, ageing_s: float) -> float:
    """Return the current priority of a task, which grows by its first one every ``ageing_s`` seconds."""
    return task.priority * (1 + (now_s - task.created_s) / ageing_s)


def by_priority(now_s: float, jobs: Sequence[Job]) -> Job:  # noqa: ARG001
    """Return the job of the highest priority with the least slack."""
    return min(jobs, key=lambda job: (-job.priority, job.start_s))


def by_slack(now_s: float, jobs: Sequence[Job]) -> Job:  # noqa: ARG001
    """Return the job with the least slack, whatever its priority."""
    return min(jobs, key=lambda job: job.start_s)


def by_value(now_s: float, jobs: Sequence[Job]) -> Job:
    """Return the job that is due first, of those that can be done in time together and are worth most."""
    return next(iter(in_time(now_s, jobs)), by_priority(now_s, jobs))


def in_time(now_s: float, jobs: Sequence[Job]) -> list[Job]:
    """Return jobs that can be done in time, one after the other in this order; the others are worth least for work."""
    kept: list[tuple[float, int]] = []
    ordered = sorted(jobs, key=lambda job: job.due_s)
    done_s, aside = now_s, set()
    for number, job in enumerate(ordered):
        heappush(kept, (job.priority / max(job.work_s, 1e-9), number))
        done_s += job.work_s
        while done_s > job.due_s:
            aside.add(heappop(kept)[1])
            # In order, since sums of floats do not come back by subtraction.
            done_s = sum([ordered[other].work_s for _, other in sorted(kept, key=itemgetter(1))], now_s)
    return [job for number, job in enumerate(ordered) if number not in aside]


_PICKS = {"priority": by_priority, "slack": by_slack, "value": by_value}
