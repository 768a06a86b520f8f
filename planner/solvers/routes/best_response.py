"""Best replies: the best route of one source beside what the others do, and what comes of them in turn."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from planner.plan.surrogate import congestion
from planner.solvers.core.problem import Array, Choice, Choices, Integers, Problem, Variant, stages
from planner.solvers.core.search_state import Search
from planner.solvers.routes.stage_dp import CostOfLoad, StagedRoutes

STEEP = 1e5
"""Slope of congestion beyond the cap: being over it is worse than anything that moves elsewhere could cost."""
LACKING = 1e3
"""By how much a plan is worse when a worker needs twice the memory that it has."""
MOST_OUT = 4
"""At most so many sources are taken out at once."""
POWER = 16
"""Of the norm that stands in for the largest utilisation and the longest delay, so that the next ones count, too."""


class Measure(Protocol):
    """What replies are to make small."""

    def value(self, choices: Choices, load: Array) -> float:
        """Give the value of routes that bring ``load`` [S, R]."""

    def rise(self, source: int, load: Array, phantom: Array | float) -> CostOfLoad:
        """Give what more load of a source costs beside ``load`` [S, R] and a ``phantom`` load of every class [R]."""


class Delay:
    """The objective of the goal ``delay``, which goes on steeply over the utilisation cap."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem

    def value(self, choices: Choices, load: Array) -> float:
        """Give the objective, where no resource is overloaded."""
        problem = self.problem
        queued = problem.classes.weight @ self._number(problem.classes.nested(load)).sum(axis=1)
        costs = [problem.cost(source, choice) for source, (choice,) in enumerate(choices)]
        return float(queued) + sum(
            problem.fixed_cost(source, choice, costs[source].latency_s) for source, (choice,) in enumerate(choices)
        )

    def rise(self, source: int, load: Array, phantom: Array | float) -> CostOfLoad:
        """Give the rise of congestion in the source's class and all below it."""
        problem = self.problem
        sigma = problem.classes.nested(load) + phantom
        levels = range(int(problem.classes.of_source[source]), len(problem.classes.weight))
        before = self._number(sigma)

        def cost(more: Array, resource: Integers) -> Array:
            total = np.zeros(more.shape)
            for level in levels:
                rise = self._number(sigma[level][resource] + more) - before[level][resource]
                total += problem.classes.weight[level] * rise
            return total

        return cost

    def _number(self, sigma: Array) -> Array:
        """Give G up to the cap, and a steep line from there on."""
        within = np.minimum(sigma, self.problem.cap)
        return np.asarray(congestion(within, self.problem.kappa) + STEEP * (sigma - within))


class Peak:
    """A smooth objective of the goals ``throughput`` and ``makespan``: norms of utilisations and of delays."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.even = [
            demand.volume * min(_fastest_s(problem.variants[variant]) for variant in demand.variants)
            for demand in problem.demands
        ]

    def value(self, choices: Choices, load: Array) -> float:
        """Give the norm of all utilisations, for ``makespan`` plus that of the unloaded delays."""
        value = _norm(load.sum(axis=0))
        if self.problem.goal == "makespan":
            delays_s = [self.problem.cost(source, choice).unloaded_s for source, (choice,) in enumerate(choices)]
            value += _norm(np.array(delays_s))
        return value

    def rise(self, source: int, load: Array, phantom: Array | float) -> CostOfLoad:
        """Give the rise of the norm; for ``makespan`` the source's own delay counts as if it were the longest."""
        before = load.sum(axis=0) + phantom
        # Where nobody else is the source's own load gives the scale: large powers must stay finite.
        scale = max(_norm(before), self.even[source] / len(self.problem.workers), 1e-12)
        share = (self.problem.goal == "makespan") / self.problem.demands[source].volume

        def cost(more: Array, resource: Integers) -> Array:
            busy = np.where(np.isfinite(more), more, 0.0)
            rise = ((before[resource] + busy) / scale) ** POWER - (before[resource] / scale) ** POWER
            return np.where(np.isfinite(more), scale / POWER * rise + share * busy, np.inf)

        return cost


def _fastest_s(variant: Variant) -> float:
    """Give the time of a sample each block of which runs where it is quickest."""
    return float(variant.reach[:-1] @ variant.block_s.min(axis=1))


def _norm(values: Array) -> float:
    largest = max(float(values.max()), 1e-300)
    return float(largest * ((values / largest) ** POWER).sum() ** (1 / POWER))


