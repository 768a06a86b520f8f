from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.plan.surrogate import congestion
from planner.solvers.core.build import build_problem
from planner.solvers.core.problem import Array, Problem
from planner.solvers.core.search_state import Options, Search
from planner.solvers.methods import exhaustive
from planner.solvers.methods.local_search.lagrangian import LagrangianBound, Multipliers
from planner.solvers.methods.local_search.load_prices import GRID_STEPS, LoadPrices
from planner.solvers.methods.local_search.subgradient import PLAIN_STEPS, Subgradient
from planner.solvers.routes.stage_dp import StagedRoutes
from tests.instances import random_instance
from tests.solvers.test_solvers_milp import with_exits


def staged(problem: Problem) -> list[list[StagedRoutes]]:
    return [
        [StagedRoutes.of(problem, source, variant) for variant in demand.variants]
        for source, demand in enumerate(problem.demands)
    ]


def random_bound(problem: Problem, seed: int) -> LagrangianBound:
    """Return a bound with tables for the workers and some networks, at random prices."""
    random = np.random.default_rng(seed)
    lagrangian = LagrangianBound(problem, staged(problem), None)
    lagrangian.tabulate(np.arange(random.integers(len(problem.workers), len(problem.resources) + 1)))
    lagrangian.move(some_prices(lagrangian, random))
    return lagrangian


def some_prices(lagrangian: LagrangianBound, random: np.random.Generator) -> Multipliers:
    """Return random multipliers: increasing, decreasing and negative ones."""
    beta, mu, table, memory = lagrangian.prices
    size = lagrangian.memory.model_bytes.sum(axis=0)[: memory.shape[1]]
    steps = random.normal(0.3, random.uniform(0.0, 2.0), size=table.shape) * random.uniform(0.0, 3.0)
    return Multipliers(
        random.uniform(0.0, 1.2, beta.shape) * lagrangian.weight,
        random.uniform(0.0, 5.0, mu.shape) * lagrangian.weight,
        table * random.uniform(0.0, 2.0) + np.cumsum(steps, axis=2),
        random.uniform(0.0, 3.0, memory.shape) / size,
    )


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    workers=st.integers(2, 3),
    blocks=st.integers(1, 4),
    load=st.sampled_from([0.1, 0.2, 0.4]),
    links=st.booleans(),
    tight=st.booleans(),
)
def test_any_prices_prove_a_bound(
    seed: int, workers: int, blocks: int, load: float, *, links: bool, tight: bool
) -> None:
    instance = random_instance(seed, workers=workers, blocks=blocks, load=load, links=links, tight_memory=tight)
    problem = build_problem(instance)
    oracle = exhaustive.solve(problem, Options())
    value, _ = random_bound(problem, seed).value()
    if oracle.status == "optimal":
        assert value <= oracle.bound * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_any_prices_prove_a_bound_with_exits(seed: int) -> None:
    problem = build_problem(with_exits(seed, 0.0))
    value, _ = random_bound(problem, seed).value()
    assert value <= exhaustive.solve(problem, Options()).bound * (1 + 1e-9)


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.integers(0, 10_000), st.booleans())
def test_slopes_are_supergradients(seed: int, other: int, tight: bool) -> None:  # noqa: FBT001
    """The bound is a concave function of the prices."""
    lagrangian = random_bound(build_problem(random_instance(seed, load=0.2, tight_memory=tight)), seed)
    here = lagrangian.prices
    value, slope = lagrangian.value()
    lagrangian.move(some_prices(lagrangian, np.random.default_rng(other)))
    there, _ = lagrangian.value()
    rise = sum(
        float((along * (new - old)).sum()) for along, new, old in zip(slope, lagrangian.prices, here, strict=True)
    )
    assert there <= value + rise + 1e-9 * max(abs(value), abs(there), 1.0)


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.data())
def test_the_minimum_over_visits_is_exact(seed: int, data: st.DataObject) -> None:
    """Not even several visits of one source, or visits with loads between the points of the grid."""
    problem = build_problem(random_instance(seed, sources=3, workers=2, load=0.2))
    tables = LoadPrices(problem, np.array([0]))
    random = np.random.default_rng(seed)
    price = np.cumsum(random.normal(0.2, 1.0, size=tables.shape), axis=2)
    price[:, :, 0] = np.minimum(price[:, :, 0], 0.0)
    slope = np.zeros(tables.shape)
    least = tables.least(price, slope)
    assert least == pytest.approx(lost(problem, -(slope[:, 0] @ tables.load), tables) + float((slope * price).sum()))

    visits = data.draw(st.lists(st.tuples(st.integers(0, 2), st.floats(1e-3, 0.5)), max_size=4))
    load, paid = np.zeros(3), 0.0
    for source, more in visits:
        load[source] += more
        paid += float(tables.of_visit(price[source], np.array([more]), np.array([0]))[0])
    if load.sum() <= problem.cap:
        sigma = problem.classes.nested(load[:, None])
        held = float(problem.classes.weight @ congestion(sigma, problem.kappa)[:, 0])
        assert least <= held - paid + 1e-9


def lost(problem: Problem, load: Array, tables: LoadPrices) -> float:
    """Return Σ_k w_k Ĝ(σ_k) of the sources' loads [S] at one resource, on the grid."""
    cells = np.rint(problem.classes.nested(load[:, None])[:, 0] / problem.cap * GRID_STEPS).astype(int)
    return float(problem.classes.weight @ tables.congestion[cells])


def test_the_piecewise_congestion_is_nowhere_above_it() -> None:
    tables = LoadPrices(build_problem(random_instance(0)), np.array([0]))
    sigma = np.linspace(0, tables.load[-1], 5000)
    held = np.interp(sigma, tables.load, tables.congestion)
    exact = congestion(sigma, 1.0)
    assert (held <= exact + 1e-12).all()
    assert (exact - held <= 0.03 * exact + 1e-3).all()


def test_tables_improve_the_bound() -> None:
    problem = build_problem(random_instance(0, sources=4, workers=4, blocks=6, load=0.45))
    ascent = Subgradient(Search(problem, Options()), staged(problem))
    while ascent.steps < PLAIN_STEPS:
        ascent.step()
    plain = ascent.bound
    for _ in range(PLAIN_STEPS // 2):
        ascent.step()
    assert ascent.bound > plain * 1.01
