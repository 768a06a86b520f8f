"""Shared routes by column generation: dynamic programming prices routes, a convex master shares samples among them.

Each round the master finds the best shares of the known routes; its prices find each source's cheapest route, and prove
a Lagrangian bound. A source whose cheapest route is known already is as good as it gets; the round in which shares and
bound are within the gap is the last.

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
from planner.solvers.core.infeasibility import Relaxations, explain_infeasibility
from planner.solvers.core.problem import Choice, Problem
from planner.solvers.core.resource_prices import Prices
from planner.solvers.core.search_state import Options, Outcome, Search
from planner.solvers.methods.column_generation.lp_master import BottleneckMaster
from planner.solvers.methods.column_generation.newton_master import Master
from planner.solvers.methods.memory import solve_with_memory
from planner.solvers.methods.mip.elastic_lp import shared_relaxations
from planner.solvers.routes.greedy import class_prices, greedy_rounds
from planner.solvers.routes.pricing import cheapest_route, limits_bound, proven_bound, unroutable

ACCURACY = 0.3
"""The master is solved to this part of the gap that is left."""
DROPPED = 0.4
"""Routes with less than this part of the gap as their share are forgotten after each round."""
OF_BEST, OF_CENTRE = 0.4, (0.5, 0.85)
"""Parts of the prices with the best bound so far in the mixtures that are tried: for ``delay``, and else."""
LEAST_SHARES = (0.02, 1e-3, 1e-5)
"""Routes with less are left out of incumbents: few routes are easier to carry out."""
ELASTIC_ARCS = 100_000
FIRST_ROUNDS, LATER_ROUNDS = 6, 2
"""Rounds of successive averages before the first master, without and with an earlier plan."""
IDLE_ROUNDS = 12
"""So many rounds without a better bound or incumbent are the end: all that is left is rounding."""


def solve(problem: Problem, options: Options) -> Outcome:
    """Minimise the surrogate objective over shares of routes.

    Raises
    ------
    SolveError
        Routes visit so many workers more than ``max_visits`` times that not all can be counted.
    """
    return solve_with_memory(problem, options, _solve)


def _solve(problem: Problem, options: Options) -> Outcome:
    search = Search(problem, options)
    if unroutable(problem):
        return Outcome("infeasible", blame=explain_infeasibility(problem, dict))
    master = Master(problem) if problem.goal == "delay" else BottleneckMaster(problem)
    rounds = LATER_ROUNDS if options.start else FIRST_ROUNDS
    for choices in (*options.start, *greedy_rounds(problem, rounds, averaging=True)):
        search.offer(choices)
        master.add(
            (source, Choice(choice.variant, choice.workers))
            for source, own in enumerate(choices)
            for choice in own
            if problem.allowed(source, choice)
        )
    centre = _first_prices(problem)
    routes = _price(search, centre, {})
    master.add(routes)
    _check_begun(problem, master)
    idle = 0
    while idle < IDLE_ROUNDS:
        before, best = search.bound, search.best
        master.solve(ACCURACY * max(options.gap, min(search.gap, 1.0)) * max(search.bound, 1e-9))
        for least_share in LEAST_SHARES:
            search.offer(master.choices(least_share))
        if search.gap <= options.gap or search.out_of_time:
            break
        if not search.incumbents and _proves_infeasible(problem, master.hard_prices()):
            return Outcome(
                "infeasible", blame=explain_infeasibility(problem, lambda: _relaxations(problem, options, master))
            )
        near, routes = dict(routes), []
        for prices in _menu(problem, master.prices(), centre, idle):
            bound = search.bound
            routes += _price(search, prices, near)
            centre = prices if search.bound > bound else centre
        # Dropping only after progress keeps routes from being dropped and priced in turn for ever.
        if search.bound > before:
            master.drop(float(np.clip(DROPPED * search.gap, 1e-5, 1e-2)))
        master.add(routes)
        idle = 0 if search.bound > before or search.best < best else idle + 1
    return dataclasses.replace(search.outcome(), prices=master.prices())


def _check_begun(problem: Problem, master: Master | BottleneckMaster) -> None:
    begun = {source for source, _ in master.columns}
    for source, demand in enumerate(problem.demands):
        if source not in begun:
            raise SolveError(
                f"no route of {demand.name} was found that visits no worker too often",
                where="max_visits",
                value=problem.max_visits,
                expected="method milp",
            )


def _first_prices(problem: Problem) -> Prices:
    """Give what the first little load costs, or the same price to all resources and all delays."""
    levels, resources, sources = len(problem.classes.weight), len(problem.resources), len(problem.demands)
    if problem.goal == "delay":
        return Prices.of_delay(problem, class_prices(problem, np.zeros((levels, resources))))
    none, late = np.zeros(sources), np.full(sources, (problem.goal == "makespan") / sources)
    return Prices(np.full((levels, resources), 1 / resources), none, late, none, late)


def _menu(problem: Problem, prices: Prices, centre: Prices, idle: int) -> list[Prices]:
    """Give the prices at which to look for routes.

    Mixtures with the prices of the best bound so far help: congestion's jump less than the duals of a linear program,
    and one is enough, ever nearer to the master's prices during ``idle`` rounds.
    """
    if problem.goal == "delay":
        return [prices.mixed(centre, OF_BEST ** (idle + 1))]
    return [prices, *(prices.mixed(centre, part) for part in OF_CENTRE)]


def _relaxations(problem: Problem, options: Options, master: Master | BottleneckMaster) -> Relaxations | None:
    """Give the least relaxations, of all routes where the arcs fit one program."""
    if problem.arcs > ELASTIC_ARCS:
        return shared_relaxations(problem, master.columns, options)
    from planner.solvers.methods.mip.elastic import relaxations

    return relaxations(problem, options, shared=True)


def _proves_infeasible(problem: Problem, prices: Prices) -> bool:
    """Whether even the cheapest routes cost more, at prices of the limits alone, than the limits are worth."""
    cheapest = np.array([cheapest_route(problem, source, prices)[0] for source in range(len(problem.demands))])
    return limits_bound(problem, prices, cheapest) > 1e-6 * float(np.abs(cheapest).sum())


def _price(search: Search, prices: Prices, near: Mapping[int, Choice]) -> list[tuple[int, Choice]]:
    """Give each source's cheapest route at these prices, and prove the bound that follows.

    By source, routes that are ``near`` the cheapest save time.
    """
    problem = search.problem
    routes = [cheapest_route(problem, source, prices, near.get(source)) for source in range(len(problem.demands))]
    search.raise_bound(proven_bound(problem, prices, np.array([price for price, _ in routes])))
    return [(source, choice) for source, (_, choice) in enumerate(routes) if problem.allowed(source, choice)]
