from __future__ import annotations

import dataclasses
from typing import Any

import cvxpy
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from planner.errors import SolveError
from planner.plan.surrogate import congestion
from planner.plan.verify import verify
from planner.scenario.instance import Instance
from planner.scenario.types import NetworkSpec
from planner.solvers import solve
from planner.solvers.core.build import build_problem
from planner.solvers.core.problem import Choice, Problem
from planner.solvers.core.resource_prices import Prices, marginal_prices
from planner.solvers.core.search_state import Options, Outcome
from planner.solvers.methods import convex, exhaustive
from planner.solvers.methods.column_generation import method as colgen
from planner.solvers.methods.in_turn import solve_in_turn
from planner.solvers.methods.local_search import method as local_search
from planner.solvers.routes import pricing
from planner.solvers.routes.pricing import cheapest_route, lagrangian_bound
from tests.examples import examples
from tests.instances import make_instance, make_profile, random_instance
from tests.solvers.test_solvers_dominance import within
from tests.solvers.test_solvers_milp import tiny_instances, with_exits

OPTIONS = Options(gap=1e-4)
cp: Any = cvxpy


def best(problem: Problem, outcome: Outcome) -> float:
    return min(problem.objective(choices) for choices in outcome.incumbents)


@examples(10, nightly=100)
@given(
    seed=st.integers(0, 10_000),
    links=st.booleans(),
    load=st.sampled_from([0.2, 0.4, 0.6, 0.8]),
    goal=st.sampled_from(["delay", "delay", "throughput", "makespan"]),
)
def test_both_methods_find_the_same_optimum(seed: int, *, links: bool, load: float, goal: str) -> None:
    problem = build_problem(random_instance(seed, sources=3, blocks=4, links=links, load=load, goal=goal))
    one, other = colgen.solve(problem, OPTIONS), convex.solve(problem, OPTIONS)
    assert one.status == other.status
    if one.status == "optimal":
        assert best(problem, one) == pytest.approx(best(problem, other), rel=1e-3)
        assert one.bound <= best(problem, other) * (1 + 1e-9)
        assert other.bound <= best(problem, one) * (1 + 1e-9)
    else:
        assert one.reasons
        assert other.reasons


@pytest.mark.parametrize("goal", ["throughput", "makespan"])
def test_methods_for_single_routes_continue_from_shared_ones(goal: str) -> None:
    problem = build_problem(random_instance(3, sources=3, blocks=4, links=True, load=0.6, goal=goal))
    shared = convex.solve(problem, OPTIONS).incumbents
    assert any(len(of_source) > 1 for choices in shared for of_source in choices)
    unproven = Outcome("feasible", incumbents=shared)
    options = dataclasses.replace(within(problem, 200), start=shared[:1], known=())
    found = solve_in_turn(problem, options, [lambda _problem, _options: unproven], [local_search.solve])
    assert best(problem, found) <= best(problem, unproven)


@examples(8, nightly=100)
@given(tiny_instances())
def test_sharing_is_never_worse_than_one_route_per_source(instance: Instance) -> None:
    problem = build_problem(instance)
    single = exhaustive.solve(problem, OPTIONS)
    shared = convex.solve(problem, OPTIONS)
    if single.status == "optimal":
        assert shared.status != "infeasible"
        assert shared.bound <= single.bound * (1 + 1e-6)


@pytest.mark.parametrize("min_accuracy", [0.0, 0.75, 0.85])
@pytest.mark.parametrize("goal", ["delay", "throughput", "makespan"])
def test_operating_points_may_be_mixed(goal: str, min_accuracy: float) -> None:
    problem = dataclasses.replace(build_problem(with_exits(1, min_accuracy)), goal=goal)
    one, other = colgen.solve(problem, OPTIONS), convex.solve(problem, OPTIONS)
    assert one.status == "optimal"
    assert best(problem, one) == pytest.approx(other.bound, rel=1e-3)


@pytest.mark.parametrize("goal", ["throughput", "makespan"])
def test_a_deadline_binds_whatever_the_goal(goal: str) -> None:
    """The fast worker is best for the bottleneck, but its latency is too long for some of the samples."""
    sources = {"camera": {"rate_per_s": 20.0, "max_mean_delay_s": 0.03, "samples": 20}}
    network = NetworkSpec(kind="shared", members=("slow", "fast"), bandwidth_bytes_per_s=1e8, latency_s=0.02)
    instance = make_instance(sources=sources, workers={"slow": 1.0, "fast": 4.0}, networks={"far": network})
    problem = dataclasses.replace(build_problem(instance), goal=goal)
    free = dataclasses.replace(problem, demands=(dataclasses.replace(problem.demands[0], deadline_s=np.inf),))
    one, other = colgen.solve(problem, OPTIONS), convex.solve(problem, OPTIONS)
    assert one.status == other.status == "optimal"
    assert best(problem, one) == pytest.approx(best(problem, other), rel=1e-3)
    assert one.bound > colgen.solve(free, OPTIONS).bound * 1.01
    hurried = dataclasses.replace(problem, demands=(dataclasses.replace(problem.demands[0], deadline_s=0.01),))
    assert colgen.solve(hurried, OPTIONS).reasons == (
        "no worker can meet max_mean_delay 10 ms of camera: the best is 20 ms",
    )


