"""Best replies: the best route of one source beside what the others do, and what comes of them in turn."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from planner.plan.surrogate import congestion
from planner.solve.outcome import Search
from planner.solve.problem import Array, Choice, Choices, Integers, Problem, Variant
from planner.solve.smooth import KNEE
from planner.solve.staged import CostOfLoad, StagedRoutes

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
    """The objective of the goal ``delay``."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem

    def value(self, choices: Choices, load: Array) -> float:
        """Give the objective; the load follows from the routes."""
        del load
        return self.problem.objective(choices)

    def rise(self, source: int, load: Array, phantom: Array | float) -> CostOfLoad:
        """Give the rise of congestion in the source's class and all below it."""
        problem = self.problem
        sigma = np.minimum(problem.classes.nested(load) + phantom, KNEE)
        levels = range(int(problem.classes.of_source[source]), len(problem.classes.weight))
        before = congestion(sigma, problem.kappa)

        def cost(more: Array, resource: Integers) -> Array:
            total = np.zeros(more.shape)
            for level in levels:
                after = sigma[level][resource] + more
                fits = after <= problem.cap
                rise = congestion(np.where(fits, after, 0.0), problem.kappa) - before[level][resource]
                total += np.where(fits, problem.classes.weight[level] * rise, np.where(more > 0, np.inf, 0.0))
            return total

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
    """Improves incumbents of a search."""

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
        current, value = list(choices), self.measure.value(choices, load)
        source, settled = 0, 0
        while settled < len(current) and not self.search.out_of_time:
            kept, own = current[source], load[source].copy()
            load[source] = 0.0
            self._place(current, load, source, self._reply(source, load))
            allowed = problem.allowed(source, current[source][0])
            now = self.measure.value(tuple(current), load) if allowed and current[source] != kept else value
            if now < value * (1 - 1e-9):
                value, settled = now, 1
            else:
                current[source], load[source] = kept, own
                settled += 1
            source = (source + 1) % len(current)
        self.search.offer(tuple(current))
        return tuple(current)

    def shake(self, random: np.random.Generator) -> None:
        """Take a few sources out of the best incumbent, put them back beside loads that are not there, and improve."""
        problem, incumbents = self.search.problem, self.search.incumbents
        best = min(incumbents, key=lambda choices: incumbents[choices])
        count, workers = len(best), len(problem.workers)
        out = random.permutation(count)[: int(random.integers(1, min(count, MOST_OUT) + 1))].tolist()
        load = problem.load(best)
        load[out] = 0.0
        current = list(best)
        for source in out:
            phantom = np.zeros(load.shape[1])
            busy = 0.8 if problem.goal == "delay" else self.search.best
            phantom[:workers] = random.uniform(0.0, busy, workers) * random.integers(0, 2, workers)
            self._place(current, load, source, self._reply(source, load, phantom))
        self.improve(tuple(current))

    def _place(self, current: list[tuple[Choice, ...]], load: Array, source: int, choice: Choice) -> None:
        """Give a source without load a route."""
        current[source] = (choice,)
        cost = self.search.problem.cost(source, choice)
        load[source, cost.resources] = self.search.problem.demands[source].volume * cost.seconds

    def _reply(self, source: int, load: Array, phantom: Array | float = 0.0) -> Choice:
        """Give a source's best route beside the ``load`` of the others [S, R]."""
        cost = self.measure.rise(source, load, phantom)
        return min((route.cheapest(cost) for route in self.staged[source]), key=lambda found: found[0])[1]
