from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from planner.solvers.core.build import build_problem
from planner.solvers.core.light import ROUNDING
from planner.solvers.core.problem import Choice, Problem
from planner.solvers.core.resource_prices import Prices
from planner.solvers.routes.pricing import cheapest_route
from planner.solvers.routes.shortest_path import LayeredGraph, Visits
from tests.instances import random_instance


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    workers=st.integers(1, 9),
    spread=st.sampled_from([0.0, 0.3, 3.0]),
    unlinked=st.booleans(),
)
def test_skipped_moves_are_never_on_a_shortest_path(seed: int, workers: int, spread: float, *, unlinked: bool) -> None:
    problem = build_problem(random_instance(seed, sources=2, workers=workers, blocks=7))
    random = np.random.default_rng(seed)
    if unlinked:
        latency_s = np.where(random.random((workers, workers)) < 0.4, np.inf, problem.latency_s)
        np.fill_diagonal(latency_s, 0.0)
        problem = dataclasses.replace(problem, latency_s=latency_s)
    of_class = np.exp(random.normal(0.0, spread, len(problem.resources)))
    prices = Prices.of_delay(problem, np.repeat(of_class[None], len(problem.classes.weight), axis=0))
    for source, demand in enumerate(problem.demands):
        variant = demand.variants[0]
        graph = LayeredGraph.of(problem, source, variant, prices)
        price, path = graph.cheapest()
        all_looked_at, _ = graph.counted(Visits((), 0, workers))
        near = tuple(random.integers(0, workers, len(path)).tolist())
        assert price == pytest.approx(all_looked_at, rel=1e-12)
        assert graph.cheapest(near)[0] == graph.cheapest(path)[0] == price
        assert graph.price(path) == pytest.approx(price, rel=1e-12)


def light(problem: Problem, choice: Choice) -> bool:
    """Whether no stage and no transfer of the source's route has a load above ``most_load``."""
    (demand,), (variant,) = problem.demands, problem.variants
    stops = [demand.home, *choice.workers, demand.home]
    loads: list[float] = []
    begin = 0
    for cut, (sender, receiver) in enumerate(itertools.pairwise(stops)):
        if sender == receiver:
            continue
        loads.append(variant.reach[cut] * variant.cut_bytes[cut] * problem.hop_s_per_byte[sender, receiver].max())
    for worker, blocks in itertools.groupby(choice.workers):
        end = begin + len(list(blocks))
        busy_s = variant.overhead_s[worker] * variant.reach[begin]
        loads.append(busy_s + variant.reach[begin:end] @ variant.block_s[begin:end, worker])
        begin = end
    return bool(demand.volume * max(loads) <= problem.most_load * (1 + ROUNDING))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    workers=st.integers(2, 4),
    part=st.floats(0.1, 0.9),
    links=st.booleans(),
    goal=st.sampled_from(["throughput", "makespan"]),
)
@example(seed=1144, workers=3, part=0.5, links=False, goal="throughput")
def test_the_cheapest_route_without_heavy_stages(
    seed: int, workers: int, part: float, goal: str, *, links: bool
) -> None:
    problem = build_problem(random_instance(seed, sources=1, workers=workers, blocks=5, goal=goal, links=links))
    routes = [Choice(0, route) for route in itertools.product(range(workers), repeat=5)]
    volume = problem.demands[0].volume
    most_load = part * volume * max(float(problem.cost(0, choice).seconds.max()) for choice in routes)
    problem = dataclasses.replace(problem, most_load=1.001 * most_load)  # no route has just half of another's load
    random = np.random.default_rng(seed)
    of_class, second = random.uniform(0, 1, (1, len(problem.resources))), random.uniform(0, 1, 1)
    prices = Prices(of_class, np.zeros(1), second, np.zeros(1))

    def price(choice: Choice) -> float:
        cost = problem.cost(0, choice)
        return float(volume * of_class[0, cost.resources] @ cost.seconds + second[0] * cost.unloaded_s)

    least = min((price(choice) for choice in routes if light(problem, choice)), default=np.inf)
    found, choice = cheapest_route(problem, 0, prices)
    assert found == pytest.approx(least, rel=1e-9)
    assert np.isinf(found) or light(problem, choice)
