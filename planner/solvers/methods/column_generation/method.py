"""Column generation for shared routes: shortest paths generate routes, a convex master shares samples among them.

Each round the master finds the best shares of the known routes. At its shadow prices each source's cheapest route is
generated, and the cheapest routes prove a Lagrangian lower bound. If no route has a negative reduced cost, the shares
are optimal. The search ends when shares and bound are within the optimality gap.

References
----------
G. B. Dantzig and P. Wolfe, "Decomposition principle for linear programs", Operations Research 8 (1960).
B. von Hohenbalken, "Simplicial decomposition in nonlinear programming algorithms", Mathematical Programming 13 (1977).
P. Wentges, "Weighted Dantzig-Wolfe decomposition for linear mixed-integer programming", International Transactions in
Operational Research 4 (1997).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from planner.errors import SolveError
from planner.solvers.core.deadline import Expired
from planner.solvers.core.infeasibility import explain_infeasibility
from planner.solvers.core.problem import Choice, Choices, Problem
from planner.solvers.core.resource_prices import Prices, marginal_prices
from planner.solvers.core.scale import Scale
from planner.solvers.core.search_state import Options, Outcome, Search
from planner.solvers.methods.column_generation.lp_master import LinearMaster
from planner.solvers.methods.column_generation.memory_ascent import ascend
from planner.solvers.methods.column_generation.newton_master import NewtonMaster
from planner.solvers.methods.explanation import ELASTIC_MAX_ARCS, infeasible, unroutable_outcome
from planner.solvers.methods.memory import solve_with_memory
from planner.solvers.methods.mip.elastic_lp import shared_relaxations
from planner.solvers.routes.greedy import greedy_rounds
from planner.solvers.routes.pricing import cheapest_routes, limits_bound, proven_bound

MASTER_TOLERANCE = 0.3
"""Tolerance of the master as a fraction of the present optimality gap."""
DROP_SHARE = 0.4
"""Routes whose share is less than this fraction of the gap are dropped after a round."""
BEST_PRICE_WEIGHT = 0.4
BEST_PRICE_WEIGHTS_LP = (0.5, 0.85)
"""Weights of the prices with the best bound when prices are smoothed: for the goal ``delay``, and for the others."""
MIN_SHARES = (0.02, 1e-3, 1e-5)
"""Minimum shares of the routes of incumbents, tried in turn: plans with few routes are easier to run."""
FIRST_ROUNDS = 6
FIRST_ROUNDS_OF_SITES = 24
"""Rounds of successive averages before the first master, and where workers form sites: a round is cheap there, and many
sources need many routes."""
MAX_IDLE_ROUNDS, MAX_IDLE_ROUNDS_WITHOUT_PLAN = 12, 100
"""Rounds without a better bound or incumbent after which the search ends: the rest is rounding."""


def solve(problem: Problem, options: Options) -> Outcome:
    """Minimise the surrogate objective over shares of routes.

    Raises
    ------
    SolveError
        Too many workers would have to be checked for ``max_visits``.
    """
    return solve_with_memory(problem, options, _solve)


def _solve(problem: Problem, options: Options) -> Outcome:
    search = Search(problem, options)
    try:
        return _generate(search)
    except Expired:
        return search.outcome()


def _generate(search: Search) -> Outcome:
    problem, options = search.problem, search.options
    best_prices, routes = _first_routes(search)
    if np.isinf(search.bound):
        return unroutable_outcome(problem)
    first = list(options.start) or _greedy(search)
    scale = Scale.of(problem, min(first, key=problem.objective))
    kind = NewtonMaster if problem.goal == "delay" else LinearMaster
    master = kind(problem, scale, options.deadline)
    for choices in (*first, *_best_known(search)):
        search.offer(choices)
        master.add(
            (source, choice)
            for source, chosen in enumerate(choices)
            for choice in chosen
            if problem.allowed(source, choice)
        )
    master.add(routes)
    _check_every_source_has_a_route(problem, master)
    idle = 0
    while idle < (MAX_IDLE_ROUNDS if search.incumbents else MAX_IDLE_ROUNDS_WITHOUT_PLAN):
        old_bound, old_best = search.bound, search.best
        master.solve(MASTER_TOLERANCE * max(options.gap, min(search.gap, 1.0)) * max(search.bound, 1e-9))
        shadow = master.prices()  # later the master has rows that it was never solved with
        for min_share in MIN_SHARES:
            search.offer(master.choices(min_share))
        if search.ends:
            break
        if not search.incumbents and _proves_infeasible(problem, master.hard_prices()):
            return _infeasible(problem, options, master)
        near, routes = dict(routes), []
        for prices in _smoothed_prices(problem, shadow, best_prices, idle):
            bound = search.bound
            routes += _price(search, prices, near)
            best_prices = prices if search.bound > bound else best_prices
        # Dropping routes only after progress avoids cycles of dropping and generating them again.
        if search.bound > old_bound:
            master.drop(float(np.clip(DROP_SHARE * search.gap, 1e-5, 1e-2)))
        master.add(routes)
        idle = 0 if search.bound > old_bound or search.best < old_best else idle + 1
    return dataclasses.replace(search.outcome(), prices=shadow)


def _first_routes(search: Search) -> tuple[Prices, list[tuple[int, Choice]]]:
    """Return the first routes, and the prices that prove the best bound so far."""
    best_prices, *others = _first_prices(search.problem)
    routes = _price(search, best_prices, {})
    for prices in others:
        bound = search.bound
        routes += _price(search, prices, {})
        best_prices = prices if search.bound > bound else best_prices
    if search.problem.room_parts and np.isfinite(search.bound):
        best_prices, more = ascend(search, best_prices, lambda prices: _price(search, prices, dict(routes)))
        routes += more
    return best_prices, routes


def _greedy(search: Search) -> list[Choices]:
    """Return greedy routes to start from."""
    rounds = FIRST_ROUNDS if search.problem.sites is None else FIRST_ROUNDS_OF_SITES
    return greedy_rounds(search.problem, rounds, averaging=True, deadline=search.options.deadline)


def _best_known(search: Search) -> list[Choices]:
    """Return the best plan so far where it matters: to a linear master, or where memory rules out most routes."""
    if search.problem.goal == "delay" and not search.problem.room_parts:
        return []
    return sorted(search.incumbents, key=lambda choices: search.incumbents[choices])[:1]


def _check_every_source_has_a_route(problem: Problem, master: NewtonMaster | LinearMaster) -> None:
    routed = {source for source, _ in master.columns}
    for source, demand in enumerate(problem.demands):
        if source not in routed:
            raise SolveError(
                f"no route of {demand.name} was found that visits no worker too often",
                where="max_visits",
                value=problem.max_visits,
                expected="method milp",
            )


def _first_prices(problem: Problem) -> list[Prices]:
    """Return the prices at which the first routes are generated, those with the better bound usually last.

    They are the marginal prices without load. For the goals ``throughput`` and ``makespan`` they are equal prices of
    all resources, and prices of the workers' time alone in proportion to their speeds: these prove what all workers
    together can do, which a master with many links finds only after many rounds.
    """
    levels, resources, sources = len(problem.classes.weight), len(problem.resources), len(problem.demands)
    if problem.goal == "delay":
        return [Prices.of_delay(problem, marginal_prices(problem, np.zeros((levels, resources))))]
    none, late = np.zeros(sources), np.full(sources, (problem.goal == "makespan") / sources)
    if problem.goal == "energy":
        return [Prices(np.repeat(problem.watts[None, :], levels, axis=0), none, none, none)]
    by_speed = np.zeros(resources)
    by_speed[: len(problem.workers)] = problem.speed
    weights = (np.ones(resources), by_speed)
    return [
        Prices(np.tile(weight / (weight @ problem.usable), (levels, 1)), none, late, none, late) for weight in weights
    ]


def _smoothed_prices(problem: Problem, prices: Prices, best_prices: Prices, idle: int) -> list[Prices]:
    """Return the prices at which to generate routes: the master's, smoothed by those of the best bound (Wentges).

    Prices of the goal ``delay`` jump less than the duals of a linear program, so one combination is enough; it
    approaches the master's prices during ``idle`` rounds.
    """
    if problem.goal == "delay":
        return [prices.mixed(best_prices, BEST_PRICE_WEIGHT ** (idle + 1))]
    return [prices, *(prices.mixed(best_prices, weight) for weight in BEST_PRICE_WEIGHTS_LP)]


def _infeasible(problem: Problem, options: Options, master: NewtonMaster | LinearMaster) -> Outcome:
    """Return the outcome with the least relaxations, over all routes if their arcs fit one program."""
    if problem.room_parts:  # the caller, who relaxed memory, looks for the reasons
        return Outcome("infeasible")
    if problem.arcs <= ELASTIC_MAX_ARCS:
        return infeasible(problem, options, shared=True)
    relaxations = shared_relaxations(problem, master.columns, options)
    return Outcome("infeasible", reasons=explain_infeasibility(problem, relaxations))


def _proves_infeasible(problem: Problem, prices: Prices) -> bool:
    """Return whether the prices of the limits alone prove that no routes satisfy all limits."""
    cheapest = np.array([price for price, _ in cheapest_routes(problem, prices)])
    return limits_bound(problem, prices, cheapest) > 1e-6 * float(np.abs(cheapest).sum())


def _price(search: Search, prices: Prices, near: Mapping[int, Choice]) -> list[tuple[int, Choice]]:
    """Return each source's cheapest route at these prices, and raise the bound that they prove.

    ``near`` maps a source to a route that may be nearly the cheapest, which bounds the search.
    """
    search.options.deadline.check()
    problem, pool = search.problem, search.options.pool
    routes = pool.cheapest_routes(problem, prices, near) if pool else cheapest_routes(problem, prices, near)
    search.raise_bound(proven_bound(problem, prices, np.array([price for price, _ in routes])))
    return [(source, choice) for source, (_, choice) in enumerate(routes) if problem.allowed(source, choice)]
