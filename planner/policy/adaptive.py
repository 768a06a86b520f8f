"""``adaptive``: among candidate routes near the plan's, each sample takes the one with the least marginal cost now.

For each candidate route the source's worker works out what the sample would meet: transfers, waiting behind the work
that is known to come (:mod:`planner.policy.backlog_forecast`), computation. Work of higher classes that comes meanwhile
makes waiting and computing longer, by 1 / (1 − its utilisation). The sample's own delay T is not all that its route
costs: work of w seconds on a worker delays what waits there with lower priority, and, until that worker's busy period
ends, what will come with no higher priority. So the sample takes the route with the least

    p (T + 100 v (1 − A))
        + Σ_d w_d ( Σ_{j: p_j < p} p_j n_jd + θ Σ_{j: p_j <= p} p_j λ_jd (b_jd + w_d / 2) / (1 − ρ_jd) )

where on resource d (worker or network) n_jd tasks of class j wait (known of workers only), b_jd seconds of work of
class j and above are left, and λ_jd and ρ_jd are the measured rate of class j and the utilisation by it and those
above. With θ = 1 this is the marginal cost of the sample to the weighted sum of all delays when nobody else's route
changes: a task of class j that comes before the busy period of its class and above ends is delayed by w_d, and that
period lasts (b + w/2) / (1 − ρ) on average (M/G/1; Kleinrock 1975, 5.8). But samples that come later choose their
routes by what they find then, and escape nearly all of it; so θ is small by default.

A route comes with an operating point: A is its accuracy, v what a percentage point is worth, and T and w are means over
the samples, of which some leave early. So when queues grow, a route on which more samples leave early costs least, as
with the thresholds that MDI-Exit (arXiv 2408.05247) lowers by its queues. The mean of the promised accuracies never
falls below a source's minimum: what exceeded it may be spent later.

A sample with a deadline D costs p m D more, times the probability to miss it, which grows with the excess of T over D;
m is ``miss_weight``. One that may be dropped is refused where every route costs more than to miss the deadline. Workers
serve such samples in the order of :mod:`planner.policy.urgency`.

For the goal ``makespan`` there is nothing to weigh, and another policy has this name: :mod:`planner.policy.batch`.

The homes of sources tell each other what they have booked where, because a transfer of another source's sample is
otherwise known to nobody before it is over. Queues are served by priority between blocks. A sample's priority grows
with its age, so that none starves: one of priority p is served before those of priority q > p that are w seconds old
when it is (q/p − 1) a + w q/p old, where a is the ageing time.

The constants are :class:`planner.scenario.types.AdaptiveParameters`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import exp, inf
from typing import Final, NamedTuple

import numpy as np

from planner.plan.types import PlanSpec, Route
from planner.policy.backlog_forecast import BacklogForecast
from planner.policy.base import PriorityPolicy
from planner.policy.candidate_routes import extended_candidate_routes, whole_model_at_home
from planner.policy.types import Booking, Refuse, Status, Task, View, Waiting, resource_of
from planner.policy.urgency import OwnQueue, Urgency, aged_priority
from planner.scenario.instance import Instance
from planner.scenario.phases import SAMPLE, Phase
from planner.scenario.types import AdaptiveParameters

_ROUNDING: Final = 1e-9
"""Sums of accuracies do not come back to zero by themselves."""


class _RouteLeg(NamedTuple):
    """A stage of a route, or a hop on the way to it or home.

    Parameters
    ----------
    work_s
        Mean over the samples that come here.
    share
        Share of the samples on the route that come here.
    onward
        Whether the next legs follow this one: a result that leaves early goes its own way home.
    """

    resource: str
    work_s: float
    latency_s: float = 0.0
    share: float = 1.0
    onward: bool = True


class _Option(NamedTuple):
    """A candidate route and its legs.

    Parameters
    ----------
    loss_s
        The delay that its wrong answers are worth.
    least_s
        Its mean delay when nothing else is there, and that loss.
    """

    route: Route
    legs: tuple[_RouteLeg, ...]
    accuracy: float
    loss_s: float
    least_s: float


class _MarginalPrice(NamedTuple):
    """What time at a resource costs a sample of some priority, and others.

    Parameters
    ----------
    delayed
        Of each class that the sample delays: its priority, and the cost per second of delaying those that come later.
    overtaken
        Sum of the priorities of the tasks that wait there and are overtaken.
    stretch
        Factor by which what higher classes ask for meanwhile makes the time longer.
    """

    delayed: tuple[tuple[float, float], ...]
    overtaken: float
    stretch: float


class Adaptive(PriorityPolicy):
    """Live choice among the solver's routes and others that are near them; see the module.

    Parameters
    ----------
    parameters
        By default those of the instance's scenario.
    """

    looks_between_blocks = True
    gossips = True

    def __init__(self, instance: Instance, plan: PlanSpec, parameters: AdaptiveParameters | None = None) -> None:
        self._parameters = parameters or instance.scenario.policy.adaptive
        self._candidates = extended_candidate_routes(instance, plan)
        self._options: dict[str, list[_Option]] = {}
        self._slowness: dict[str | tuple[str, str], float] = {}
        self._forecasts: dict[str, BacklogForecast] = defaultdict(partial(BacklogForecast, self._parameters))
        self._waiting: dict[str, tuple[tuple[float, int], ...]] = {}
        self._known: dict[str, int] = {}
        self._unannounced: list[tuple[str, Booking]] = []
        self._urgency = Urgency(instance, instance.scenario.policy.order)
        self._refusable = self._urgency.drops if instance.scenario.policy.admission else frozenset[str]()
        self._surplus = dict.fromkeys(instance.sources, 0.0)
        """By how much the accuracies promised so far exceed the required ones, in all."""

    # ---- routes ---------------------------------------------------------------------------------------------------

    def route(self, view: View, source: str) -> Route | Refuse:
        """Return the passable route of least marginal cost; refuse a sample if that costs more than to miss it."""
        self._learn(view)
        home, priority = view.instance.home(source), view.priorities[source]
        least = view.instance.scenario.sources[source].min_accuracy or 0.0
        floor = least - self._surplus[source] - _ROUNDING
        prices: dict[str, _MarginalPrice] = {}
        deadline_s = self._urgency.deadline_s.get(source)
        best, best_cost, best_times_s, best_delay_s = None, inf, [], inf
        for option in self._options_of(view, source):
            if priority * option.least_s >= best_cost:
                break
            if option.accuracy < floor or not view.passable(home, option.route):
                continue
            delay_s, others, times_s = self._cost(view, option, priority, prices)
            cost = priority * (delay_s + option.loss_s) + others
            if deadline_s is not None:
                missed = self._missed(delay_s, option.least_s - option.loss_s, deadline_s)
                cost += priority * self._parameters.miss_weight * deadline_s * missed
            if cost < best_cost:
                best, best_cost, best_times_s, best_delay_s = option, cost, times_s, delay_s
        if best is None:
            return whole_model_at_home(view.instance, source)
        if deadline_s is not None and source in self._refusable and best_cost > priority * self._miss_s(deadline_s):
            return Refuse(max(best_delay_s - deadline_s, 0.0))
        self._surplus[source] += best.accuracy - least
        for leg, time_s in zip(best.legs, best_times_s, strict=True):
            booking = Booking(time_s, priority, leg.share * leg.work_s)
            self._forecasts[leg.resource].book(view.now_s, booking)
            self._unannounced.append((leg.resource, booking))
        return best.route

    def replanned(self, view: View, plan: PlanSpec) -> None:
        """Choose among the routes near another plan's from now on."""
        self._candidates |= extended_candidate_routes(view.instance, plan)
        self._options.clear()

    def _options_of(self, view: View, source: str) -> list[_Option]:
        if self._slowness != view.costs.slowness:
            self._slowness = dict(view.costs.slowness)
            self._options.clear()
        if source not in self._options:
            options = (_option(view, source, route) for route in self._candidates[source])
            self._options[source] = sorted(options, key=lambda option: option.least_s)
        return self._options[source]

    def _learn(self, view: View) -> None:
        """Take what other workers told since the last time, and what this worker knows about itself."""
        for worker, number in view.status_numbers.items():
            if self._known.get(worker) != number:
                self._known[worker] = number
                self._take(worker, view.statuses[worker])
        self._take(view.worker, self._own_status(view))

    def _take(self, worker: str, status: Status) -> None:
        resource = resource_of(worker)
        self._waiting[resource] = status.waiting
        self._forecasts[resource].told(status.at_s, [*status.backlog_s, (inf, status.running_s)])

    def _miss_s(self, deadline_s: float) -> float:
        """Return the delay that costs as much as a missed deadline, in seconds."""
        return (1 + self._parameters.miss_weight) * deadline_s

    def _missed(self, delay_s: float, least_s: float, deadline_s: float) -> float:
        """Return the probability that a sample takes longer than its deadline, by its expected delay."""
        spread_s = self._parameters.doubt * max(delay_s - least_s, 0.05 * least_s)
        return 1 / (1 + exp(min(max((deadline_s - delay_s) / spread_s, -50.0), 50.0)))

    def _cost(
        self, view: View, option: _Option, priority: float, prices: dict[str, _MarginalPrice]
    ) -> tuple[float, float, list[float]]:
        """Return a sample's delay on a route, what that costs others, and when it would come to each of its legs."""
        time_s, delay_s, others, times_s = view.now_s, 0.0, 0.0, []
        for resource, work_s, latency_s, share, onward in option.legs:
            forecast = self._forecasts[resource]
            price = prices.get(resource)
            if price is None:
                price = prices[resource] = self._price(view, resource, priority)
            times_s.append(time_s)
            delayed = price.overtaken
            for other, cost_per_s in price.delayed:
                delayed += cost_per_s * (forecast.busy_s(time_s, other) + work_s / 2)
            others += share * work_s * delayed
            own_s = (forecast.busy_s(time_s, priority) + work_s) * price.stretch + latency_s
            delay_s += share * own_s
            if onward:
                time_s += own_s
        return delay_s, others, times_s

    def _price(self, view: View, resource: str, priority: float) -> _MarginalPrice:
        largest, later = self._parameters.largest_utilisation, self._parameters.later_weight
        utilisation, above, delayed = 0.0, 0.0, []
        for rate in self._forecasts[resource].rates(view.now_s):
            utilisation = min(utilisation + rate.utilisation, largest)
            if rate.priority > priority:
                above = utilisation
            else:
                delayed.append((rate.priority, later * rate.priority * rate.tasks_per_s / (1 - utilisation)))
        overtaken = sum([other * number for other, number in self._waiting.get(resource, ()) if other < priority], 0.0)
        return _MarginalPrice(tuple(delayed), overtaken, 1 / (1 - above))

    # ---- gossip ---------------------------------------------------------------------------------------------------

    def status(self, view: View) -> Status:
        """Return backlog and queues by class, and what was booked since the last time."""
        booked, self._unannounced = tuple(self._unannounced), []
        return replace(self._own_status(view), booked=booked)

    def heard(self, view: View, status: Status) -> None:
        """Book what another worker booked."""
        for resource, booking in status.booked:
            self._forecasts[resource].book(view.now_s, booking)

    def listeners(self, view: View) -> Iterable[str]:
        """Return the homes of the sources."""
        return dict.fromkeys(spec.worker for spec in view.instance.scenario.sources.values())

    def _own_status(self, view: View) -> Status:
        step_s = self._parameters.backlog_step_s
        return Status(
            at_s=view.now_s,
            backlog_s=tuple((priority, round(work_s / step_s) * step_s) for priority, work_s in view.backlog_s.items()),
            running_s=round(max(view.running_until_s - view.now_s, 0.0) / step_s) * step_s,
            waiting=_waiting(view),
        )

    # ---- service --------------------------------------------------------------------------------------------------

    def queue(self, task: Task) -> Hashable:
        """Put each task with a deadline into a queue of its own, others by priority."""
        return self._urgency.queue(task)

    def rank(self, task: Task) -> float:
        """Put the oldest first."""
        return task.created_s

    def choose(self, view: View, heads: Mapping[Hashable, Waiting]) -> Hashable | None:
        """Serve the highest aged priority; the first of a queue has the highest of its class."""
        now_s, ageing_s = view.now_s, self._parameters.ageing_s
        if self._urgency.deadline_s:
            return self._urgency.choose(view, heads, ageing_s)
        return max(heads, key=lambda queue: aged_priority(heads[queue].task, now_s, ageing_s))


