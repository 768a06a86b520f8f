"""``adaptive``: the solver's routes as the menu, each sample's route by what it would cost now.

For each route of the menu the source's worker walks through it in thought: transfers, waiting behind what is known to
come (:mod:`planner.policy.outlook`), computation. What is done for higher classes meanwhile makes waiting and
computing longer, by 1 / (1 − their utilisation). The sample's own delay T is not all that its route costs: work of w
seconds on a worker delays what waits there with lower priority, and, until that worker's busy period ends, what will
come with no higher priority. So the route with the least

    p (T + 100 v (1 − A))
        + Σ_d w_d ( Σ_{j: p_j < p} p_j n_jd + θ Σ_{j: p_j <= p} p_j λ_jd (b_jd + w_d / 2) / (1 − ρ_jd) )

is taken, where on resource d (worker or network) n_jd tasks of class j wait (known of workers only), b_jd seconds of
work of class j and above are left, and λ_jd and ρ_jd are the rate of class j and the utilisation by it and those above,
as measured. With θ = 1 this is the marginal cost of the sample to the weighted sum of all delays when nobody else's
route changes: a task of class j that comes before the busy period of its class and above ends is delayed by w_d, and
that period lasts (b + w/2) / (1 − ρ) on average (M/G/1; Kleinrock 1975, 5.8). But those that come later choose their
routes by what they find then, and escape nearly all of it.

A route comes with an operating point: A is its accuracy, v what a percentage point is worth, and T and w are means over
the samples, of which some leave early. So when queues grow, a route on which more samples leave early costs least, as
with the thresholds that MDI-Exit (arXiv 2408.05247) lowers by its queues. The mean of the accuracies that were promised
never falls below the least that a source asks for: what was above it may be spent later.

For the goal ``makespan`` there is nothing to weigh, and another policy has this name: :mod:`planner.policy.batch`.

The homes of sources tell each other what they have booked where: a transfer of another source's sample is known to
nobody else before it is over. Queues are served by priority between blocks. A sample's priority grows with its age, so
that none starves.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import replace
from math import inf
from typing import Final, NamedTuple

from planner.plan.types import Plan, Route
from planner.policy.base import PriorityPolicy
from planner.policy.menu import whole_model_at_home, wide_menu
from planner.policy.outlook import Outlook
from planner.policy.types import Booking, Status, Task, View, Waiting
from planner.scenario.instance import Instance

AGEING_S: Final = 10.0
"""A sample this old counts with twice its priority, after twice as long with three times, and so on; so one of priority
p is served before those of priority q > p that are w seconds old when it is (q/p − 1) AGEING_S + w q/p old."""

QUANTUM_S: Final = 1e-3

LARGEST_UTILISATION: Final = 0.9
"""Rates are measured on few samples; more than this is not believed."""

LATER: Final = 0.1
"""θ: weight of what those are delayed that come later. On random scenarios 0.1 to 0.25 gave less delay than 0 and than
0.5, and 0.1 never much more than the policies that think of themselves alone."""


ROUNDING: Final = 1e-9
"""Sums of accuracies do not come back to zero by themselves."""


class _Leg(NamedTuple):
    """A stage of a route, or a hop on the way to it or home.

    Parameters
    ----------
    work_s
        The mean over the samples that come here.
    share
        Of the samples that take the route, those that come here.
    onward
        Whether the legs behind it are: a result that leaves early takes a way of its own.
    """

    resource: str
    work_s: float
    latency_s: float = 0.0
    share: float = 1.0
    onward: bool = True


class _Option(NamedTuple):
    """A route of the menu, walked through."""

    route: Route
    legs: tuple[_Leg, ...]
    accuracy: float
    loss_s: float
    """The delay that its wrong answers are worth."""
    least_s: float
    """What it takes on average when nothing else is there, and that loss."""


class _Toll(NamedTuple):
    """What time at a resource costs a sample of some priority, and others.

    Parameters
    ----------
    delayed
        Of each class that the sample delays: its priority, and what delaying those that come later costs a second.
    overtaken
        The sum of the priorities of the tasks that wait there and are overtaken.
    stretch
        How many times longer it takes because of what higher classes ask for meanwhile.
    """

    delayed: tuple[tuple[float, float], ...]
    overtaken: float
    stretch: float


class Adaptive(PriorityPolicy):
    """Live choice among the solver's routes and others that are near them; see the module."""

    looks_between_blocks = True
    gossips = True

    def __init__(self, instance: Instance, plan: Plan) -> None:
        self._menu = wide_menu(instance, plan)
        self._options: dict[str, list[_Option]] = {}
        self._slowness: dict[str | tuple[str, str], float] = {}
        self._outlooks: dict[str, Outlook] = defaultdict(Outlook)
        self._waiting: dict[str, tuple[tuple[float, int], ...]] = {}
        self._known: dict[str, Status] = {}
        self._news: list[tuple[str, Booking]] = []
        self._surplus = dict.fromkeys(instance.sources, 0.0)
        """By how much the accuracies promised so far exceed the least one asked for, in all."""

    # ---- where to -------------------------------------------------------------------------------------------------

    def route(self, view: View, source: str) -> Route:
        """Give the route of least marginal cost among those that are passable."""
        self._learn(view)
        home, priority = view.instance.home(source), view.priorities[source]
        least = view.instance.scenario.sources[source].min_accuracy or 0.0
        floor = least - self._surplus[source] - ROUNDING
        tolls: dict[str, _Toll] = {}
        best, best_cost, best_times_s = None, inf, []
        for option in self._options_of(view, source):
            if priority * option.least_s >= best_cost:
                break
            if option.accuracy < floor or not view.passable(home, option.route):
                continue
            cost, times_s = self._cost(view, option, priority, tolls)
            if cost < best_cost:
                best, best_cost, best_times_s = option, cost, times_s
        if best is None:
            return whole_model_at_home(view.instance, source)
        self._surplus[source] += best.accuracy - least
        for leg, time_s in zip(best.legs, best_times_s, strict=True):
            booking = Booking(time_s, priority, leg.share * leg.work_s)
            self._outlooks[leg.resource].book(view.now_s, booking)
            self._news.append((leg.resource, booking))
        return best.route

    def replanned(self, view: View, plan: Plan) -> None:
        """Choose from the menu of another plan from now on."""
        self._menu |= wide_menu(view.instance, plan)
        self._options.clear()

    def _options_of(self, view: View, source: str) -> list[_Option]:
        if self._slowness != view.costs.slowness:
            self._slowness = dict(view.costs.slowness)
            self._options.clear()
        if source not in self._options:
            options = (_walk(view, source, route) for route in self._menu[source])
            self._options[source] = sorted(options, key=lambda option: option.least_s)
        return self._options[source]

    def _learn(self, view: View) -> None:
        """Take what other workers told since, and what this one knows of itself."""
        for worker, status in view.statuses.items():
            if self._known.get(worker) is not status:
                self._known[worker] = status
                self._take(worker, status)
        self._take(view.worker, _status(view))

    def _take(self, worker: str, status: Status) -> None:
        resource = _place(worker)
        self._waiting[resource] = status.waiting
        self._outlooks[resource].told(status.at_s, [*status.backlog_s, (inf, status.running_s)])

    def _cost(self, view: View, option: _Option, priority: float, tolls: dict[str, _Toll]) -> tuple[float, list[float]]:
        """Give the marginal cost of a route, and when the sample would come to each of its legs."""
        time_s, delay_s, others, times_s = view.now_s, option.loss_s, 0.0, []
        for resource, work_s, latency_s, share, onward in option.legs:
            outlook = self._outlooks[resource]
            toll = tolls.get(resource)
            if toll is None:
                toll = tolls[resource] = self._toll(view, resource, priority)
            times_s.append(time_s)
            delayed = toll.overtaken
            for other, cost_per_s in toll.delayed:
                delayed += cost_per_s * (outlook.busy_s(time_s, other) + work_s / 2)
            others += share * work_s * delayed
            own_s = (outlook.busy_s(time_s, priority) + work_s) * toll.stretch + latency_s
            delay_s += share * own_s
            if onward:
                time_s += own_s
        return priority * delay_s + others, times_s

    def _toll(self, view: View, resource: str, priority: float) -> _Toll:
        utilisation, above, delayed = 0.0, 0.0, []
        for rate in self._outlooks[resource].rates(view.now_s):
            utilisation = min(utilisation + rate.utilisation, LARGEST_UTILISATION)
            if rate.priority > priority:
                above = utilisation
            else:
                delayed.append((rate.priority, LATER * rate.priority * rate.tasks_per_s / (1 - utilisation)))
        overtaken = sum(other * number for other, number in self._waiting.get(resource, ()) if other < priority)
        return _Toll(tuple(delayed), overtaken, 1 / (1 - above))

    # ---- what is told ---------------------------------------------------------------------------------------------

    def status(self, view: View) -> Status:
        """Tell backlog and queues by class, and what was booked since the last time."""
        booked, self._news = tuple(self._news), []
        return replace(_status(view), booked=booked)

    def heard(self, view: View, status: Status) -> None:
        """Book what another booked."""
        for resource, booking in status.booked:
            self._outlooks[resource].book(view.now_s, booking)

    def listeners(self, view: View) -> Iterable[str]:
        """Tell the homes of the sources."""
        return dict.fromkeys(spec.worker for spec in view.instance.scenario.sources.values())

    # ---- whom to serve --------------------------------------------------------------------------------------------

    def rank(self, task: Task) -> float:
        """Put the oldest first."""
        return task.created_s

    def choose(self, view: View, heads: Mapping[Hashable, Waiting]) -> Hashable | None:
        """Serve the highest aged priority; the first of a queue has the highest of its class."""
        return max(heads, key=lambda queue: aged_priority(heads[queue].task, view.now_s))


