"""``adaptive``: the solver's routes as the menu, each sample's route by what it would cost now.

For each route of the menu the source's worker walks through it in thought: transfers, waiting behind what is known to
be queued, computation. The sample's own delay T is not all that its route costs: work of w seconds on a worker delays
what waits there with lower priority, and, until that worker's busy period ends, what will come with no higher priority.
So the route with the least

    p T + θ Σ_d w_d Σ_{j: p_j <= p} p_j (n_jd + λ_jd (b_jd + w_d / 2) / (1 − ρ_jd))

is taken, where on resource d (worker or network) n_jd tasks of class j wait (of lower priority than p only), b_jd
seconds of work of class j and above are left, and λ_jd and ρ_jd are the rate of class j and the utilisation by it and
those above, as measured. With θ = 1 this is the marginal cost of the sample to the weighted sum of all delays when
nobody else's route changes: a task of class j that comes before the busy period of its class and above ends is delayed
by w_d, and that period lasts (b + w/2) / (1 − ρ) on average (M/G/1; Kleinrock 1975, 5.8).

Queues are served by priority between blocks. A waiting task's priority grows with its wait, so that none starves.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from math import exp, inf
from typing import Final, NamedTuple

from planner.plan.types import Plan, Route
from planner.policy.base import PriorityPolicy
from planner.policy.menu import whole_model_at_home, wide_menu
from planner.policy.types import ClassLoad, Status, View, Waiting
from planner.scenario.instance import Instance

AGEING_S: Final = 10.0
"""A task that has waited this long counts with twice its priority, after twice as long with three times, and so on."""

MEMORY_S: Final = 5.0
"""Rates are averages over about this long."""

QUANTUM_S: Final = 1e-3

LARGEST_UTILISATION: Final = 0.95

OTHERS: Final = 0.5
"""Weight of the delay of others. The formula takes their routes as given; those that come later choose again, and so
escape part of it. One half gave less delay than 0 and than 1 on random scenarios."""


@dataclass(slots=True)
class _Rates:
    """What comes to a resource by class, with weights that fade."""

    tasks: dict[float, float] = field(default_factory=dict)
    work_s: dict[float, float] = field(default_factory=dict)
    at_s: float = 0.0

    def add(self, now_s: float, priority: float, work_s: float) -> None:
        factor = exp((self.at_s - now_s) / MEMORY_S)
        self.at_s = now_s
        for table in (self.tasks, self.work_s):
            for known in table:
                table[known] *= factor
        self.tasks[priority] = self.tasks.get(priority, 0.0) + 1
        self.work_s[priority] = self.work_s.get(priority, 0.0) + work_s

    def loads(self, now_s: float, waiting: Mapping[float, int]) -> tuple[ClassLoad, ...]:
        """Give loads by class."""
        factor = exp((self.at_s - now_s) / MEMORY_S) / (MEMORY_S * (1 - exp(-max(now_s, 0.1) / MEMORY_S)))
        return tuple(
            ClassLoad(priority, waiting.get(priority, 0), tasks * factor, self.work_s[priority] * factor)
            for priority, tasks in self.tasks.items()
        )


@dataclass(slots=True)
class _Link:
    """What this worker's own samples ask of a network resource."""

    rates: _Rates = field(default_factory=_Rates)
    free_s: dict[float, float] = field(default_factory=dict)
    """When it is done with all it was given of a priority and above."""

    def busy_s(self, at_s: float, priority: float) -> float:
        """Give the work of a priority and above that is left at a time, in seconds."""
        return max(self.free_s.get(priority, 0.0) - at_s, 0.0)

    def add(self, priority: float, at_s: float, work_s: float, classes: Iterable[float]) -> None:
        self.rates.add(at_s, priority, work_s)
        for other in classes:
            if other <= priority:
                self.free_s[other] = max(self.free_s.get(other, 0.0), at_s) + work_s


class _Sent(NamedTuple):
    """Work on its way to a worker."""

    arrives_s: float
    priority: float
    work_s: float


class _Leg(NamedTuple):
    """One hop of a transfer."""

    resource: str
    work_s: float
    latency_s: float


class _Step(NamedTuple):
    """A stage of a route of the menu, and the way to it."""

    legs: tuple[_Leg, ...]
    worker: str
    work_s: float


class _Option(NamedTuple):
    """A route of the menu, walked through; the last step, home, has no work."""

    route: Route
    steps: tuple[_Step, ...]