def _waiting(view: View) -> tuple[tuple[float, int], ...]:
    """Return the number of tasks that wait, by priority."""
    counts: dict[float, int] = defaultdict(int)
    for queue, number in view.queued.items():
        if isinstance(queue, OwnQueue):
            counts[queue.priority] += number
        elif isinstance(queue, float):
            counts[queue] += number
    return tuple(counts.items())


def _option(view: View, source: str, route: Route) -> _Option:
    """Work out what a route's stages and transfers take on their own, and how many samples come to each.

    A sequence takes all of its runs: the later ones follow the first, and are not asked for.
    """
    instance, costs, model = view.instance, view.costs, route.model
    home, phases = instance.home(source), instance.phases[source]
    runs = sum([phase.count for phase in phases])
    sizes = np.sum([np.multiply(phase.count, instance.run_bytes(model, phase)) for phase in phases], axis=0).tolist()
    point = instance.operating_points(model)[route.operating_point]
    reach = (*point.reach, point.reach[-1])
    at = home
    legs: list[_RouteLeg] = []
    for worker, first, last in ((stage.worker, stage.first_block, stage.last_block) for stage in route.stages):
        legs += _hops(view, at, worker, sizes[first], reach[first], runs=runs)
        work_s = costs.stage_s(model, worker, first, last, route.operating_point)
        if phases != (SAMPLE,):
            work_s *= _work_of_runs(instance, model, worker, slice(first, last + 1), phases)
        legs.append(_RouteLeg(resource_of(worker), work_s, share=reach[first]))
        for exit_ in instance.any_profile(model).exits:
            if first < exit_.cut <= last + 1:
                leaving = reach[exit_.cut - 1] - reach[exit_.cut]
                legs += _hops(view, worker, home, exit_.result_bytes, leaving, onward=False)
        at = worker
    legs += _hops(view, at, home, sizes[-1], reach[-1], runs=runs)
    loss_s = 100 * instance.scenario.objective.accuracy_worth_s * (1 - point.accuracy)
    least_s = loss_s + sum([leg.share * (leg.work_s + leg.latency_s) for leg in legs], 0.0)
    return _Option(route, tuple(leg for leg in legs if leg.share > 0), point.accuracy, loss_s, least_s)


def _work_of_runs(instance: Instance, model: str, worker: str, blocks: slice, phases: Sequence[Phase]) -> float:
    """Return the work of a stage in all runs of a sequence, relative to that in the profile's typical run."""
    overhead_s = instance.stage_overhead_s(model, worker)
    typical_s = float(instance.block_s(model, worker)[blocks].sum()) + overhead_s
    all_s = [
        phase.count * (float(instance.block_s(model, worker, phase)[blocks].sum()) + overhead_s) for phase in phases
    ]
    return sum(all_s, 0.0) / typical_s


def _hops(
    view: View, sender: str, receiver: str, size_bytes: float, share: float, *, runs: int = 1, onward: bool = True
) -> Iterable[_RouteLeg]:
    path = view.instance.path(sender, receiver)
    for hop in path.hops if path is not None else ():
        yield _RouteLeg(hop.resource, view.costs.hop_s(hop, size_bytes), runs * hop.latency_s, share, onward)
