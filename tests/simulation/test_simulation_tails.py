"""A plan's limits on single samples, held against a simulation."""

from __future__ import annotations

from typing import Any

import pytest

from planner.plan.types import PlanSpec, Route, SourcePlan, Stage
from planner.scenario.instance import Instance
from planner.scenario.types import ObjectiveSpec
from planner.simulation.tails import broken_in_simulation
from tests.instances import make_instance, make_profile

BUSY = {"rate_per_s": 80.0, "samples": 10}
"""Samples of 10 ms, whose delay has a mean of 30 ms."""


def case(**keys: Any) -> tuple[Instance, PlanSpec]:
    instance = make_instance(
        profiles=[make_profile(block_s=[0.01])], workers={"one": 1.0}, networks={}, sources={"s": {**BUSY, **keys}}
    )
    route = Route(model="m", stages=(Stage(worker="one", first_block=0, last_block=0),))
    own = SourcePlan(accuracy=1.0, delay_s=0.03, surrogate_delay_s=0.03, routes=(route,))
    plan = PlanSpec(
        status="feasible", method="test", goal="delay", objective=1.0, bound=0.0, gap=1.0, solve_s=0.0,
        provenance="measured", sources={"s": own}, workers={}, networks={},
    )  # fmt: skip
    return instance, plan


@pytest.mark.parametrize("keys", [{"deadline_s": 0.05, "miss_at_most": 0.05}, {"percentiles_s": {"p95": 0.05}}])
def test_a_limit_that_is_broken_is_told_with_its_interval(keys: dict[str, Any]) -> None:
    (sentence,) = broken_in_simulation(*case(**keys))
    assert "samples of s take more than 50 ms (95 % interval" in sentence
    assert sentence.endswith("5.0% are allowed")


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"deadline_s": 0.05},
        {"deadline_s": 0.5, "miss_at_most": 0.05},
        {"percentiles_s": {"p95": 0.5}},
    ],
)
def test_a_limit_that_is_kept_is_not_mentioned(keys: dict[str, Any]) -> None:
    assert list(broken_in_simulation(*case(**keys))) == []


def test_a_batch_has_no_such_limits() -> None:
    instance, plan = case(deadline_s=0.001, miss_at_most=0.05)
    batch = instance.with_scenario(objective=ObjectiveSpec(goal="makespan"))
    assert list(broken_in_simulation(batch, plan)) == []


def test_a_recorded_trace_is_followed() -> None:
    instance, plan = case(deadline_s=0.0101, miss_at_most=0.05, rate_per_s=None, arrivals="trace", trace="t.txt")
    together = tuple(time_s for index in range(300) for time_s in (index / 10, index / 10))
    (sentence,) = broken_in_simulation(instance.model_copy(update={"traces": {"s": together}}), plan)
    assert sentence.startswith("in a simulation 50.0% of 600 samples of s")
