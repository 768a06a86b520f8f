from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from planner.plan.types import PlanSpec
from planner.scenario.instance import Instance
from planner.scenario.types import NetworkSpec, ObjectiveSpec
from planner.solvers import solve
from planner.solvers.core.build import build_problem
from planner.solvers.core.demand import Demand, Variant
from planner.solvers.core.problem import Problem
from planner.solvers.core.search_state import Options
from planner.solvers.methods import exhaustive
from planner.solvers.methods.convex import solve as convex
from planner.solvers.sensitivity import elasticity, enlarge, memory_steps, sensitivity, speed_up, widen
from tests.instances import make_instance, make_profile, random_instance
from tests.solvers.test_solvers_milp import with_exits

OPTIONS = Options(gap=1e-7)
STEP = 1.001


def optimum(problem: Problem) -> float:
    """Return the lower bound, which equals the optimum to many digits at Clarabel's tolerances."""
    return convex(problem, OPTIONS).bound


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("goal", ["delay", "throughput", "makespan"])
def test_duals_are_the_derivatives_of_the_optimum(goal: str, *, links: bool) -> None:
    problem = build_problem(random_instance(3, sources=2, workers=3, blocks=4, load=0.5, links=links, goal=goal))
    check_derivatives(problem)


def test_duals_hold_where_a_deadline_binds() -> None:
    two: Mapping[str, Mapping[str, Any]] = {
        "one": {"rate_per_s": 20.0, "priority": 1.0, "max_mean_delay_s": 0.018},
        "two": {"rate_per_s": 20.0, "priority": 8.0},
    }
    problem = build_problem(make_instance(sources=two))
    outcome = convex(problem, OPTIONS)
    assert outcome.prices is not None
    assert outcome.prices.second[0] > 0.01
    check_derivatives(problem)


@pytest.mark.parametrize("goal", ["delay", "throughput"])
def test_prices_of_each_class_are_derivatives_by_its_load(goal: str) -> None:
    """The load is that of an additional source that uses one worker only."""
    problem = build_problem(random_instance(11, sources=3, workers=3, blocks=4, load=0.5, goal=goal))
    assert len(problem.classes.weight) > 1
    prices = convex(problem, OPTIONS).prices
    assert prices is not None
    for worker in range(3):
        for demand in problem.demands:
            more, less = (optimum(burdened(problem, worker, demand.priority, load)) for load in (2e-4, 1e-4))
            level = int(problem.classes.of_source[problem.demands.index(demand)])
            assert (more - less) / 1e-4 == pytest.approx(prices.of_class[level, worker], rel=0.02, abs=1e-2)


def burdened(problem: Problem, worker: int, priority: float, load: float) -> Problem:
    """Return the problem with an additional source of one block, pinned to a worker, without bytes to send."""
    count = len(problem.workers)
    block = Variant(
        model=len(problem.models),
        operating_point=0,
        accuracy=1.0,
        reach=np.ones(2),
        block_s=np.full((1, count), load),
        overhead_s=np.zeros(count),
        cut_bytes=np.zeros(2),
        exit_bytes=np.zeros(1),
        exit_share=np.zeros(1),
    )
    demand = Demand("more", worker, 1.0, priority, np.inf, 0.0, (len(problem.variants),))
    return dataclasses.replace(
        problem,
        models=(*problem.models, "one block"),
        demands=(*problem.demands, demand),
        variants=(*problem.variants, block),
        weight_bytes=(*problem.weight_bytes, np.zeros((1, count))),
        activation_bytes=(*problem.activation_bytes, np.zeros((1, count))),
        parameters=(*problem.parameters, np.zeros(1)),
        pins={"more": {0: worker}},
    )


@pytest.mark.parametrize("goal", ["delay", "throughput", "makespan"])
def test_the_price_of_a_deadline_is_the_derivative_by_it(goal: str) -> None:
    """The path to the fast worker has a long latency, so the deadline permits only a part of the samples there."""
    sources = {"camera": {"rate_per_s": 20.0, "max_mean_delay_s": 0.03, "samples": 20}}
    far = NetworkSpec(kind="shared", members=("slow", "fast"), bandwidth_bytes_per_s=1e8, latency_s=0.02)
    instance = make_instance(
        sources=sources, networks={"far": far}, objective=ObjectiveSpec.model_validate({"goal": goal})
    )
    problem = build_problem(instance)
    prices = convex(problem, OPTIONS).prices
    assert prices is not None

    def with_deadline(deadline_s: float) -> float:
        demand = dataclasses.replace(problem.demands[0], deadline_s=deadline_s)
        return optimum(dataclasses.replace(problem, demands=(demand,)))

    slope = (with_deadline(0.03 - 1e-5) - with_deadline(0.03 + 1e-5)) / 2e-5
    # The delay's deadline is slack: sharing leaves the far worker to few samples.
    assert (slope > 1.0) == (goal != "delay")
    assert prices.second[0] - np.broadcast_to(prices.late, 1)[0] == pytest.approx(slope, rel=0.01, abs=1e-3)


