"""A bound on one route a source: routes and resources are taken apart, and prices of loads join them.

Each visit of a route to a resource r brings it a load a, and the source pays π_sr(a) for it; r is paid and loses its
congestion F_r = Σ_k w_k G(σ_kr). Whatever the prices,

    Σ_r F_r + fixed costs ≥ Σ_s min_route [Σ_visits π_sr(a) + fixed cost] + Σ_r min_loads [F_r − Σ_s Σ_visits π_sr(a)],

and a source's cheapest route is found by dynamic programming over stages. Prices are functions of load, not numbers,
because a route that is there or not must feel its own congestion. There are two kinds:

- Everywhere at first β_kr G(a) + μ_kr a, summed over the classes k that feel the source. G is superadditive,
  Σ_j G(a_j) ≤ G(Σ_j a_j), so that all of a class's loads may be taken as one, whose best size has a closed form.
- Where resources are busy, :class:`~planner.solvers.methods.local_search.load_prices.LoadPrices` of any function, its
  own for every source: they know which loads do not fit beside each other, and that a source is at a worker once.

References
----------
M. Guignard and S. Kim, "Lagrangean decomposition: a model yielding stronger Lagrangean bounds", Mathematical
Programming 39 (1987).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from planner.plan.surrogate import congestion
from planner.solvers.core.problem import Array, Choice, Choices, Integers, Problem
from planner.solvers.methods.local_search.load_prices import LoadPrices
from planner.solvers.routes.greedy import class_prices
from planner.solvers.routes.stage_dp import StagedRoutes

FIRST_BUSY = 0.85
"""First prices rise up to this utilisation: beyond it they would only tell how crowded a bad incumbent is."""


class Multipliers(NamedTuple):
    """Multipliers β and μ [K, R], and prices in tables [S, T, M + 1]; or slopes of the bound along them."""

    beta: Array
    mu: Array
    table: Array


class LagrangianBound:
    """The bound as a function of the prices.

    Parameters
    ----------
    staged
        Routes of each source, by variant.
    sigma
        Utilisations [K, R] at which first prices are taken.
    """

    def __init__(self, problem: Problem, staged: list[list[StagedRoutes]], sigma: Array) -> None:
        self.problem, self.staged = problem, staged
        self.weight = problem.classes.weight[:, None]
        beta = np.repeat(0.5 * self.weight, len(problem.resources), axis=1)
        mu = -np.diff(class_prices(problem, np.minimum(sigma, FIRST_BUSY)), axis=0, append=0.0) * 0.5
        self._tabulate(np.zeros(0, dtype=np.intp))
        self.prices = Multipliers(beta, mu, np.zeros(self.tables.shape))
        self.answers: Choices = ()

    def tabulate(self, resources: Integers) -> None:
        """Give prices of their own to loads at ``resources``, the same ones to begin with."""
        beta, mu, _ = self.prices
        self._tabulate(resources)
        load = self.tables.load
        own = self.problem.classes.of_source
        of_held, of_load = _felt(beta[:, resources])[own], _felt(mu[:, resources])[own]
        table = of_held[:, :, None] * congestion(load, self.problem.kappa) + of_load[:, :, None] * load
        self.prices = Multipliers(beta, mu, table)

    def _tabulate(self, resources: Integers) -> None:
        self.tables = LoadPrices(self.problem, resources)
        self.place = np.full(len(self.problem.resources), -1)
        self.place[resources] = np.arange(len(resources))
        self.others = np.flatnonzero(self.place < 0)

    def scaled(self, slope: Multipliers) -> Multipliers:
        """Give the direction of a slope, in units in which prices of all classes are of one size.

        What a table learns at one load holds for its neighbours, too.
        """
        cells = self.tables.load / self.tables.load[-1]
        alike = 0.5 + 8 * np.minimum(cells[:, None], cells)
        priority = np.array([demand.priority for demand in self.problem.demands])[:, None, None]
        return Multipliers(slope.beta * self.weight**2, slope.mu * self.weight**2, (slope.table * priority**2) @ alike)

    def move(self, prices: Multipliers) -> None:
        """Take the valid prices that are nearest."""
        table = prices.table.copy()
        table[:, :, 0] = np.minimum(table[:, :, 0], 0.0)
        self.prices = Multipliers(np.clip(prices.beta, 0.0, self.weight), np.maximum(prices.mu, 0.0), table)

    def value(self) -> tuple[float, Multipliers]:
        """Give the bound at the present prices and its slopes; :attr:`answers` are the routes."""
        slope = Multipliers(*(np.zeros_like(price) for price in self.prices))
        value = self._least_elsewhere(slope) + self.tables.least(self.prices.table, slope.table)
        beta, mu = _felt(self.prices.beta), _felt(self.prices.mu)
        answers = []
        for source, routes in enumerate(self.staged):
            level = int(self.problem.classes.of_source[source])
            price, choice, taken = self._cheapest(routes, beta[level], mu[level])
            value += price
            answers.append((choice,))
            self._count(slope, taken, choice)
        self.answers = tuple(answers)
        return value, slope

    def _least_elsewhere(self, slope: Multipliers) -> float:
        """Give the least of F − Σ π where there are no tables: one load for each class, as Σ G(a) ≤ G(Σ a)."""
        beta, mu = self.prices.beta[:, self.others], self.prices.mu[:, self.others]
        rest = np.maximum(self.weight - beta, 1e-9)
        ratio = np.maximum(mu / rest, 1.0)
        sigma = np.minimum(1 - (1 + (ratio - 1) / self.problem.kappa) ** -0.5, self.problem.cap)
        held = congestion(sigma, self.problem.kappa)
        slope.beta[:, self.others] -= held
        slope.mu[:, self.others] -= sigma
        return float(((self.weight - beta) * held - mu * sigma).sum())

    def _cheapest(self, routes: list[StagedRoutes], beta: Array, mu: Array) -> tuple[float, Choice, StagedRoutes]:
        """Give a source's cheapest route at the prices ``beta`` and ``mu`` [R] that it feels, and at its tables'."""
        problem, source = self.problem, routes[0].source

        def cost(more: Array, resource: Integers) -> Array:
            fits = more <= problem.cap
            some = np.where(fits, more, 0.0)
            place = self.place[resource]
            total = beta[resource] * congestion(some, problem.kappa) + mu[resource] * some
            tabled = (place >= 0) & (some > 0)
            total[tabled] = self.tables.of_visit(self.prices.table[source], some[tabled], place[tabled])
            return np.where(fits, total, np.inf)

        found = [(*route.cheapest(cost), route) for route in routes]
        return min(found, key=lambda one: one[0])

    def _count(self, slope: Multipliers, routes: StagedRoutes, choice: Choice) -> None:
        more, resource = routes.visits(choice)
        place = self.place[resource]
        tabled = (place >= 0) & (more > 0)
        self.tables.count(slope.table[routes.source], more[tabled], place[tabled])
        elsewhere = np.flatnonzero(place < 0)
        level = int(self.problem.classes.of_source[routes.source])
        held = congestion(np.minimum(more, self.problem.cap), self.problem.kappa)
        for visit in elsewhere.tolist():
            slope.beta[level:, resource[visit]] += held[visit]
            slope.mu[level:, resource[visit]] += more[visit]


def _felt(by_class: Array) -> Array:
    """Sum what the classes k, k + 1, … ask for, which all feel class k; shape [K, R]."""
    return np.asarray(np.cumsum(by_class[::-1], axis=0)[::-1])
