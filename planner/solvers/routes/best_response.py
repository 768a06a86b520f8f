"""Best response: the best route of one source given the routes of the others, taken by the sources in turn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from planner.plan.surrogate import congestion
from planner.solvers.core.demand import Variant
from planner.solvers.core.problem import Array, Choice, Choices, Integers, Problem, stages
from planner.solvers.core.search_state import Search
from planner.solvers.routes.fill import Filling
from planner.solvers.routes.stage_dp import CostOfLoad, StagedRoutes

OVERLOAD_SLOPE = 1e5
"""Slope of congestion beyond the cap, so steep that moving elsewhere is always cheaper than overload."""
SMALL_W = 1e-6
"""Power that a unit of load costs at least, so that of routes with equal power the one with the least work is taken."""
MEMORY_PENALTY = 1e3
"""Relative penalty of a plan in which a worker needs twice its memory."""
MAX_FILLINGS = 3
"""Maximum number of filled plans that are improved, the best ones."""
FILLING_TIME_FRACTION = 0.2
"""Fraction of the time limit after which no further filled plan is looked for or improved."""
MAX_SHORTENINGS, MAX_SHORTENINGS_ALONE = 3, 30
"""Number of times that a route is shortened until it fits, if another one is known and if none is."""
MAX_REMOVED = 4
"""Maximum number of sources that one perturbation removes."""
NORM_POWER = 16
"""Power of the norm that replaces the largest utilisation and delay, so that the next largest count as well."""
MAX_RATIO = 1e15
"""Largest ratio of a load to the others that is told apart from larger ones: its power must stay finite."""


class Measure(Protocol):
    """What best responses minimise."""

    def value(self, choices: Choices, load: Array) -> float:
        """Return the value of routes with ``load`` [S, R]."""

    def rise(self, source: int, load: Array, phantom: Array | float) -> CostOfLoad:
        """Return the cost of additional load of a source on top of ``load`` [S, R] and a ``phantom`` load [R]."""


class Delay:
    """The objective of the goal ``delay``, continued steeply above the utilisation cap."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem

    def value(self, choices: Choices, load: Array) -> float:
        """Return the objective; equal to the problem's where no resource is overloaded."""
        problem = self.problem
        queued = problem.classes.weight @ self._number(problem.classes.nested(load), problem.caps).sum(axis=1)
        costs = [problem.cost(source, choice) for source, (choice,) in enumerate(choices)]
        return float(queued) + sum(
            problem.fixed_cost(source, choice, costs[source].latency_s) for source, (choice,) in enumerate(choices)
        )

    def rise(self, source: int, load: Array, phantom: Array | float) -> CostOfLoad:
        """Return the increase of congestion in the source's class and all less important ones."""
        problem = self.problem
        sigma = problem.classes.nested(load) + phantom
        levels = range(int(problem.classes.of_source[source]), len(problem.classes.weight))
        before = self._number(sigma, problem.caps)

        def cost(more: Array, resource: Integers) -> Array:
            total, caps = np.zeros(more.shape), problem.caps[resource]
            for level in levels:
                rise = self._number(sigma[level][resource] + more, caps) - before[level][resource]
                total += problem.classes.weight[level] * rise
            return total

        return cost

    def _number(self, sigma: Array, caps: Array) -> Array:
        """Return G up to the caps, continued by a steep line."""
        within = np.minimum(sigma, caps)
        return np.asarray(congestion(within, self.problem.kappa) + OVERLOAD_SLOPE * (sigma - within))


class Power:
    """The objective of the goal ``energy``, continued steeply above the utilisation cap."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.steep_w = OVERLOAD_SLOPE * max(float(problem.watts.max()), 1.0)

    def value(self, choices: Choices, load: Array) -> float:
        """Return the objective; equal to the problem's where no resource is overloaded."""
        del choices  # power depends on loads alone
        busy = load.sum(axis=0)
        over = np.maximum(busy - self.problem.caps, 0.0)
        return self.problem.idle_w + float(self.problem.watts @ busy + self.steep_w * over.sum())

    def rise(self, source: int, load: Array, phantom: Array | float) -> CostOfLoad:
        """Return the increase of power; the source's work costs a little more, which decides between equal powers."""
        del source
        room = self.problem.caps - load.sum(axis=0) - phantom

        def cost(more: Array, resource: Integers) -> Array:
            over = np.maximum(more - np.maximum(room[resource], 0.0), 0.0)
            return np.asarray((self.problem.watts[resource] + SMALL_W) * more + self.steep_w * over)

        return cost