def test_the_price_of_accuracy_is_the_derivative_by_it() -> None:
    problem = build_problem(with_exits(1, 0.85))
    prices = convex(problem, OPTIONS).prices
    assert prices is not None

    def with_accuracy(least: float) -> float:
        demand = dataclasses.replace(problem.demands[0], min_accuracy=least)
        return optimum(dataclasses.replace(problem, demands=(demand, problem.demands[1])))

    slope = (with_accuracy(0.85 + 1e-4) - with_accuracy(0.85 - 1e-4)) / 2e-4
    assert slope > 0.1
    assert prices.accuracy[0] == pytest.approx(slope, rel=0.01)


def check_derivatives(problem: Problem) -> None:
    outcome = convex(problem, OPTIONS)
    assert outcome.prices is not None
    best = min(outcome.incumbents, key=problem.objective)
    worth = elasticity(problem, best, outcome.prices)
    scale = outcome.bound
    workers = len(problem.workers)
    for resource in range(len(problem.resources)):
        by_hand = [
            optimum(speed_up(problem, resource, factor))
            if resource < workers
            else optimum(widen(problem, np.array([resource]), factor))
            for factor in (1 / STEP, STEP)
        ]
        slope = (by_hand[0] - by_hand[1]) / (2 * np.log(STEP))
        assert worth[resource] == pytest.approx(slope, rel=0.02, abs=2e-3 * scale)


def test_both_convex_methods_agree_on_prices() -> None:
    instance = random_instance(4, sources=3, workers=3, blocks=4, load=0.5)
    one, other = priced(instance, "colgen"), priced(instance, "convex")
    assert one.prices is not None
    assert other.prices is not None
    assert one.prices.by == other.prices.by == "duals"
    for name, worker in one.prices.workers.items():
        assert worker.faster == pytest.approx(other.prices.workers[name].faster, rel=0.02, abs=1e-3 * one.objective)
    for name, link in one.prices.networks.items():
        assert link.mbit_per_s == pytest.approx(
            other.prices.networks[name].mbit_per_s, rel=0.05, abs=1e-4 * one.objective
        )


def test_single_routes_are_solved_again() -> None:
    instance = random_instance(2, sources=2, workers=3, blocks=3, load=0.3)
    plan = priced(instance, "exhaustive")
    problem = build_problem(instance)
    assert plan.prices is not None
    assert plan.prices.by == "re-solve"
    for index, name in enumerate(instance.workers):
        worth = plan.objective - exhaustive.solve(speed_up(problem, index), OPTIONS).bound
        assert plan.prices.workers[name].faster == pytest.approx(worth, abs=1e-9)
        assert plan.prices.workers[name].more_memory is None
    assert any(worker.faster > 0 for worker in plan.prices.workers.values())


def test_memory_is_worth_the_gain_of_another_block() -> None:
    """Both blocks would run best on the fast worker, which has memory for one."""
    profile = make_profile(block_s=[0.02, 0.02], cut_bytes=[1000, 1000, 1000], weight_bytes=30 * 2**20)
    workers = {
        "slow": {"speed": 1.0, "memory_bytes": 600e6},
        "fast": {"speed": 4.0, "memory_bytes": 200 * 2**20 + 31 * 2**20},
    }
    instance = make_instance(profiles=[profile], workers=workers)
    for method in ("milp", "exhaustive"):
        plan = priced(instance, method)
        assert plan.prices is not None
        fast = plan.prices.workers["fast"]
        assert fast.more_memory_bytes == 30 * 2**20
        assert fast.more_memory is not None
        assert fast.more_memory > 0.1 * plan.objective
        assert plan.prices.workers["slow"].more_memory_bytes is None


def test_a_step_of_memory_admits_exactly_one_more_block() -> None:
    instance = random_instance(1, blocks=4, tight_memory=True, load=0.2)
    problem = build_problem(instance)
    best = min(exhaustive.solve(problem, OPTIONS).incumbents, key=problem.objective)
    steps = memory_steps(problem, best)
    assert steps
    for worker, step in steps.items():
        larger = enlarge(problem, worker, step)
        assert larger.memory_bytes[worker] - problem.memory_bytes[worker] == step
        assert larger.memory_bytes.sum() - problem.memory_bytes.sum() == step


def priced(instance: Instance, method: str) -> PlanSpec:
    plan = solve(instance, method=method, rank="surrogate", gap=1e-6).plan
    assert plan is not None
    return plan.model_copy(update={"prices": sensitivity(instance, plan)})


def test_more_bandwidth_of_a_bottleneck_network_has_value() -> None:
    instance = make_instance(sources={"camera": {"rate_per_s": 60.0}}, objective=ObjectiveSpec(goal="throughput"))
    plan = priced(instance, "milp")
    assert plan.prices is not None
    assert plan.prices.networks["wifi"].mbit_per_s > 0