@examples(8, nightly=80)
@example(seed=9078, blocks=3, max_visits=1, goal="delay")
@given(
    seed=st.integers(0, 10_000),
    blocks=st.integers(3, 5),
    max_visits=st.sampled_from([1, 1, 2]),
    goal=st.sampled_from(["delay", "throughput", "makespan"]),
)
def test_no_shared_route_visits_too_often(seed: int, blocks: int, max_visits: int, goal: str) -> None:
    """The reference is the best shares of all routes within the limit."""
    instance = random_instance(seed, blocks=blocks, load=0.3, goal=goal)
    problem = build_problem(homing(instance), max_visits=max_visits)
    outcome = colgen.solve(problem, OPTIONS)
    oracle = best_of_all(problem)
    assert outcome.status == ("optimal" if np.isfinite(oracle) else "infeasible")
    if outcome.status == "infeasible":  # a few of the drawn instances ask for more than their workers can do
        return
    assert outcome.bound <= oracle * (1 + 1e-6)
    assert best(problem, outcome) == pytest.approx(oracle, rel=1e-3)


def homing(instance: Instance) -> Instance:
    """Return the instance with inputs and results so large that routes start and end at the source's worker."""
    profiles = {
        name: {
            device: profile.model_copy(update={"cut_bytes": (10**6, *[2000] * (len(profile.blocks) - 1), 10**6)})
            for device, profile in by_class.items()
        }
        for name, by_class in instance.profiles.items()
    }
    return Instance(scenario=instance.scenario, profiles=profiles, paths=instance.paths)


def best_of_all(problem: Problem) -> float:
    """Return the optimum over shares of all allowed routes, by a convex program with a variable per route."""
    columns = [
        (source, choice)
        for source in range(len(problem.demands))
        for choice in exhaustive._routes(problem, source)
        if problem.allowed(source, choice)
    ]
    share = cp.Variable(len(columns), nonneg=True)
    whole = np.array([[source == column for column, _ in columns] for source in range(len(problem.demands))], float)
    loads = np.zeros((len(problem.demands), len(problem.resources), len(columns)))
    for column, (source, choice) in enumerate(columns):
        cost = problem.cost(source, choice)
        loads[source, cost.resources, column] = problem.demands[source].volume * cost.seconds
    busy = loads.sum(axis=0) @ share
    goal = cp.max(busy)
    if problem.goal == "makespan":
        delay_s = np.array([problem.cost(*column).unloaded_s for column in columns])
        goal += cp.max((whole * delay_s) @ share)
    if problem.goal == "delay":
        fixed = np.array([problem.fixed_cost(*column, problem.cost(*column).latency_s) for column in columns])
        goal = fixed @ share
        for level, weight in enumerate(problem.classes.weight):
            sigma = loads[problem.classes.of_source <= level].sum(axis=0) @ share
            goal += weight * cp.sum(cp.inv_pos(1 - sigma) - 1)
    program = cp.Problem(
        cp.Minimize(goal),
        [whole @ share == 1, busy <= problem.cap] if np.isfinite(problem.cap) else [whole @ share == 1],
    )
    return float(program.solve(solver=cp.CLARABEL))


def test_too_many_visit_states_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pricing, "MAX_VISIT_STATES", 1)
    profile = make_profile(block_s=[0.03] * 3, cut_bytes=[10**6, 10, 10, 10**6])
    instance = make_instance(profiles=[profile], workers={"home": 1.0, "fast": 20.0})
    with pytest.raises(SolveError, match="visits no worker too often"):
        solve(instance, method="colgen", max_visits=1)


@pytest.mark.parametrize("method", ["colgen", "convex"])
def test_limits_to_relax_are_named(method: str) -> None:
    solution = solve(with_exits(1, 0.95), method=method)
    assert solution.status == "infeasible"
    assert solution.reasons == ("no model of one reaches accuracy 95.0%: the best is 90.0%",)
    crowd = solve(make_instance(sources={"camera": {"rate_per_s": 400.0}}), method=method)
    assert crowd.status == "infeasible"
    assert "busy" in crowd.reasons[0]
    late = solve(make_instance(sources={"camera": {"rate_per_s": 1.0, "max_mean_delay_s": 0.001}}), method=method)
    assert late.status == "infeasible"
    assert "max_mean_delay 1 ms of camera" in late.reasons[0]