class Adaptive(PriorityPolicy):
    """Live choice among the solver's routes and others that are near them; see the module."""

    looks_between_blocks = True
    gossips = True

    def __init__(self, instance: Instance, plan: Plan) -> None:
        self._menu = wide_menu(instance, plan)
        self._options: dict[str, list[_Option]] = {}
        self._rates = _Rates()
        self._links: dict[str, _Link] = defaultdict(_Link)
        self._sent: dict[str, deque[_Sent]] = defaultdict(deque)

    # ---- where to -------------------------------------------------------------------------------------------------

    def route(self, view: View, source: str) -> Route | None:
        """Give the route of least marginal cost among those whose workers are there."""
        if source not in self._options:
            self._options[source] = [_walk(view, source, route) for route in self._menu[source]]
        priority = view.priorities[source]
        own = self.status(view)
        known: Mapping[str, Status] = {**view.statuses, view.worker: own}
        best, best_cost = None, inf
        for option in self._options[source]:
            if view.absent and any(step.worker in view.absent for step in option.steps):
                continue
            cost = self._cost(view, known, option, priority, best_cost)
            if cost < best_cost:
                best, best_cost = option, cost
        if best is None:
            return whole_model_at_home(view.instance, source)
        self._remember(view, best, priority)
        return best.route

    def _cost(self, view: View, known: Mapping[str, Status], option: _Option, priority: float, limit: float) -> float:
        """Give the marginal cost of a route; infinity as soon as it is not under the limit."""
        time_s, outside, now_s = view.now_s, 0.0, view.now_s
        for step in option.steps:
            for leg in step.legs:
                link = self._links[leg.resource]
                busy = partial(link.busy_s, time_s)
                outside += leg.work_s * _delayed(link.rates.loads(now_s, {}), priority, leg.work_s, busy)
                time_s += busy(priority) + leg.work_s + leg.latency_s
            if step.work_s == 0.0:
                continue
            status = known.get(step.worker)
            busy = partial(self._busy_s, view, step.worker, status, time_s)
            if status is not None:
                outside += step.work_s * _delayed(status.loads, priority, step.work_s, busy)
            time_s += busy(priority) + step.work_s
            if priority * (time_s - now_s) + OTHERS * outside >= limit:
                return inf
        return priority * (time_s - now_s) + OTHERS * outside

    def _remember(self, view: View, option: _Option, priority: float) -> None:
        time_s = view.now_s
        classes = set(view.priorities.values())
        for step in option.steps:
            for leg in step.legs:
                link = self._links[leg.resource]
                wait_s = link.busy_s(time_s, priority)
                link.add(priority, time_s, leg.work_s, classes)
                time_s += wait_s + leg.work_s + leg.latency_s
            if step.worker != view.worker and step.work_s > 0.0:
                self._sent[step.worker].append(_Sent(time_s, priority, step.work_s))
            time_s += step.work_s

    def _busy_s(self, view: View, worker: str, status: Status | None, at_s: float, priority: float) -> float:
        """Expect the work of a priority and above that is left at a worker at a time, in seconds.

        It is what the worker told, less the time since, and what this worker has sent there and the other cannot know.
        """
        busy_s, known_s = 0.0, -inf
        if status is not None:
            known_s = status.at_s
            told_s = sum(backlog_s for other, backlog_s in status.backlog_s if other >= priority)
            busy_s = max(told_s + status.running_s - (at_s - known_s), 0.0)
        if worker != view.worker:
            sent = self._sent[worker]
            while sent and sent[0].arrives_s <= known_s:
                sent.popleft()
            for own in sent:
                if own.priority >= priority and own.arrives_s < at_s:
                    busy_s += min(own.work_s, max(own.arrives_s + own.work_s - at_s, 0.0))
        return busy_s

    # ---- what is told ---------------------------------------------------------------------------------------------

    def came(self, view: View, waiting: Waiting) -> None:
        """Count it into the rate of its class."""
        task = waiting.task
        work_s = view.costs.stage_s(task.model, view.worker, waiting.first_block, waiting.last_block)
        self._rates.add(view.now_s, task.priority, work_s)

    def status(self, view: View) -> Status:
        """Tell backlog and loads by class."""
        backlog = ((priority, _rounded(work_s)) for priority, work_s in view.backlog_s.items())
        running_s = _rounded(max(view.running_until_s - view.now_s, 0.0))
        waiting = {queue: number for queue, number in view.queued.items() if isinstance(queue, float)}
        loads = self._rates.loads(view.now_s, waiting)
        return Status(at_s=view.now_s, backlog_s=tuple(backlog), running_s=running_s, loads=loads)

    def listeners(self, view: View) -> Iterable[str]:
        """Tell the homes of the sources."""
        return dict.fromkeys(spec.worker for spec in view.instance.scenario.sources.values())

    # ---- whom to serve --------------------------------------------------------------------------------------------

    def choose(self, view: View, heads: Mapping[Hashable, Waiting]) -> Hashable | None:
        """Serve the highest priority, aged by the wait of the first in its queue."""
        return max(
            heads,
            key=lambda queue: heads[queue].task.priority * (1 + (view.now_s - heads[queue].since_s) / AGEING_S),
        )


def _rounded(work_s: float) -> float:
    return round(work_s / QUANTUM_S) * QUANTUM_S


def _walk(view: View, source: str, route: Route) -> _Option:
    """Say what a route's stages and transfers take on their own."""
    home, costs, sizes = view.instance.home(source), view.costs, view.costs.cut_bytes[route.model]
    at, steps = home, []
    for stage in route.stages:
        work_s = costs.stage_s(route.model, stage.worker, stage.first_block, stage.last_block)
        steps.append(_Step(_legs(view, at, stage.worker, sizes[stage.first_block]), stage.worker, work_s))
        at = stage.worker
    steps.append(_Step(_legs(view, at, home, sizes[-1]), home, 0.0))
    return _Option(route, tuple(steps))


def _legs(view: View, sender: str, receiver: str, size_bytes: int) -> tuple[_Leg, ...]:
    path = view.instance.path(sender, receiver)
    hops = path.hops if path is not None else ()
    return tuple(_Leg(hop.resource, size_bytes / hop.bytes_per_s, hop.latency_s) for hop in hops)


def _delayed(loads: Iterable[ClassLoad], priority: float, work_s: float, busy: Callable[[float], float]) -> float:
    """Weigh the tasks that one more second of work of a priority delays, now and in the busy periods it is part of."""
    weight, utilisation = 0.0, 0.0
    for load in sorted(loads, reverse=True):
        utilisation += load.utilisation
        if load.priority <= priority:
            idle = 1 - min(utilisation, LARGEST_UTILISATION)
            weight += load.priority * load.tasks_per_s * (busy(load.priority) + work_s / 2) / idle
            if load.priority < priority:
                weight += load.priority * load.waiting
    return weight