class Replies:
    """Improves plans of a search, overloaded ones and those that lack memory as well."""

    def __init__(self, search: Search) -> None:
        self.search = search
        problem = search.problem
        self.measure: Measure = Delay(problem) if problem.goal == "delay" else Peak(problem)
        self.staged = [
            [StagedRoutes.of(problem, source, variant) for variant in demand.variants]
            for source, demand in enumerate(problem.demands)
        ]

    def improve(self, choices: Choices) -> Choices:
        """Let the sources take their best replies in turn until none gains."""
        problem = self.search.problem
        load = problem.load(choices)
        current, value = list(choices), self._value(choices, load)
        source, settled = 0, 0
        while settled < len(current) and not self.search.out_of_time:
            kept, own = current[source], load[source].copy()
            load[source] = 0.0
            current[source] = ()
            self._place(current, load, source, self._reply(source, current, load))
            allowed = problem.allowed(source, current[source][0])
            now = self._value(tuple(current), load) if allowed and current[source] != kept else value
            if now < value * (1 - 1e-9):
                value, settled = now, 1
            else:
                current[source], load[source] = kept, own
                settled += 1
            source = (source + 1) % len(current)
        self.search.offer(tuple(current))
        return tuple(current)

    def shake(self, random: np.random.Generator) -> None:
        """Take a few sources out of the best incumbent, put them back beside loads that are not there, and improve.

        Without an incumbent all are put there anew.
        """
        problem, incumbents = self.search.problem, self.search.incumbents
        best = min(incumbents, key=lambda choices: incumbents[choices], default=((),) * len(problem.demands))
        count, workers = len(best), len(problem.workers)
        moved = int(random.integers(1, min(count, MOST_OUT) + 1)) if incumbents else count
        out = random.permutation(count)[:moved].tolist()
        load = problem.load(best)
        load[out] = 0.0
        current = list(best)
        for source in out:
            current[source] = ()
        for source in out:
            phantom = np.zeros(load.shape[1])
            busy = 0.8 if problem.goal == "delay" or not incumbents else self.search.best
            phantom[:workers] = random.uniform(0.0, busy, workers) * random.integers(0, 2, workers)
            self._place(current, load, source, self._reply(source, current, load, phantom))
        self.improve(tuple(current))

    def _place(self, current: list[tuple[Choice, ...]], load: Array, source: int, choice: Choice) -> None:
        """Give a source without load a route."""
        current[source] = (choice,)
        cost = self.search.problem.cost(source, choice)
        load[source, cost.resources] = self.search.problem.demands[source].volume * cost.seconds

    def _reply(
        self, source: int, current: list[tuple[Choice, ...]], load: Array, phantom: Array | float = 0.0
    ) -> Choice:
        """Give a source without a route its best one beside those of the others, which bring ``load`` [S, R]."""
        problem, staged = self.search.problem, self.staged[source]
        cost = self.measure.rise(source, load, phantom)
        if not problem.memory_binds:
            return _cheapest(staged, cost)
        held = problem.residency(tuple(current))
        most = np.maximum(problem.memory_bytes, sum(problem.resident_bytes(held)))
        while True:
            choice = _cheapest([route.beside(held) for route in staged], cost)
            model = problem.variants[choice.variant].model
            current[source] = (choice,)
            over = problem.memory_used(tuple(current)) > most
            # Stages that fit one by one may not fit together: the longest on each worker is kept, as if it were there.
            before = held[model].sum()
            for worker in np.flatnonzero(over).tolist():
                own = [(first - last, first, last) for where, first, last in stages(choice.workers) if where == worker]
                _, first, last = min(own)
                held[model][first : last + 1, worker] = True
            if held[model].sum() == before:
                return choice

    def _value(self, choices: Choices, load: Array) -> float:
        """Give the measure's value, far more where workers lack memory."""
        value, problem = self.measure.value(choices, load), self.search.problem
        if not problem.memory_binds:
            return value
        lack = problem.memory_used(choices) / np.maximum(problem.memory_bytes, 1.0) - 1
        return value * (1 + LACKING * float(np.maximum(lack, 0.0).sum()))


def _cheapest(staged: list[StagedRoutes], cost: CostOfLoad) -> Choice:
    return min((route.cheapest(cost) for route in staged), key=lambda found: found[0])[1]