class Peak:
    """A smooth objective of the goals ``throughput`` and ``makespan``: norms of utilisations and of delays."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.even = [
            demand.volume * min(_fastest_s(problem.variants[variant]) for variant in demand.variants)
            for demand in problem.demands
        ]

    def value(self, choices: Choices, load: Array) -> float:
        """Return the norm of all relative utilisations, for ``makespan`` plus that of the unloaded delays."""
        value = _norm(load.sum(axis=0) / self.problem.usable)
        if self.problem.goal == "makespan":
            delays_s = [self.problem.cost(source, choice).unloaded_s for source, (choice,) in enumerate(choices)]
            value += _norm(np.array(delays_s))
        return value

    def rise(self, source: int, load: Array, phantom: Array | float) -> CostOfLoad:
        """Return the increase of the norm; for ``makespan`` the source's delay counts as if it were the longest."""
        before = (load.sum(axis=0) + phantom) / self.problem.usable
        # Without other load the source's own sets the scale, because large powers must stay finite.
        scale = max(_norm(before), self.even[source] / len(self.problem.workers), 1e-12)
        share = (self.problem.goal == "makespan") / self.problem.demands[source].volume

        def cost(more: Array, resource: Integers) -> Array:
            busy = np.where(np.isfinite(more), more, 0.0)
            relative = busy / self.problem.usable[resource]
            ratio = np.minimum((before[resource] + relative) / scale, MAX_RATIO)
            rise = ratio**NORM_POWER - (before[resource] / scale) ** NORM_POWER
            return np.where(np.isfinite(more), scale / NORM_POWER * rise + share * busy, np.inf)

        return cost


def measure_of(problem: Problem) -> Measure:
    """Return what best responses minimise for the problem's goal."""
    measures: dict[str, Callable[[Problem], Measure]] = {"delay": Delay, "energy": Power}
    return measures.get(problem.goal, Peak)(problem)


def _fastest_s(variant: Variant) -> float:
    """Return the time of a sample whose blocks all run where they are fastest, in seconds."""
    return float(variant.reach[:-1] @ variant.block_s.min(axis=1))


def _norm(values: Array) -> float:
    largest = max(float(values.max()), 1e-300)
    if largest == np.inf:  # the delay of a route that lacks a path
        return largest
    return float(largest * ((values / largest) ** NORM_POWER).sum() ** (1 / NORM_POWER))


