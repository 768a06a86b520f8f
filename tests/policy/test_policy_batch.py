"""Batches: how close to the least makespan, and why the samples of all sources leave side by side."""

from __future__ import annotations

import pytest

from planner.plan.types import Plan
from planner.policy.costs import Costs
from planner.policy.registry import make_policy
from planner.policy.types import View
from planner.scenario.instance import Instance
from planner.simulate.run import simulate
from planner.solve import solve
from planner.trace.records import SampleRecord
from tests.instances import random_instance


def batches(seed: int, samples: int = 400) -> tuple[Instance, Plan]:
    """A random instance, all samples of all sources there from the start, and its plan."""
    instance = random_instance(seed, sources=3, workers=3, blocks=4, links=bool(seed % 2), goal="makespan")
    sources = {
        name: spec.model_copy(update={"arrivals": "batch", "rate_per_s": None, "samples": samples})
        for name, spec in instance.scenario.sources.items()
    }
    instance = instance.model_copy(update={"scenario": instance.scenario.model_copy(update={"sources": sources})})
    plan = solve(instance, method="convex", routes="shared", time_limit_s=20).plan
    assert plan is not None
    return instance, plan


def makespan_s(instance: Instance, policy: str, plan: Plan) -> float:
    records, _ = simulate(instance, policy=policy, plan=plan, seed=0)
    samples = [record for record in records if isinstance(record, SampleRecord)]
    assert {record.status for record in samples} == {"completed"}
    return max(record.finished_s for record in samples)


def fluid_s(plan: Plan) -> float:
    """The work of the busiest resource: no plan of the solver's has less, as its bound says."""
    works_s = [use.utilisation for use in plan.workers.values()] + [use.utilisation for use in plan.networks.values()]
    longest_s = max(entry.delay_s for entry in plan.sources.values())
    assert max(works_s) + longest_s <= plan.bound * 1.001
    return max(works_s)


@pytest.mark.parametrize("seed", [3, 5, 7])
def test_batches_are_done_within_5_percent_of_the_least_makespan(seed: int) -> None:
    instance, plan = batches(seed)
    assert makespan_s(instance, "adaptive", plan) <= 1.05 * fluid_s(plan)


def test_a_batch_leaves_at_the_pace_of_the_plan() -> None:
    instance, plan = batches(0)
    policy = make_policy("adaptive", instance, plan)
    source = instance.sources[0]
    view = View(instance.home(source), instance, Costs(instance), priorities=dict.fromkeys(instance.sources, 1.0))
    assert policy.route(view, source) is not None
    view.in_flight[source] = 1
    early = 1
    while policy.route(view, source) is not None:
        early += 1
    pace_s = fluid_s(plan) / instance.samples(source)
    assert (early - 1) * pace_s <= max(entry.delay_s for entry in plan.sources.values()) < early * pace_s
    view.now_s = 10 * pace_s
    assert sum(policy.route(view, source) is not None for _ in range(20)) == 10
    view.in_flight[source] = 0
    assert policy.route(view, source) is not None
