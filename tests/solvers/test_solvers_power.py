"""The goal ``energy``, and limits on the use of workers: every method against an oracle and against the others."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from planner.errors import PlanError, SolveError
from planner.plan.evaluate import evaluate
from planner.plan.verify import verify
from planner.scenario.instance import Instance
from planner.scenario.types import ObjectiveSpec, PowerSpec
from planner.simulation.replications import RunSpec, simulate_case
from planner.simulation.summary import runs_document
from planner.solvers import METHODS, solve
from planner.solvers.core.build import build_problem, read_routes
from planner.solvers.core.problem import Problem
from planner.solvers.core.search_state import Options
from planner.solvers.methods import convex, exhaustive
from planner.solvers.methods.column_generation import method as colgen
from planner.solvers.methods.local_search import method as search
from planner.solvers.methods.mip import method as milp
from tests.instances import make_instance, make_profile, random_instance

EXACT = Options(gap=1e-7)
SHARED = Options(gap=1e-6)
BASELINES = ("local", "two-part", "equal", "ar-mdi")


@st.composite
def tiny_instances(draw: st.DrawFn, *, tight_memory: bool | None = None) -> Instance:
    goal = draw(st.sampled_from(["energy", "delay", "throughput", "makespan"]))
    return random_instance(
        draw(st.integers(0, 10_000)),
        sources=draw(st.integers(1, 2)),
        workers=draw(st.integers(2, 3)),
        blocks=draw(st.integers(1, 3)),
        load=draw(st.sampled_from([0.1, 0.2, 0.4])),
        tight_memory=draw(st.booleans()) if tight_memory is None else tight_memory,
        links=draw(st.booleans()),
        goal=goal,
        capped=goal != "energy" or draw(st.booleans()),
    )


def best(problem: Problem, options: Options, method: object) -> float:
    outcome = method(problem, options)  # type: ignore[operator]
    assert outcome.incumbents, outcome
    value = min(problem.objective(choices) for choices in outcome.incumbents)
    assert outcome.bound <= value * (1 + 1e-9)
    return value


@settings(max_examples=20, deadline=None)
@given(tiny_instances())
def test_single_routes_equal_the_search_over_all_placements(instance: Instance) -> None:
    problem = build_problem(instance)
    oracle = exhaustive.solve(problem, EXACT)
    if oracle.status == "infeasible":
        assert milp.solve(problem, EXACT).status == "infeasible"
        return
    assert best(problem, EXACT, milp.solve) == pytest.approx(oracle.bound, rel=1e-5)
    found = search.solve(problem, dataclasses.replace(EXACT, time_limit_s=0.2, gap=1e-3))
    if found.incumbents:
        assert min(problem.objective(choices) for choices in found.incumbents) >= oracle.bound * (1 - 1e-9)
    assert found.bound <= oracle.bound * (1 + 1e-9)


@settings(max_examples=15, deadline=None)
@given(tiny_instances(tight_memory=False))
def test_shared_routes_agree_and_are_never_worse_than_single_ones(instance: Instance) -> None:
    problem = build_problem(instance)
    single = exhaustive.solve(problem, EXACT)
    assume(single.incumbents)
    flows, columns = best(problem, SHARED, convex.solve), best(problem, SHARED, colgen.solve)
    assert flows == pytest.approx(columns, rel=2e-4)
    assert max(flows, columns) <= single.bound * (1 + 2e-4)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["energy", "delay", "throughput", "makespan"]))
def test_plans_keep_the_caps_and_no_baseline_is_better(seed: int, goal: str) -> None:
    instance = random_instance(seed, load=0.15, goal=goal, capped=True)
    plans = {name: solve(instance, method=name, rank="surrogate").plan for name in ("milp", "colgen", *BASELINES)}
    found = {name: plan for name, plan in plans.items() if plan is not None}
    problem = build_problem(instance)
    for plan in found.values():
        verify(instance, plan)
        routes = read_routes(problem, {name: source.routes for name, source in plan.sources.items()})
        assert problem.objective(routes) == pytest.approx(plan.objective)
    for name in BASELINES:
        if name in found:
            assert found["milp"].objective <= found[name].objective * (1 + 1e-4)
            assert found["colgen"].objective <= found["milp"].objective * (1 + 1e-3)


def of_two(goal: str, **worker: object) -> Instance:
    """Return an instance whose one source needs 0.4 of its home and 0.1 of the other worker."""
    power = {"home": PowerSpec(idle_w=1.0, busy_w=3.0), "other": PowerSpec(idle_w=2.0, busy_w=40.0)}
    return make_instance(
        profiles=[make_profile(block_s=[0.04, 0.04], cut_bytes=[1000, 1000, 1000])],
        workers={"home": {"power": power["home"], **worker}, "other": {"speed": 4.0, "power": power["other"]}},
        objective=ObjectiveSpec(goal=goal),  # type: ignore[arg-type]  # checked by pydantic
    )


def test_energy_is_the_power_of_idle_workers_and_of_their_work() -> None:
    plan = solve(of_two("energy"), method="milp").plan
    assert plan is not None
    assert plan.energy is not None
    assert {stage.worker for route in plan.sources["camera"].routes for stage in route.stages} == {"home"}
    assert plan.objective == pytest.approx(3 + 0.4 * 2)
    assert plan.energy.average_power_w == pytest.approx(plan.objective)
    assert plan.energy.energy_per_sample_j == pytest.approx(plan.objective / 5)
    assert plan.energy.workers["other"].average_power_w == pytest.approx(2.0)
    wrong = plan.energy.model_copy(update={"average_power_w": 1.0})
    with pytest.raises(PlanError, match=r"energy\.average_power_w"):
        verify(of_two("energy"), plan.model_copy(update={"energy": wrong}))


@pytest.mark.parametrize("goal", ["energy", "delay", "throughput"])
def test_the_energy_of_a_plan_agrees_with_its_simulation(goal: str) -> None:
    instance = of_two(goal).with_samples({"camera": 4000})
    plan = solve(instance, method="milp").plan
    assert plan is not None
    assert plan.energy is not None
    run = simulate_case(instance, plan, RunSpec("planned", seed=1))
    assert run.energy is not None
    assert run.energy.average_power_w == pytest.approx(plan.energy.average_power_w, rel=0.05)
    assert run.energy.energy_per_sample_j == pytest.approx(plan.energy.energy_per_sample_j, rel=0.05)
    document = runs_document([run, run])
    assert document["energy"]["average_power_w"] == pytest.approx(run.energy.average_power_w)
    assert document["half_widths"]["energy"]["average_power_w"] == pytest.approx(0.0, abs=1e-9)
    without = instance.with_workers({name: {"power": None} for name in instance.workers})
    assert simulate_case(without.with_objective(goal="delay"), plan, RunSpec("planned", seed=1)).energy is None


@pytest.mark.parametrize("method", sorted(METHODS.keys() - {"dp", *BASELINES}))
def test_a_deadline_costs_energy(method: str) -> None:
    """At home a sample takes 80 ms; a deadline of 60 ms needs the faster worker, which draws more."""
    instance = of_two("energy").with_sources({"camera": {"max_mean_delay_s": 0.06}})
    plan = solve(instance, method=method).plan
    assert plan is not None
    verify(instance, plan)
    assert plan.objective > 3.8 + 0.5
    assert plan.sources["camera"].delay_s <= 0.06
    assert plan.bound > 3.8


@pytest.mark.parametrize("method", sorted(METHODS.keys() - {"dp", *BASELINES}))
def test_a_capped_worker_gets_no_more_than_its_share(method: str) -> None:
    instance = of_two("energy", max_utilisation=0.3)
    plan = solve(instance, method=method).plan
    assert plan is not None
    verify(instance, plan)
    assert plan.workers["home"].utilisation <= 0.3 * (1 + 1e-6)
    assert plan.workers["other"].utilisation > 0.01
    free = of_two("energy")
    with pytest.raises(PlanError, match="busier than the cap"):
        verify(instance, solve(free, method="milp").plan)  # type: ignore[arg-type]  # there is a plan


def test_too_tight_caps_are_named() -> None:
    instance = of_two("delay", max_utilisation=0.1).with_workers({"other": {"max_utilisation": 0.01}})
    for method in ("milp", "colgen", "convex", "search", "exhaustive"):
        solution = solve(instance, method=method)
        assert solution.status == "infeasible", method
        assert any(reason.endswith(("10% is allowed", "1% is allowed")) for reason in solution.reasons), method


def test_throughput_counts_what_may_be_used() -> None:
    """A worker with a share of 25 % is as good as one of a quarter of the speed."""
    instance = of_two("throughput").with_workers({"other": {"max_utilisation": 0.25}})
    plan = solve(instance, method="milp").plan
    assert plan is not None
    assert plan.objective == pytest.approx(evaluate(instance, {"camera": plan.sources["camera"].routes}).objective)
    assert plan.objective == pytest.approx(max(plan.workers["home"].utilisation, 4 * plan.workers["other"].utilisation))
    assert plan.objective == pytest.approx(0.2, rel=0.05)
    assert plan.energy is not None


@pytest.mark.parametrize("seed", range(6))
def test_the_exact_partition_counts_what_may_be_used(seed: int) -> None:
    instance = random_instance(seed, sources=1, workers=3, blocks=4, goal="throughput", capped=True)
    plans = [solve(instance, method=method, max_visits=1).plan for method in ("dp", "exhaustive")]
    assert plans[0] is not None
    assert plans[1] is not None
    assert plans[0].status == "optimal"
    assert plans[0].objective == pytest.approx(plans[1].objective)


def test_pins_that_need_more_visits_than_allowed_are_refused() -> None:
    instance = random_instance(3, blocks=4)
    pins = {"s0": {0: "w0", 1: "w1", 3: "w0"}}
    with pytest.raises(SolveError, match="need 2 visits to w0"):
        solve(instance, max_visits=1, pins=pins)
    allowed = build_problem(instance, max_visits=2, pins=pins)
    assert allowed.pins["s0"] == {0: 0, 1: 1, 3: 0}
    beside = {"s0": {0: "w0", 2: "w0"}}
    assert build_problem(instance, max_visits=1, pins=beside).pins["s0"] == {0: 0, 2: 0}


def test_a_worker_without_power_is_no_free_worker() -> None:
    instance = of_two("energy").with_workers({"other": {"power": None}})
    with pytest.raises(PlanError, match=r"workers\.other\.power"):
        solve(instance)


def test_caps_are_arrays_over_all_resources() -> None:
    problem = build_problem(random_instance(5, capped=True))
    assert problem.caps.shape == problem.usable.shape == (len(problem.resources),)
    assert np.isinf(dataclasses.replace(problem, goal="throughput").caps).all()