class BestResponse:
    """Improves plans of a search, including plans that overload resources or exceed memory.

    Raises
    ------
    Expired
        The time is over before the stages of all sources are listed.
    """

    def __init__(self, search: Search) -> None:
        self.search = search
        problem = search.problem
        self.measure = measure_of(problem)
        self.staged = [
            [StagedRoutes.of(problem, source, variant) for variant in demand.variants]
            for source, demand in enumerate(search.options.deadline.watch(problem.demands))
        ]
        self.filled: Choices | None = None
        """The best plan that fills workers, perhaps with overload."""
        self.filling = Filling(problem, self.staged, self.measure.rise, lambda: search.out_of_time)

    def fill(self) -> None:
        """Offer plans that fill workers with stages if memory or visits are limited, and improve the best of them."""
        problem, search = self.search.problem, self.search
        if not problem.memory_binds and problem.max_visits is None:
            return
        plans = []
        for choices in self.filling.plans():
            search.offer(choices)
            plans.append(choices)
            if search.elapsed_s > FILLING_TIME_FRACTION * search.options.time_limit_s:
                break
        best = sorted(dict.fromkeys(plans), key=lambda choices: self._value(choices, problem.load(choices)))
        self.filled = best[0] if best else None
        for choices in best[:MAX_FILLINGS]:
            if search.elapsed_s <= FILLING_TIME_FRACTION * search.options.time_limit_s:
                self.improve(choices)

    def improve(self, choices: Choices) -> Choices:
        """Let the sources take their best responses in turn until none improves; return the routes."""
        problem = self.search.problem
        load = problem.load(choices)
        current, value = list(choices), self._value(choices, load)
        source, settled = 0, 0
        while settled < len(current) and not self.search.out_of_time:
            old_route, old_load = current[source], load[source].copy()
            load[source] = 0.0
            current[source] = ()
            self._assign(current, load, source, self._respond(source, current, load))
            allowed = problem.allowed(source, current[source][0])
            new_value = self._value(tuple(current), load) if allowed and current[source] != old_route else value
            if new_value < value * (1 - 1e-9):
                value, settled = new_value, 1
            else:
                current[source], load[source] = old_route, old_load
                settled += 1
            source = (source + 1) % len(current)
        self.search.offer(tuple(current))
        return tuple(current)

    def perturb(self, random: np.random.Generator) -> None:
        """Remove a few sources from the best incumbent, route them again beside random phantom loads, and improve.

        Without an incumbent all sources are routed again.
        """
        problem, incumbents = self.search.problem, self.search.incumbents
        best = min(incumbents, key=lambda choices: incumbents[choices], default=((),) * len(problem.demands))
        count, workers = len(best), len(problem.workers)
        moved = int(random.integers(1, min(count, MAX_REMOVED) + 1)) if incumbents else count
        out = random.permutation(count)[:moved].tolist()
        load = problem.load(best)
        load[out] = 0.0
        current = list(best)
        for source in out:
            current[source] = ()
        for source in out:
            phantom = np.zeros(load.shape[1])
            busy = 0.8 if np.isfinite(problem.cap) or not incumbents else self.search.best
            phantom[:workers] = random.uniform(0.0, busy, workers) * random.integers(0, 2, workers)
            reserved_bytes = problem.memory_bytes * random.uniform(0.0, 1.0, workers) * random.integers(0, 2, workers)
            response = self._respond(source, current, load, phantom, reserved_bytes)
            self._assign(current, load, source, response)
        self.improve(tuple(current))

    def _assign(self, current: list[tuple[Choice, ...]], load: Array, source: int, choice: Choice) -> None:
        """Assign a route to a source without load."""
        current[source] = (choice,)
        cost = self.search.problem.cost(source, choice)
        load[source, cost.resources] = self.search.problem.demands[source].volume * cost.seconds

    def _respond(
        self,
        source: int,
        current: list[tuple[Choice, ...]],
        load: Array,
        phantom: Array | float = 0.0,
        reserved_bytes: Array | float = 0.0,
    ) -> Choice:
        """Return a good route of a source without one, given those of the others with ``load`` [S, R].

        It is the best one if that satisfies the limits on memory and visits. Otherwise it is the best along some orders
        of the workers, or one with the longest stages shortened until they fit.
        """
        problem = self.search.problem
        cost = self.measure.rise(source, load, phantom)
        others = tuple(() if number == source else routes for number, routes in enumerate(current))
        held, staged = problem.residency(others), self.staged[source]
        if problem.memory_binds:
            staged = [routes.beside(held, reserved_bytes) for routes in staged]
        price, choice = _cheapest(staged, cost)
        fits = np.isfinite(price) and not self._lacking(others, source, choice).size
        if fits and not problem.visited_too_often(choice.workers):
            return choice
        filled = self.filling.cheapest(source, others, cost, reserved_bytes)
        if problem.max_visits is not None:
            return filled[1] if filled else choice
        tries = MAX_SHORTENINGS if filled else MAX_SHORTENINGS_ALONE
        price, shortened = self._shortened(source, others, choice, cost, tries)
        return filled[1] if filled and filled[0] < price else shortened

    def _lacking(self, others: Choices, source: int, choice: Choice) -> Integers:
        """Return the workers that a route beside the ``others`` overfills, or fills further if they are already."""
        problem = self.search.problem
        if not problem.memory_binds:
            return np.zeros(0, dtype=np.intp)
        current = tuple((choice,) if number == source else routes for number, routes in enumerate(others))
        capacity_bytes = np.maximum(problem.memory_bytes, problem.memory_used(others))
        return np.flatnonzero(problem.memory_used(current) > capacity_bytes)

    def _shortened(
        self, source: int, others: Choices, choice: Choice, cost: CostOfLoad, tries: int
    ) -> tuple[float, Choice]:
        """Shorten a route: again and again, the longest stage of each full worker counts as resident.

        Returns
        -------
        tuple
            Price and route; infinite if the route does not fit after some ``tries``.
        """
        held, price = self.search.problem.residency(others), np.inf
        resident = held[self.search.problem.variants[choice.variant].model]
        for _ in range(tries):
            lacking = self._lacking(others, source, choice).tolist()
            if not lacking:
                return price, choice
            before = resident.sum()
            for worker in lacking:
                here = [(begin - last, begin, last) for at, begin, last in stages(choice.workers) if at == worker]
                _, begin, last = min(here)
                resident[begin : last + 1, worker] = True
            if resident.sum() == before:
                break
            price, choice = _cheapest([routes.beside(held) for routes in self.staged[source]], cost)
            resident = held[self.search.problem.variants[choice.variant].model]
        return np.inf, choice

    def _value(self, choices: Choices, load: Array) -> float:
        """Return the measure's value, with a penalty where workers lack memory."""
        value, problem = self.measure.value(choices, load), self.search.problem
        if not problem.memory_binds:
            return value
        lack = problem.memory_used(choices) / np.maximum(problem.memory_bytes, 1.0) - 1
        return value * (1 + MEMORY_PENALTY * float(np.maximum(lack, 0.0).sum()))


def _cheapest(staged: list[StagedRoutes], cost: CostOfLoad) -> tuple[float, Choice]:
    return min((routes.cheapest(cost) for routes in staged), key=lambda priced: priced[0])
