from __future__ import annotations

import dataclasses
import logging
import pickle
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner import cluster as dask_cluster
from planner.errors import SolveError
from planner.plan.types import PlanSpec
from planner.solvers.core import sites as sites_module
from planner.solvers.core.build import build_problem
from planner.solvers.core.problem import Choice, Problem
from planner.solvers.core.resource_prices import Prices, marginal_prices
from planner.solvers.core.scale import Scale
from planner.solvers.core.search_state import Options
from planner.solvers.core.sites import Sites
from planner.solvers.methods.column_generation import method as colgen
from planner.solvers.methods.column_generation import newton_master
from planner.solvers.routes import pool
from planner.solvers.routes.pricing import cheapest_route, cheapest_routes
from planner.solvers.solve import solve
from tests.fleets import make_fleet
from tests.instances import random_instance


def fleet_problem(seed: int = 0, *, sources: int = 24, blocks: int = 6, **options: Any) -> Problem:
    """Six sites of eight workers."""
    return build_problem(make_fleet(sites=6, workers_per_site=8, sources=sources, blocks=blocks, seed=seed, **options))


def random_prices(problem: Problem, seed: int) -> Prices:
    random = np.random.default_rng(seed)
    sources = len(problem.demands)
    sigma = np.sort(random.uniform(0, 0.9, (len(problem.classes.weight), len(problem.resources))), axis=0)
    late = np.where(random.uniform(size=sources) < 0.2, random.uniform(0, 50, sources), 0.0)
    return dataclasses.replace(Prices.of_delay(problem, marginal_prices(problem, sigma)), second=late)


@settings(max_examples=8)
@given(st.integers(0, 1000), st.booleans(), st.booleans())
def test_routes_priced_by_site_are_the_cheapest_of_all(seed: int, wired: bool, pinned: bool) -> None:  # noqa: FBT001 - drawn
    problem = fleet_problem(seed, wired=wired)
    assert problem.sites is not None
    if pinned:
        random = np.random.default_rng(seed)
        holds = tuple(random.uniform(size=weights.shape) < 0.7 for weights in problem.weight_bytes)
        parts = tuple(random.uniform(size=weights.shape) for weights in problem.weight_bytes)
        problem = dataclasses.replace(problem, resident=holds, pins={"s0": {2: seed % 48}}, room_parts=parts)
    memory = np.random.default_rng(seed).uniform(0, 50, len(problem.workers))
    prices = dataclasses.replace(random_prices(problem, seed), memory=memory)
    for source, (price, choice) in enumerate(cheapest_routes(problem, prices)):
        expected, route = cheapest_route(problem, source, prices)
        assert price == pytest.approx(expected, rel=1e-9)
        assert np.isinf(price) or (choice.variant, choice.workers) == (route.variant, route.workers)


def test_sites_are_found_whatever_their_sizes_and_only_where_paths_lead_through_gateways() -> None:
    problem = fleet_problem(wired=True)
    assert problem.sites is not None
    names = np.array([name.split("-")[0] for name in problem.workers])
    assert all(len(set(names[problem.sites.of_worker == site])) == 1 for site in range(6))
    # A worker with a way of its own out of its site spoils the rule.
    latency_s = problem.latency_s.copy()
    latency_s[1, 47] *= 0.5
    assert Sites.of(problem.hop_resource, problem.hop_s_per_byte, latency_s) is None
    meshed = build_problem(random_instance(0, workers=50, sources=1))
    assert meshed.sites is None


