"""The Lagrangian lower bound on one route per source: prices of loads decouple routes from resources.

Each visit of a route to a resource r adds a load a, for which the source pays π_sr(a); r receives the payments and has
the congestion F_r = Σ_k w_k G(σ_kr). For any prices,

    Σ_r F_r + fixed costs ≥ Σ_s min_route [Σ_visits π_sr(a) + fixed cost] + Σ_r min_loads [F_r − Σ_s Σ_visits π_sr(a)],

and a source's cheapest route is found by dynamic programming over stages. Prices are functions of load rather than
numbers, because an unsplit route has to pay for its own congestion. There are two kinds:

- At first, and at resources with little load, β_kr G(a) + μ_kr a, summed over the classes k whose σ_k includes the
  source. G is superadditive, Σ_j G(a_j) ≤ G(Σ_j a_j), so all loads of a class may be replaced by one, whose best size
  has a closed form.
- At busy resources, tables of prices per source, :class:`~planner.solvers.methods.local_search.load_prices.LoadPrices`.
  They account for loads that do not fit beside each other, and for a source being at a worker only once.

References
----------
M. Guignard and S. Kim, "Lagrangean decomposition: a model yielding stronger Lagrangean bounds", Mathematical
Programming 39 (1987).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np

from planner.plan.surrogate import congestion
from planner.solvers.core.equations import Equation
from planner.solvers.core.problem import Array, Choice, Choices, Integers, Problem
from planner.solvers.core.resource_prices import marginal_prices
from planner.solvers.methods.local_search.load_prices import LoadPrices
from planner.solvers.methods.local_search.memory_prices import MemoryPrices
from planner.solvers.routes.stage_dp import StagedRoutes

BOUNDS: Final[Mapping[str, Equation]] = {
    "LagrangianBound": Equation(
        "One route per source: each visit of a route to a resource pays a price, a function of its load; each resource "
        "earns the payments and has its congestion.",
        r"\sum_{s} \min_{j} \Big( \phi_j + \sum_{i} \Pi_{sr}(b_i) \Big) "
        r"+ \sum_{r} \min_{b} \Big( \sum_{k} w_k G(\sigma_{kr}) - \sum_{s,i} \Pi_{sr}(b_i) \Big)",
    ),
    "prices": Equation(
        "Prices at resources with little load; at busy ones they are tables, linear between the loads of a grid.",
        r"\Pi_{sr}(b) = \sum_{k \ge k(s)} \big( \zeta_{kr} G(b) + \mu_{kr} b \big)",
    ),
}
"""The bound of ``search``, by name."""
MAX_FIRST_UTILISATION = 0.85
"""Utilisation at which the first prices are capped; above it they would reflect the overload of a bad incumbent."""


class Multipliers(NamedTuple):
    """Multipliers β and μ [K, R], price tables [S, T, M + 1], and prices of memory [S, D].

    Or a supergradient of the bound in them.
    """

    beta: Array
    mu: Array
    table: Array
    memory: Array


class LagrangianBound:
    """The lower bound as a function of the prices.

    Parameters
    ----------
    staged
        Routes of each source, by variant.
    start
        Good routes, at whose utilisations the first prices are computed.
    """

    def __init__(self, problem: Problem, staged: list[list[StagedRoutes]], start: Choices | None) -> None:
        self.problem, self.staged = problem, staged
        self.weight = problem.classes.weight[:, None]
        load = problem.load(start) if start else np.zeros((len(problem.demands), len(problem.resources)))
        sigma = problem.classes.nested(load)
        beta = np.repeat(0.5 * self.weight, len(problem.resources), axis=1)
        mu = -np.diff(marginal_prices(problem, np.minimum(sigma, MAX_FIRST_UTILISATION)), axis=0, append=0.0) * 0.5
        self._tabulate(np.zeros(0, dtype=np.intp))
        self.memory = MemoryPrices(problem)
        self.memory_scale = self.memory.scale(problem.objective(start) if start else 1.0)
        self.prices = Multipliers(beta, mu, np.zeros(self.tables.shape), self.memory.first(start))
        self.routes: Choices = ()

    def tabulate(self, resources: Integers) -> None:
        """Price loads at ``resources`` by tables, which start with the present prices."""
        beta, mu, _, memory = self.prices
        self._tabulate(resources)
        load = self.tables.load
        level = self.problem.classes.of_source
        of_congestion, of_load = _from_class_on(beta[:, resources])[level], _from_class_on(mu[:, resources])[level]
        table = of_congestion[:, :, None] * congestion(load, self.problem.kappa) + of_load[:, :, None] * load
        self.prices = Multipliers(beta, mu, table, memory)

    def _tabulate(self, resources: Integers) -> None:
        self.tables = LoadPrices(self.problem, resources)
        self.table_of = np.full(len(self.problem.resources), -1)
        self.table_of[resources] = np.arange(len(resources))
        self.others = np.flatnonzero(self.table_of < 0)

    def scaled(self, slope: Multipliers) -> Multipliers:
        """Return a supergradient rescaled so that prices of all classes move by similar amounts.

        In the tables it is smoothed, because prices of neighbouring loads should move together.
        """
        relative = self.tables.load / self.tables.load[-1]
        kernel = 0.5 + 8 * np.minimum(relative[:, None], relative)
        priority = np.array([demand.priority for demand in self.problem.demands])[:, None, None]
        return Multipliers(
            slope.beta * self.weight**2,
            slope.mu * self.weight**2,
            (slope.table * priority**2) @ kernel,
            slope.memory * self.memory_scale,
        )

    def move(self, prices: Multipliers) -> None:
        """Move to ``prices``, projected onto the valid ones."""
        table = prices.table.copy()
        table[:, :, 0] = np.minimum(table[:, :, 0], 0.0)
        self.prices = Multipliers(
            np.clip(prices.beta, 0.0, self.weight),
            np.maximum(prices.mu, 0.0),
            table,
            np.maximum(prices.memory, 0.0),
        )

    def value(self) -> tuple[float, Multipliers]:
        """Return the bound at the present prices and a supergradient; :attr:`routes` are set to the cheapest routes."""
        slope = Multipliers(*(np.zeros_like(price) for price in self.prices))
        value = self._least_elsewhere(slope) + self.tables.least(self.prices.table, slope.table)
        value += self.memory.least(self.prices.memory, slope.memory)
        beta, mu = _from_class_on(self.prices.beta), _from_class_on(self.prices.mu)
        cheapest = []
        for source, staged in enumerate(self.staged):
            level = int(self.problem.classes.of_source[source])
            price, choice, routes = self._cheapest(staged, beta[level], mu[level])
            value += price
            cheapest.append((choice,))
            self._count(slope, routes, choice)
        self.routes = tuple(cheapest)
        return value, slope

    def _least_elsewhere(self, slope: Multipliers) -> float:
        """Return the minimum of F − Σ π at resources without tables: one load per class, as Σ G(a) ≤ G(Σ a)."""
        beta, mu = self.prices.beta[:, self.others], self.prices.mu[:, self.others]
        rest = np.maximum(self.weight - beta, 1e-9)
        ratio = np.maximum(mu / rest, 1.0)
        sigma = np.minimum(1 - (1 + (ratio - 1) / self.problem.kappa) ** -0.5, self.problem.caps[self.others])
        mean_number = congestion(sigma, self.problem.kappa)
        slope.beta[:, self.others] -= mean_number
        slope.mu[:, self.others] -= sigma
        return float(((self.weight - beta) * mean_number - mu * sigma).sum())

    def _cheapest(self, staged: list[StagedRoutes], beta: Array, mu: Array) -> tuple[float, Choice, StagedRoutes]:
        """Return a source's cheapest route at its prices ``beta`` and ``mu`` [R] and those of its tables."""
        problem, source = self.problem, staged[0].source

        def cost(more: Array, resource: Integers) -> Array:
            fits = more <= problem.caps[resource]
            load = np.where(fits, more, 0.0)
            table = self.table_of[resource]
            total = beta[resource] * congestion(load, problem.kappa) + mu[resource] * load
            tabled = (table >= 0) & (load > 0)
            total[tabled] = self.tables.of_visit(self.prices.table[source], load[tabled], table[tabled])
            return np.where(fits, total, np.inf)

        memory = self.prices.memory[source]
        priced = [
            (*routes.priced(cost, self.memory.of_blocks(memory, routes.variant)).cheapest(), routes)
            for routes in staged
        ]
        return min(priced, key=lambda candidate: candidate[0])

    def _count(self, slope: Multipliers, routes: StagedRoutes, choice: Choice) -> None:
        """Add the visits and the bytes of a route to the supergradient."""
        self.memory.count(slope.memory[routes.source], choice)
        more, resource = routes.visits(choice)
        table = self.table_of[resource]
        tabled = (table >= 0) & (more > 0)
        self.tables.count(slope.table[routes.source], more[tabled], table[tabled])
        elsewhere = np.flatnonzero(table < 0)
        level = int(self.problem.classes.of_source[routes.source])
        mean_number = congestion(np.minimum(more, self.problem.caps[resource]), self.problem.kappa)
        for visit in elsewhere.tolist():
            slope.beta[level:, resource[visit]] += mean_number[visit]
            slope.mu[level:, resource[visit]] += more[visit]


def _from_class_on(by_class: Array) -> Array:
    """Return the sum over the classes k, k + 1, …, whose σ all include class k; shape [K, R]."""
    return np.asarray(np.cumsum(by_class[::-1], axis=0)[::-1])
