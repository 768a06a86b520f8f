"""Pricing: the cheapest route at given shadow prices, and the lower bound that it proves."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from planner.plan.surrogate import congestion
from planner.solvers.core.equations import Equation
from planner.solvers.core.problem import Array, Choice, Problem
from planner.solvers.core.resource_prices import Prices
from planner.solvers.routes import shortest_path
from planner.solvers.routes.shortest_path import LayeredGraph, Visits
from planner.solvers.routes.site_pricing import cheapest_paths
from planner.solvers.routes.timely_paths import timely
from planner.solvers.routes.together import MAX_WORKERS, cheapest_paths_together

MAX_VISIT_STATES = 1024
"""Maximum number of visit states of a shortest path; it costs time and memory in proportion to them."""

PRICING: Final[Mapping[str, Equation]] = {
    "price_of_route": Equation(
        "What a route costs at the prices of load, latency, time, accuracy and memory.",
        r"C_j = \lambda_s \sum_{r} \psi_{kr} t_{jr} + \lambda_s \chi_s \tau_j + \xi_s u_j "
        r"+ \lambda_s \chi_s \omega (1 - A_j) - \eta_s A_j + \sum_{d} \nu_d H_{jd}",
    ),
    "cheapest_route": Equation(
        "The cheapest route of a source, by a shortest path in the layered graph: the price is a sum over its arcs.",
        r"C_s = \min_{j} C_j = \min_{o \in O_s} \Big( \min_{\text{paths}} \sum_{a} \big( "
        r"\lambda_s \sum_{r} \psi_{kr} t_{ar} + \lambda_s \chi_s \tau_a + \xi_s u_a + \nu_d H_{ad} \big) "
        r"+ \lambda_s \chi_s \omega (1 - A_o) - \eta_s A_o \Big)",
    ),
}
"""The pricing of routes, by name; ψ, χ, ξ, η and ν are the prices of load, latency, time, accuracy and memory."""
BOUNDS: Final[Mapping[str, Equation]] = {
    "limit_worth": Equation(
        "What the limits of sources and memory are worth at their prices; part of each bound.",
        r"\Lambda = \sum_{s} (\eta_s A_s - \xi_s T_s) - \sum_{d} \nu_d",
    ),
    "lagrangian_bound": Equation(
        "Goal delay: the cheapest routes, and each resource at its best utilisation for the prices of its load.",
        r"\sum_{s} C_s + \sum_{k,r} \min_{0 \le \sigma \le c_r} \big( w_k G(\sigma) - (\psi_{kr} "
        r"- \psi_{(k+1)r}) \sigma \big) + \Lambda",
    ),
    "bottleneck_bound": Equation(
        "Goals throughput and makespan: prices of load that add up to 1, weighted by what may be used; for makespan "
        "the prices of the longest delay add up to 1, too.",
        r"\sum_{s} C_s + \Lambda, \qquad \sum_{r} q_r \psi_r = 1",
    ),
    "power_bound": Equation(
        "Goal energy: what a resource costs beyond its power is the price of its cap.",
        r"P_0 + \sum_{s} C_s - \sum_{r} c_r \max(0, \psi_r - P_r) + \Lambda",
    ),
    "limits_bound": Equation(
        "With the prices of limits alone: a positive value proves that no routes keep all limits.",
        r"\sum_{s} C_s - \sum_{r} c_r \psi_r + \Lambda > 0",
    ),
}
"""The lower bounds that prices prove, by the name of their function."""


Priced = tuple[float, Choice]
"""The price of a route for all samples of its source, and the route."""


def cheapest_routes(
    problem: Problem, prices: Prices, near: Mapping[int, Choice] | None = None, sources: Sequence[int] | None = None
) -> list[Priced]:
    """Return the cheapest routes of ``sources``, by default of all, as :func:`cheapest_route` does.

    Parameters
    ----------
    near
        By source, a route that may be nearly the cheapest.
    """
    near, sources = near or {}, range(len(problem.demands)) if sources is None else sources
    if problem.sites is None and len(problem.workers) <= MAX_WORKERS:
        return _together(problem, prices, sources)
    if problem.sites is None:
        return [cheapest_route(problem, source, prices, near.get(source)) for source in sources]
    paths = cheapest_paths(problem, problem.sites, prices, sources)
    found = []
    for source in sources:
        best, choice = _best_variant(problem, source, prices, paths)
        counted = problem.visited_too_often(choice.workers)
        found.append(cheapest_route(problem, source, prices) if counted else (best, choice))
    return found


def _best_variant(
    problem: Problem, source: int, prices: Prices, paths: Mapping[tuple[int, int], tuple[float, tuple[int, ...]]]
) -> Priced:
    """Return the cheapest of the cheapest paths of a source's variants."""
    variants = problem.demands[source].variants
    price, variant = min(
        (_priced(problem, source, variant, prices, *paths[source, variant]), variant) for variant in variants
    )
    return price, Choice(variant, paths[source, variant][1])


