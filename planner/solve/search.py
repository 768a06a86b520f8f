"""One route a source on large instances: best replies by dynamic programming over stages, and a bound that fits them.

Incumbents: each source in turn takes its best route beside the others' loads, exactly priced, until none can gain; then
a few sources are taken out and put back in another order, for as long as time is left.

Bound: the shared relaxation mixes routes and so hides a route's own congestion. But G is superadditive: for loads that
are there or not, G(Σ a_j) ≥ Σ G(a_j). A multiplier β_kr on that inequality and a price μ_kr on load give for class k at
resource r

    w_k G(σ) ≥ β_kr Σ_j G(a_j) + μ_kr Σ_j a_j + min_{0 ≤ σ ≤ cap} [(w_k − β_kr) G(σ) − μ_kr σ],   0 ≤ β_kr ≤ w_k,

so the sources part, and each one's cheapest route is found by dynamic programming over stages. Visiting a resource
twice counts G twice instead of once for the sum, which is less: the bound holds. The multipliers climb by subgradients
with Polyak's step length (B. T. Polyak, "Minimization of unsmooth functionals", 1969).
"""

from __future__ import annotations

import dataclasses

import numpy as np

from planner.errors import SolveError
from planner.plan.surrogate import congestion
from planner.solve.blame import Relaxations, blame, missed_limits
from planner.solve.greedy import class_prices, greedy_rounds
from planner.solve.outcome import Options, Outcome, Search
from planner.solve.pricing import unroutable
from planner.solve.problem import Array, Choice, Choices, Integers, Problem
from planner.solve.smooth import KNEE
from planner.solve.staged import StagedRoutes

GREEDY_ROUNDS = 3
SHAKES, IDLE_SHAKES = 50, 500
"""Shakes between two rounds of climbing, and how many in a row without a gain end the search."""
CLIMBS = 400
"""Steps of the multipliers between two rounds of the search."""
IDLE_STEPS, MOMENTUM = 30, 0.9
TRY_EVERY = 5
"""In about so many steps the routes that answer the multipliers are once improved to an incumbent."""


def solve(problem: Problem, options: Options) -> Outcome:
    """Look for the best one route a source, and prove how good it is.

    Raises
    ------
    SolveError
        The goal is not ``delay``.
    """
    if problem.goal != "delay":
        raise SolveError(
            "this method solves the goal delay", where="method search", value=problem.goal, expected="milp"
        )
    problem, inaccurate = _accurate(problem)
    if inaccurate:
        return Outcome("infeasible", blame=blame(problem, lambda: inaccurate))
    if unroutable(problem):
        return Outcome("infeasible", blame=blame(problem, dict))
    search = Search(problem, options)
    staged = [
        [StagedRoutes.of(problem, source, variant) for variant in demand.variants]
        for source, demand in enumerate(problem.demands)
    ]
    random = np.random.default_rng(options.seed)
    near: Choices = ()
    for choices in greedy_rounds(problem, GREEDY_ROUNDS):
        search.offer(choices)
        near = _improve(search, staged, choices)
    climb = _Climb(search, staged)
    idle = 0
    while not search.out_of_time and search.gap > options.gap and idle < IDLE_SHAKES:
        climb.run(CLIMBS)
        for _ in range(SHAKES):
            if search.out_of_time or not search.incumbents:
                break
            best = search.best
            _shake(search, staged, random)
            idle = idle + 1 if search.best >= best else 0
        idle += 0 if search.incumbents or not climb.stuck else IDLE_SHAKES
    if not search.incumbents:
        return Outcome("no_solution", bound=search.bound, blame=blame(problem, lambda: missed_limits(problem, near)))
    return search.outcome()


def _accurate(problem: Problem) -> tuple[Problem, Relaxations]:
    """Leave the sources the variants that are accurate enough; and by how much those miss that have none."""
    demands, missed = [], {}
    for source, demand in enumerate(problem.demands):
        accuracy = {variant: problem.variants[variant].accuracy for variant in demand.variants}
        kept = tuple(variant for variant in demand.variants if accuracy[variant] >= demand.min_accuracy)
        if not kept:
            missed["inaccuracy", source] = demand.min_accuracy - max(accuracy.values())
        demands.append(dataclasses.replace(demand, variants=kept or demand.variants))
    return dataclasses.replace(problem, demands=tuple(demands)), missed


def _improve(search: Search, staged: list[list[StagedRoutes]], choices: Choices) -> Choices:
    """Let the sources take their best replies in turn until none gains."""
    problem = search.problem
    load = problem.load(choices)
    current, value = list(choices), problem.objective(choices)
    source, settled = 0, 0
    while settled < len(current) and not search.out_of_time:
        kept, own = current[source], load[source].copy()
        load[source] = 0.0
        current[source] = (_reply(problem, staged[source], load),)
        now = problem.objective(tuple(current)) if current[source] != kept else value
        if now < value * (1 - 1e-9):
            value, settled = now, 1
            cost = problem.cost(source, current[source][0])
            load[source, cost.resources] = problem.demands[source].volume * cost.seconds
        else:
            current[source], load[source] = kept, own
            settled += 1
        source = (source + 1) % len(current)
    search.offer(tuple(current))
    return tuple(current)