@pytest.mark.parametrize("goal", ["delay", "throughput", "makespan"])
def test_a_fleet_is_solved_as_if_it_had_no_sites(goal: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(newton_master, "MAX_DENSE_COLUMNS", 60)
    problem = fleet_problem(sources=16, blocks=4, goal=goal, load=0.7)
    by_site = colgen.solve(problem, Options(gap=0.05))
    monkeypatch.setattr(sites_module, "MIN_WORKERS", 10**9)
    plain = dataclasses.replace(problem)
    assert plain.sites is None
    one_by_one = colgen.solve(plain, Options(gap=0.05))
    values = [min(map(problem.objective, outcome.incumbents)) for outcome in (by_site, one_by_one)]
    assert by_site.status == one_by_one.status == "optimal"
    assert max(by_site.bound, one_by_one.bound) <= min(values) * (1 + 1e-9)


@pytest.mark.parametrize("load", [0.5, 0.8, 0.9, 0.93])
def test_a_plan_is_found_wherever_the_bottleneck_keeps_to_its_cap(load: float) -> None:
    problem = fleet_problem(int(100 * load), load=load)
    peak = dataclasses.replace(problem, goal="throughput")
    least = min(map(peak.objective, colgen.solve(peak, Options(gap=0.005)).incumbents))
    outcome = colgen.solve(problem, Options(gap=0.02))
    assert (least < problem.cap) == bool(outcome.incumbents)
    assert outcome.status == ("optimal" if least < problem.cap else "infeasible")


@pytest.mark.parametrize("dense", [60, 10**6])
def test_new_routes_begin_within_what_is_free(dense: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """All sources turn to the same workers, the idle ones, which a share of each would overload."""
    monkeypatch.setattr(newton_master, "MAX_DENSE_COLUMNS", dense)
    fleet = make_fleet(sites=6, workers_per_site=8, sources=24, blocks=6, load=0.9)
    problem = build_problem(fleet)
    first = min(colgen.solve(problem, Options(gap=0.3)).incumbents, key=problem.objective)
    master = newton_master.NewtonMaster(problem, Scale())
    master.add((source, choice) for source, routes in enumerate(first) for choice in routes)
    master.solve(1.0)
    slowest = int(problem.speed.argmin())
    master.add((source, Choice(demand.variants[0], (slowest,) * 6)) for source, demand in enumerate(problem.demands))
    assert (master.load.T @ master.share <= problem.caps[master.used] * 1.01).all()
    assert (master.share > 0).all()
    before = min(map(problem.objective, [first]))
    master.solve(1.0)
    assert problem.objective(master.choices(1e-5)) <= before * (1 + 1e-3)


def test_deadlines_of_a_fleet_are_met(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(newton_master, "MAX_DENSE_COLUMNS", 60)
    problem = fleet_problem(load=0.3)
    free = colgen.solve(problem, Options(gap=0.05))
    routes = min(free.incumbents, key=problem.objective)
    unloaded_s = [
        sum(choice.share * problem.cost(source, choice).unloaded_s for choice in chosen)
        for source, chosen in enumerate(routes)
    ]
    limits = np.where(np.array(unloaded_s) >= np.sort(unloaded_s)[-4], 0.95 * np.array(unloaded_s), np.inf).tolist()
    tight = dataclasses.replace(
        problem,
        demands=tuple(
            dataclasses.replace(demand, deadline_s=limit) for demand, limit in zip(problem.demands, limits, strict=True)
        ),
    )
    assert not tight.feasible(routes)
    outcome = colgen.solve(tight, Options(gap=0.05))
    assert outcome.status == "optimal"
    assert all(tight.feasible(choices) for choices in outcome.incumbents)


@cache
def planned(*, threads: int = 1, dask: str | None = None) -> PlanSpec:
    """Return the plan of a fleet, which the same steps lead to wherever routes are priced."""
    fleet = make_fleet(sites=6, workers_per_site=8, sources=16, blocks=5)
    plan = solve(fleet, method="colgen", gap=0.03, threads=threads, dask=dask).plan
    assert plan is not None
    return plan


def test_threads_change_nothing() -> None:
    assert planned(threads=2).sources == planned().sources


def test_a_problem_is_sent_without_what_it_has_cached() -> None:
    problem = fleet_problem()
    assert problem.sites is not None
    problem.runs(0, problem.demands[0].variants[0])
    copy = pickle.loads(pickle.dumps(problem))  # noqa: S301 - our own
    prices = random_prices(problem, 1)
    assert cheapest_routes(copy, prices) == cheapest_routes(problem, prices)


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a scheduler with two worker processes."""
    distributed = pytest.importorskip("distributed", reason="Dask is not installed")
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as running:
        yield running.scheduler_address


def test_a_dask_cluster_finds_the_same_plan(cluster: str) -> None:
    assert planned(dask=cluster).sources == planned().sources


def test_the_cluster_receives_the_problem_once(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from distributed import Client

    sent: list[int] = []

    def pickled(problem: Problem, protocol: Any) -> Any:
        sent.append(protocol)
        return object.__reduce_ex__(problem, protocol)

    problem = fleet_problem()
    monkeypatch.setattr(Problem, "__reduce_ex__", pickled)
    prices = random_prices(problem, 2)
    with Client(cluster, set_as_default=False) as client:
        priced = pool.PricingPool(client=client)
        assert priced.parts == 2
        for _ in range(2):
            assert priced.cheapest_routes(problem, prices, {}) == cheapest_routes(problem, prices)
    assert len(sent) == 1


def test_what_dask_cannot_do_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = make_fleet(sites=2, workers_per_site=2, sources=2, blocks=3)
    with pytest.raises(SolveError, match="expected colgen"):
        solve(fleet, method="milp", dask="tcp://127.0.0.1:8786")
    distributed = pytest.importorskip("distributed", reason="Dask is not installed")
    monkeypatch.setattr(dask_cluster, "CONNECT_LIMIT_S", 0.5)
    for address in ("tcp://127.0.0.1:1", "nowhere", "ftp://127.0.0.1:8786", ""):
        with pytest.raises(SolveError, match="no Dask scheduler answers"):
            solve(fleet, method="colgen", dask=address)
    with (
        distributed.LocalCluster(n_workers=0, dashboard_address=":0") as idle,
        pytest.raises(SolveError, match="has no workers"),
    ):
        solve(fleet, method="colgen", dask=idle.scheduler_address)
