"""Limits of single samples and the goal misses, against all combinations of routes with the evaluated distribution."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from planner.errors import PlanError, SolveError
from planner.plan.evaluate import Evaluation, evaluate
from planner.plan.verify import verify
from planner.scenario.instance import Instance
from planner.scenario.types import ObjectiveSpec
from planner.solvers.core.build import build_problem
from planner.solvers.methods.exhaustive import _routes
from planner.solvers.solve import METHODS, solve
from planner.solvers.tails import broken_limits
from tests.instances import make_instance, random_instance

RULES = ("local", "two-part", "equal", "ar-mdi")


def tiny(seed: int, goal: str = "delay", **keys: Any) -> Instance:
    """Two sources, two or three workers, two blocks; deadlines that some routes keep."""
    random = np.random.default_rng(seed)
    instance = random_instance(seed, sources=2, workers=2 + seed % 2, blocks=2, load=0.35, links=seed % 3 == 0)
    limits = {name: {"deadline_s": float(random.uniform(0.03, 0.2)), **keys} for name in instance.sources}
    return instance.with_sources(limits).with_objective(goal=goal)


def everything(instance: Instance) -> Iterator[Evaluation]:
    """Evaluate all combinations of one route per source that keep to the cap and to memory."""
    problem = build_problem(instance)
    for combination in itertools.product(*(_routes(problem, source) for source in range(len(instance.sources)))):
        choices = tuple((choice,) for choice in combination)
        if np.isfinite(problem.objective(choices)) and problem.feasible(choices):
            yield evaluate(instance, problem.routes(choices))


def misses(instance: Instance, method: str) -> float:
    plan = solve(instance, method=method, time_limit_s=20).plan
    if plan is None:
        return np.inf
    verify(instance, plan)
    return evaluate(instance, {name: own.routes for name, own in plan.sources.items()}).weighted_misses


@pytest.mark.parametrize("seed", range(3))
def test_misses_are_about_the_fewest_and_never_more_than_a_rule_has(seed: int) -> None:
    instance = tiny(seed, "misses")
    found = misses(instance, "auto")
    fewest = min(evaluation.weighted_misses for evaluation in everything(instance))
    assert fewest - 1e-9 <= found <= 1.02 * fewest + 1e-6
    assert all(found <= misses(instance, rule) + 1e-9 for rule in RULES)


@pytest.mark.parametrize("seed", range(3))
def test_a_plan_keeps_the_limits_of_samples_if_any_does(seed: int) -> None:
    instance = tiny(seed, miss_at_most=0.1, percentiles_s={"p50": 0.1})
    possible = any(not broken_limits(instance, evaluation) for evaluation in everything(instance))
    found = solve(instance, time_limit_s=20)
    assert (found.plan is not None) == possible
    if found.plan is not None:
        verify(instance, found.plan)
        assert all((own.miss_share or 0.0) <= 0.1 for own in found.plan.sources.values())
    else:
        assert found.reasons


@pytest.mark.parametrize("method", [name for name in METHODS if name not in {"dp", *RULES}])
def test_every_method_keeps_them(method: str) -> None:
    """The nearest worker is fast enough on average, yet too busy; the other one is not."""
    sources = {
        "camera": {"rate_per_s": 20.0, "deadline_s": 0.08, "miss_at_most": 0.05},
        "other": {"rate_per_s": 5.0, "priority": 2.0},
    }
    instance = make_instance(workers={"slow": 1.0, "fast": 1.2}, sources=sources)
    plan = solve(instance, method=method, time_limit_s=20).plan
    assert plan is not None
    verify(instance, plan)
    assert (plan.sources["camera"].miss_share or 0.0) <= 0.05
    with pytest.raises(PlanError, match="too many samples are late"):
        verify(instance.with_sources({"camera": {"miss_at_most": 0.001, "deadline_s": 0.022}}), plan)


@pytest.mark.parametrize(("most", "required"), [(0.01, "99%"), (0.005, "99.5%"), (0.001, "99.9%"), (0.0001, "99.99%")])
def test_a_limit_that_waiting_breaks_is_explained_by_who_is_waited_for(most: float, required: str) -> None:
    sources = {
        "gate": {"rate_per_s": 10.0, "deadline_s": 0.03, "miss_at_most": most},
        "yard": {"rate_per_s": 25.0, "priority": 2.0},
    }
    found = solve(make_instance(workers={"office": 1.0}, networks={}, sources=sources), method="exhaustive")
    assert found.status == "no_solution"
    (sentence,) = found.reasons
    assert sentence.startswith("gate can meet 30 ms for ")
    assert sentence.endswith(f" {required} are required: office is 70% busy with yard, gate")


@pytest.mark.parametrize("goal", ["delay", "throughput", "misses"])
@pytest.mark.parametrize("keys", [{}, {"miss_at_most": 0.2}, {"percentiles_s": {"p99": 0.019}}])
def test_a_limit_below_the_work_of_every_route_is_infeasible(goal: Any, keys: dict[str, Any]) -> None:
    sources = {"camera": {"rate_per_s": 1.0, "deadline_s": 0.019, **keys}}
    instance = make_instance(workers={"slow": 1.0, "b": 0.9}, sources=sources, objective=ObjectiveSpec(goal=goal))
    found = solve(instance)
    assert found.status == "infeasible"
    assert found.reasons == ("no route of camera meets 19 ms: work and transfers alone take 20 ms at least",)


def test_a_partition_of_one_source_knows_no_limits_of_samples() -> None:
    sources = {"camera": {"rate_per_s": 1.0, "percentiles_s": {"p95": 1.0}}}
    instance = make_instance(sources=sources, objective=ObjectiveSpec(goal="throughput"))
    with pytest.raises(SolveError, match="no limit on delay"):
        solve(instance, method="dp", max_visits=1)


def test_a_deadline_without_a_limit_is_pointed_out() -> None:
    sources = {"camera": {"rate_per_s": 1.0, "deadline_s": 0.1}}
    plan = solve(make_instance(sources=sources)).plan
    assert plan is not None
    assert plan.sources["camera"].miss_share == pytest.approx(0.0, abs=0.01)
    assert plan.warning is not None
    assert "miss_at_most" in plan.warning