def aged_priority(task: Task, now_s: float) -> float:
    """Give a task's priority as it counts now."""
    return task.priority * (1 + (now_s - task.created_s) / AGEING_S)


def _status(view: View) -> Status:
    return Status(
        at_s=view.now_s,
        backlog_s=tuple((priority, _rounded(work_s)) for priority, work_s in view.backlog_s.items()),
        running_s=_rounded(max(view.running_until_s - view.now_s, 0.0)),
        waiting=tuple((queue, number) for queue, number in view.queued.items() if isinstance(queue, float)),
    )


def _rounded(work_s: float) -> float:
    return round(work_s / QUANTUM_S) * QUANTUM_S


def _place(worker: str) -> str:
    """Name a worker among the resources; no network's name begins like this."""
    return f"@{worker}"


def _walk(view: View, source: str, route: Route) -> _Option:
    """Say what a route's stages and transfers take on their own, and how many samples come to each."""
    instance, costs, model = view.instance, view.costs, route.model
    home, sizes = instance.home(source), costs.cut_bytes[model]
    point = instance.operating_points(model)[route.operating_point]
    reach = (*point.reach, point.reach[-1])
    at = home
    legs: list[_Leg] = []
    for worker, first, last in ((stage.worker, stage.first_block, stage.last_block) for stage in route.stages):
        legs += _hops(view, at, worker, sizes[first], reach[first])
        work_s = costs.stage_s(model, worker, first, last, route.operating_point)
        legs.append(_Leg(_place(worker), work_s, share=reach[first]))
        for leave in instance.any_profile(model).exits:
            if first < leave.cut <= last + 1:
                left = reach[leave.cut - 1] - reach[leave.cut]
                legs += _hops(view, worker, home, leave.result_bytes, left, onward=False)
        at = worker
    legs += _hops(view, at, home, sizes[-1], reach[-1])
    loss_s = 100 * instance.scenario.objective.accuracy_worth_s * (1 - point.accuracy)
    least_s = loss_s + sum(leg.share * (leg.work_s + leg.latency_s) for leg in legs)
    return _Option(route, tuple(leg for leg in legs if leg.share > 0), point.accuracy, loss_s, least_s)


def _hops(
    view: View, sender: str, receiver: str, size_bytes: int, share: float, *, onward: bool = True
) -> Iterable[_Leg]:
    path = view.instance.path(sender, receiver)
    hops = path.hops if path is not None else ()
    return (_Leg(hop.resource, view.costs.hop_s(hop, size_bytes), hop.latency_s, share, onward) for hop in hops)