@examples(5, nightly=40)
@given(tiny_instances())
def test_every_shared_plan_passes_verification(instance: Instance) -> None:
    solution = solve(instance, routes="shared", time_limit_s=3.0)
    if solution.plan is not None:
        verify(instance, solution.plan)
    else:
        assert solution.status != "optimal"


def test_a_full_worker_keeps_the_blocks_with_most_work() -> None:
    instance = random_instance(1, blocks=4, tight_memory=True)
    solution = solve(instance, method="colgen", time_limit_s=3.0)
    assert solution.plan is not None
    verify(instance, solution.plan)
    assert solution.plan.bound <= solution.plan.objective


@given(st.integers(0, 1000), st.data())
def test_the_cheapest_route_is_the_cheapest_of_all(seed: int, data: st.DataObject) -> None:
    problem = build_problem(random_instance(seed, sources=1, workers=3, blocks=3))
    random = np.random.default_rng(seed)
    of_class = random.uniform(0, 10, size=(1, len(problem.resources)))
    prices = Prices(of_class, random.uniform(0, 5, 1), random.uniform(0, 5, 1), random.uniform(0, 5, 1))
    price, choice = cheapest_route(problem, 0, prices)

    def pay(other: Choice) -> float:
        cost, volume = problem.cost(0, other), problem.demands[0].volume
        seconds = float((volume * of_class[0, cost.resources] + prices.second[0]) @ cost.seconds)
        latency = float(volume * prices.latency[0] + prices.second[0]) * cost.latency_s
        return seconds + latency - float(prices.accuracy[0])

    assert price == pytest.approx(pay(choice))
    assert price <= pay(Choice(0, data.draw(st.tuples(*[st.integers(0, 2)] * 3)))) + 1e-9


@given(st.integers(0, 1000), st.floats(0.0, 0.9))
def test_any_prices_prove_a_bound(seed: int, level: float) -> None:
    problem = build_problem(random_instance(seed, blocks=2, load=0.3))
    oracle = exhaustive.solve(problem, OPTIONS)
    sigma = np.random.default_rng(seed).uniform(0, level, size=(len(problem.classes.weight), len(problem.resources)))
    prices = Prices.of_delay(problem, marginal_prices(problem, np.sort(sigma, axis=0)))
    cheapest = np.array([cheapest_route(problem, source, prices)[0] for source in range(2)])
    if oracle.status == "optimal":
        assert lagrangian_bound(problem, prices, cheapest) <= oracle.bound * (1 + 1e-9)


def test_prices_at_the_optimum_are_its_derivatives() -> None:
    """The numerical derivative by load of a class on a worker equals its price."""
    problem = build_problem(random_instance(5, sources=2, blocks=3, load=0.3))
    sigma = np.full((len(problem.classes.weight), len(problem.resources)), 0.3)
    prices = marginal_prices(problem, sigma)

    def total(extra: float, level: int) -> float:
        more = sigma.copy()
        more[level:, 0] += extra
        return float(problem.classes.weight @ congestion(more, problem.kappa).sum(axis=1))

    for level in range(len(problem.classes.weight)):
        assert prices[level, 0] == pytest.approx((total(1e-6, level) - total(-1e-6, level)) / 2e-6, rel=1e-5)


def test_unsupported_options_are_refused() -> None:
    with pytest.raises(SolveError, match="does not find shared routes"):
        solve(make_instance(), method="milp", routes="shared")
    with pytest.raises(SolveError, match="unknown kind of routes"):
        solve(make_instance(), routes="many")  # type: ignore[arg-type]  # what is tested
    with pytest.raises(SolveError, match="max_visits"):
        solve(make_instance(), method="convex", max_visits=1)


@pytest.mark.parametrize("seed", range(4))
def test_prices_are_those_of_the_last_master_that_was_solved(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last round may add routes on links that no route used before."""
    monkeypatch.setattr(colgen, "MAX_IDLE_ROUNDS", 1)
    instance = random_instance(seed, sources=2, workers=6, blocks=8, goal="throughput", load=0.3)
    outcome = colgen.solve(build_problem(instance), Options(gap=0.0))
    assert outcome.prices is not None
    assert outcome.bound <= min(map(build_problem(instance).objective, outcome.incumbents)) * (1 + 1e-9)
