from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.solvers.core.build import build_problem
from planner.solvers.core.resource_prices import Prices
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
        graph = LayeredGraph.of(problem, source, variant, *prices.of_source(problem, source, variant))
        price, path = graph.cheapest()
        all_looked_at, _ = graph.counted(Visits((), 0, workers))
        near = tuple(random.integers(0, workers, len(path)).tolist())
        assert price == pytest.approx(all_looked_at, rel=1e-12)
        assert graph.cheapest(near)[0] == graph.cheapest(path)[0] == price
        assert graph.price(path) == pytest.approx(price, rel=1e-12)