def _together(problem: Problem, prices: Prices, sources: Sequence[int]) -> list[Priced]:
    """Return the cheapest routes of sources, of which those with the same number of blocks are searched together."""
    alike: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for source in sources:
        for variant in problem.demands[source].variants:
            alike[len(problem.variants[variant])].append((source, variant))
    found: dict[tuple[int, int], tuple[float, tuple[int, ...]]] = {}
    for pairs in alike.values():
        graphs = [LayeredGraph.of(problem, *pair, prices) for pair in pairs]
        for pair, graph, path in zip(pairs, graphs, cheapest_paths_together(graphs), strict=True):
            found[pair] = _counted(problem, graph, timely(problem, *pair, graph, path))
    return [_best_variant(problem, source, prices, found) for source in sources]


def cheapest_route(problem: Problem, source: int, prices: Prices, near: Choice | None = None) -> Priced:
    """Return the price of the cheapest route of ``source``, over its variants and for all its samples, and the route.

    If no route joins the blocks, the price is infinite and the route arbitrary.

    Parameters
    ----------
    near
        A route that may be nearly the cheapest: it bounds the search and saves time.
    """
    demand = problem.demands[source]
    best, chosen = np.inf, Choice(demand.variants[0], (demand.home,) * len(problem.variants[demand.variants[0]]))
    for variant in demand.variants:
        graph = LayeredGraph.of(problem, source, variant, prices)
        path = _path(problem, graph, near.workers if near and near.variant == variant else ())
        price = _priced(problem, source, variant, prices, *path)
        if price < best:
            best, chosen = price, Choice(variant, path[1])
    return best, chosen


def cheapest_split(problem: Problem, source: int, prices: Prices) -> Choice:
    """Return the cheapest route that runs its first blocks, or none, at home and all others on one worker.

    Pins, missing paths and minimum accuracies are respected if possible.
    """
    demand = problem.demands[source]
    options: list[tuple[bool, float, Choice]] = []
    for variant in demand.variants:
        model = problem.variants[variant]
        price, cut, worker = shortest_path.cheapest_split(problem, source, variant, prices)
        price += demand.volume * prices.latency[source] * problem.loss_s * (1 - model.accuracy)
        workers = (demand.home,) * cut + (worker,) * (len(model) - cut)
        options.append((model.accuracy < demand.min_accuracy, price, Choice(variant, workers)))
    return min(options, key=lambda option: option[:2])[2]


def _priced(
    problem: Problem, source: int, variant: int, prices: Prices, path_price: float, _: tuple[int, ...]
) -> float:
    """Return the price of a path for all samples of a source, with what its variant's accuracy is worth."""
    accuracy = problem.variants[variant].accuracy
    lost = prices.latency[source] * problem.loss_s * (1 - accuracy)
    return float(problem.demands[source].volume * (path_price + lost) - prices.accuracy[source] * accuracy)


def unroutable(problem: Problem) -> bool:
    """Return whether some source has no route at all."""
    prices = Prices.of_delay(problem, np.zeros((len(problem.classes.weight), len(problem.resources))))
    return any(np.isinf(price) for price, _ in cheapest_routes(problem, prices))


def _path(problem: Problem, graph: LayeredGraph, near: tuple[int, ...]) -> tuple[float, tuple[int, ...]]:
    """Return the price of the cheapest path through a graph, and its workers; a ``near`` path bounds the search."""
    if graph.first_of_stage is not None:
        (path,) = cheapest_paths_together([graph])
    else:
        path = graph.cheapest(near)
    return _counted(problem, graph, path)