def _reply(problem: Problem, routes: list[StagedRoutes], load: Array, phantom: Array | float = 0.0) -> Choice:
    """Give a source's best route beside the ``load`` of the others [S, R] and a ``phantom`` load of every class [R]."""
    sigma = np.minimum(problem.classes.nested(load) + phantom, KNEE)
    source = routes[0].source
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

    return min((route.cheapest(cost) for route in routes), key=lambda found: found[0])[1]


def _shake(search: Search, staged: list[list[StagedRoutes]], random: np.random.Generator) -> None:
    """Take a few sources out of the best incumbent, put them back beside loads that are not there, and improve."""
    problem = search.problem
    best = min(search.incumbents, key=lambda choices: search.incumbents[choices])
    count = len(best)
    out = random.permutation(count)[: int(random.integers(1, min(count, 4) + 1))].tolist()
    load = problem.load(best)
    load[out] = 0.0
    current = list(best)
    for source in out:
        phantom = np.zeros(load.shape[1])
        workers = len(problem.workers)
        phantom[:workers] = random.uniform(0.0, 0.8, workers) * random.integers(0, 2, workers)
        current[source] = (_reply(problem, staged[source], load, phantom),)
        cost = problem.cost(source, current[source][0])
        load[source, cost.resources] = problem.demands[source].volume * cost.seconds
    _improve(search, staged, tuple(current))


class _Climb:
    """The multipliers, and how they climb."""

    def __init__(self, search: Search, staged: list[list[StagedRoutes]]) -> None:
        self.search, self.staged = search, staged
        problem = search.problem
        self.weight = problem.classes.weight[:, None]
        shape = (len(self.weight), len(problem.resources))
        best = min(search.incumbents, key=lambda choices: search.incumbents[choices], default=None)
        sigma = problem.classes.nested(problem.load(best)) if best else np.zeros(shape)
        of_class = class_prices(problem, np.minimum(sigma, problem.cap))
        self.beta = np.repeat(0.5 * self.weight, shape[1], axis=1)
        self.mu = -np.diff(of_class, axis=0, append=0.0) * 0.5
        self.centre = (self.beta, self.mu)
        self.step, self.last, self.idle = 1.0, -np.inf, 0
        self.drift: Array | None = None
        self.seen: set[Choices] = set()
        self.steps = 0
        self.answers: list[tuple[Choice, ...]] = []

    @property
    def stuck(self) -> bool:
        """Whether steps have become too short to matter."""
        return self.step < 1e-3

    def run(self, steps: int) -> None:
        """Take some steps."""
        for _ in range(steps):
            if self.search.out_of_time or self.stuck or self.search.gap <= self.search.options.gap:
                break
            self._climb()
            if tuple(self.answers) not in self.seen and len(self.seen) < self.steps // TRY_EVERY:
                self.seen.add(tuple(self.answers))
                _improve(self.search, self.staged, tuple(self.answers))
            self.steps += 1
        self.search.raise_bound(self.last)

    def _climb(self) -> None:
        value, slope_beta, slope_mu = self._value()
        if value > self.last:
            self.last, self.centre, self.idle = value, (self.beta, self.mu), 0
        else:
            self.idle += 1
        if self.idle >= IDLE_STEPS:
            self.step, self.idle = self.step / 2, 0
            (self.beta, self.mu), self.drift = self.centre, None
            return
        # In units of each class's weight both multipliers are of one size.
        slope = np.stack([slope_beta, slope_mu]) * self.weight
        self.drift = slope if self.drift is None else slope + MOMENTUM * self.drift
        best = self.search.best if self.search.incumbents else abs(value) * 1.5 + 1e-9
        length = self.step * max(best - value, 0.0) / max(float((self.drift**2).sum()), 1e-12)
        beta, mu = self.weight * length * self.drift
        self.beta = np.clip(self.beta + beta, 0.0, self.weight)
        self.mu = np.maximum(self.mu + mu, 0.0)

    def _value(self) -> tuple[float, Array, Array]:
        """Bound of the present multipliers and its slopes."""
        problem = self.search.problem
        rest = np.maximum(self.weight - self.beta, 1e-9)
        ratio = np.maximum(self.mu / rest, 1.0)
        sigma = np.minimum(1 - (1 + (ratio - 1) / problem.kappa) ** -0.5, problem.cap)
        held = congestion(sigma, problem.kappa)
        value = float(((self.weight - self.beta) * held - self.mu * sigma).sum())
        slope_beta, slope_mu = -held, -sigma
        beta_above = np.cumsum(self.beta[::-1], axis=0)[::-1]
        mu_above = np.cumsum(self.mu[::-1], axis=0)[::-1]
        self.answers = []
        for source, routes in enumerate(self.staged):
            level = int(problem.classes.of_source[source])
            price, choice = self._cheapest(routes, beta_above[level], mu_above[level])
            value += price
            self.answers.append((choice,))
            cost = problem.cost(source, choice)
            own = problem.demands[source].volume * cost.seconds
            slope_mu[level:, cost.resources] += own
            slope_beta[level:, cost.resources] += congestion(np.minimum(own, problem.cap), problem.kappa)
        return value, slope_beta, slope_mu

    def _cheapest(self, routes: list[StagedRoutes], beta: Array, mu: Array) -> tuple[float, Choice]:
        problem = self.search.problem

        def cost(more: Array, resource: Integers) -> Array:
            fits = more <= problem.cap
            some = np.where(fits, more, 0.0)
            return np.where(fits, beta[resource] * congestion(some, problem.kappa) + mu[resource] * some, np.inf)

        return min((route.cheapest(cost) for route in routes), key=lambda found: found[0])