def _counted(
    problem: Problem, graph: LayeredGraph, path: tuple[float, tuple[int, ...]]
) -> tuple[float, tuple[int, ...]]:
    """Return the price of the cheapest path within the limit of visits, and its workers, given the ``path`` without it.

    Visits are counted only at workers that a cheapest path visits too often; these are added one round after another.
    If that takes too many states, the price is a lower bound and the route visits some worker too often.
    """
    price, workers = path
    visits = Visits((), problem.max_visits or 0, len(problem.workers))
    while excessive := problem.visited_too_often(workers):
        visits = dataclasses.replace(visits, counted=visits.counted + excessive)
        if np.isinf(price) or visits.states > MAX_VISIT_STATES:
            break
        price, workers = graph.counted(visits)
    return price, workers


def proven_bound(problem: Problem, prices: Prices, cheapest: Array) -> float:
    """Return the lower bound on the objective that ``prices`` prove, given the sources' ``cheapest`` prices [S]."""
    of_goal = {"delay": lagrangian_bound, "energy": power_bound}.get(problem.goal, bottleneck_bound)
    return of_goal(problem, prices, cheapest)


def lagrangian_bound(problem: Problem, prices: Prices, cheapest: Array) -> float:
    """Return the Lagrangian lower bound of ``prices`` for the goal ``delay``, given ``cheapest`` prices [S].

    Σ_s cheapest_s + Σ_{k,r} min_{0 ≤ σ ≤ cap} (w_k G(σ) − μ_kr σ), where μ_kr is the price's step from class k to
    k + 1. The minimum lies where w_k G'(σ) = μ_kr, that is (1 − σ)⁻² = 1 + (μ / w − 1) / κ. Any prices give a valid
    bound (Dantzig and Wolfe, 1960).
    """
    step = -np.diff(prices.of_class, axis=0, append=0.0)
    weight = problem.classes.weight[:, None]
    ratio = np.maximum(step / weight, 1.0)
    sigma = np.minimum(1 - (1 + (ratio - 1) / problem.kappa) ** -0.5, problem.caps)
    free = float((weight * congestion(sigma, problem.kappa) - step * sigma).sum())
    return float(cheapest.sum()) + free + limit_worth(problem, prices)


def bottleneck_bound(problem: Problem, prices: Prices, cheapest: Array) -> float:
    """Return the lower bound of ``prices`` for the goals ``throughput`` and ``makespan``, given ``cheapest`` [S].

    The largest utilisation relative to what may be used is at least the mean weighted by any prices that, times the
    share of each resource that may be used, add up to 1. (They add up to 0 if only violated limits have a price.) The
    same holds for ``makespan`` and the sources' prices ``late``; what these lack is the price of ``least_delay_s``.
    """
    deadlines = dataclasses.replace(prices, second=prices.second - prices.late)
    least_s = problem.least_delay_s * (1 - float(np.sum(prices.late))) if problem.least_delay_s > 0 else 0.0
    return float(cheapest.sum()) + least_s + limit_worth(problem, deadlines)


def power_bound(problem: Problem, prices: Prices, cheapest: Array) -> float:
    """Return the lower bound of ``prices`` for the goal ``energy``, given ``cheapest`` [S].

    What a second of a resource costs beyond its power is the price of its cap, which no plan exceeds.
    """
    of_cap = np.maximum(prices.of_class[-1] - problem.watts, 0.0)
    return problem.idle_w + float(cheapest.sum()) - float(of_cap @ problem.caps) + limit_worth(problem, prices)


def limits_bound(problem: Problem, prices: Prices, cheapest: Array) -> float:
    """Return a lower bound on the violation of limits, weighted by their ``prices``; above 0 proves infeasibility."""
    priced = np.flatnonzero(prices.of_class[-1])
    of_caps = float(prices.of_class[-1][priced] @ problem.caps[priced])
    return float(cheapest.sum()) - of_caps + limit_worth(problem, prices)


def limit_worth(problem: Problem, prices: Prices) -> float:
    """Return what limits are worth at ``prices``: minimum accuracies, less deadlines, less the room for weights."""
    return sum(
        float(prices.accuracy[source]) * demand.min_accuracy
        - (float(prices.second[source]) * demand.deadline_s if np.isfinite(demand.deadline_s) else 0.0)
        for source, demand in enumerate(problem.demands)
    ) - float(np.sum(prices.memory))
