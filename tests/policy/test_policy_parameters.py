"""The constants of policies can be set: in a scenario file and in Python, for simulation and for agents."""

from __future__ import annotations

from collections.abc import Hashable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from planner.plan.types import PlanSpec, SourcePlan
from planner.policy.adaptive import Adaptive
from planner.policy.candidate_routes import whole_model_at_home
from planner.policy.costs import CostTable
from planner.policy.registry import make_policy
from planner.policy.types import SampleKey, Task, Waiting, WorkerState
from planner.scenario.instance import Instance
from planner.scenario.load import load_scenario
from planner.scenario.types import (
    AdaptiveParameters,
    BatchParameters,
    EventSpec,
    PaceParameters,
    PaMdiParameters,
    PolicySpec,
)
from planner.simulation.simulator import Simulator
from planner.solvers import solve
from planner.trace.records import Record
from tests.instances import random_instance

FILE = """
models: {m: {profile: m}}
workers: {a: {device_class: c, memory: 1 GiB}}
sources: {s: {worker: a, models: [m], rate: 1 /s}}
policy:
  adaptive:
    ageing: 2 min
    later_weight: 0
    largest_utilisation: 95 %
    rate_memory: 500 ms
    most_bookings: 8
    backlog_step: 10 ms
  batch: {behind: 2.0, avoid: 10.0, backlog_step: 2 ms}
  pace: {fade: 0, step: 1.2, memory: 1 min, enough: 10, least: 0.5, slow: 4.0}
  pa-mdi: {priorities: false, clearance: false, blocks: 0}
"""
IN_PYTHON = PolicySpec(
    adaptive=AdaptiveParameters(
        ageing_s=120.0,
        later_weight=0.0,
        largest_utilisation=0.95,
        rate_memory_s=0.5,
        most_bookings=8,
        backlog_step_s=0.01,
    ),
    batch=BatchParameters(behind=2.0, avoid=10.0, backlog_step_s=0.002),
    pace=PaceParameters(fade=0.0, step=1.2, memory_s=60.0, enough=10, least=0.5, slow=4.0),
    pa_mdi=PaMdiParameters(priorities=False, clearance=False, blocks=0),
)
"""The same."""


def test_parameters_are_read_from_a_scenario_file(tmp_path: Path) -> None:
    path = tmp_path / "scenario.yaml"
    path.write_text(FILE)
    policy = load_scenario(path).policy
    for section in ("adaptive", "batch", "pace", "pa_mdi"):
        assert getattr(policy, section).model_dump() == pytest.approx(getattr(IN_PYTHON, section).model_dump())


@cache
def case(goal: str = "delay") -> tuple[Instance, PlanSpec]:
    """A busy instance in which a worker becomes slow for a while, and its plan."""
    instance = random_instance(3, sources=3, workers=3, blocks=5, load=0.9, links=False, goal=goal)
    arrivals = "batch" if goal == "makespan" else "poisson"
    sources = {
        name: spec.model_copy(update={"samples": 150, "arrivals": arrivals})
        for name, spec in instance.scenario.sources.items()
    }
    events = (
        EventSpec(at_s=0.5, action="slow", worker="w1", factor=6.0),
        EventSpec(at_s=1.5, action="recover", worker="w1"),
    )
    scenario = instance.scenario.model_copy(update={"sources": sources, "events": events})
    instance = instance.model_copy(update={"scenario": scenario})
    if goal == "makespan":
        plan = solve(instance, method="convex", routes="shared").plan
        assert plan is not None
        return instance, plan
    at_home = {
        source: SourcePlan(
            accuracy=1.0, delay_s=0.1, surrogate_delay_s=0.1, routes=(whole_model_at_home(instance, source),)
        )
        for source in instance.sources
    }
    return instance, PlanSpec(
        status="feasible", method="test", goal="delay", objective=1.0, bound=0.0, gap=1.0, solve_s=0.0,
        provenance="measured", sources=at_home, workers={}, networks={},
    )  # fmt: skip


def with_policy(instance: Instance, **sections: Any) -> Instance:
    policy = PolicySpec(**sections)
    return instance.model_copy(update={"scenario": instance.scenario.model_copy(update={"policy": policy})})


def run(instance: Instance, plan: PlanSpec, policy: str) -> list[Record]:
    records: list[Record] = []
    Simulator(instance, policy=policy, plan=plan, seed=0, sink=records.append).run()
    return records


@cache
def by_default(goal: str, policy: str) -> list[Record]:
    return run(*case(goal), policy)


@pytest.mark.parametrize(
    ("goal", "policy", "section", "parameters"),
    [
        ("delay", "adaptive", "adaptive", AdaptiveParameters(ageing_s=0.01)),
        ("delay", "adaptive", "adaptive", AdaptiveParameters(later_weight=1.0)),
        ("delay", "adaptive", "adaptive", AdaptiveParameters(largest_utilisation=0.1)),
        ("delay", "adaptive", "adaptive", AdaptiveParameters(rate_memory_s=0.1)),
        ("delay", "adaptive", "adaptive", AdaptiveParameters(most_bookings=2)),
        ("delay", "adaptive", "adaptive", AdaptiveParameters(backlog_step_s=0.1)),
        ("makespan", "adaptive", "batch", BatchParameters(behind=0.01)),
        ("makespan", "adaptive", "batch", BatchParameters(avoid=0.01)),
        ("makespan", "adaptive", "batch", BatchParameters(backlog_step_s=1.0)),
        ("delay", "ddi", "pace", PaceParameters(fade=0.0)),
        ("delay", "ddi", "pace", PaceParameters(step=30.0)),
        ("delay", "ddi", "pace", PaceParameters(memory_s=0.01)),
        ("delay", "ddi", "pace", PaceParameters(enough=50)),
        ("delay", "pa-mdi", "pa_mdi", PaMdiParameters(priorities=False)),
        ("delay", "pa-mdi", "pa_mdi", PaMdiParameters(clearance=False)),
        ("delay", "pa-mdi", "pa_mdi", PaMdiParameters(blocks=0)),
    ],
)
def test_every_parameter_changes_decisions_and_reaches_agents(
    goal: str, policy: str, section: str, parameters: object
) -> None:
    instance, plan = case(goal)
    changed = with_policy(instance, **{section: parameters})
    found = run(changed, plan, policy)
    assert found != by_default(goal, policy)
    # An agent has the instance as JSON.
    assert run(Instance.model_validate_json(changed.model_dump_json()), plan, policy) == found


def test_parameters_given_to_a_policy_come_before_the_scenarios() -> None:
    """A sample of priority 1 that is 8 s old counts 1.8 with an ageing time of 10 s, and 9 with one of 1 s."""
    instance, plan = case()
    state = WorkerState("w0", instance, CostTable(instance), now_s=8.0)
    heads: dict[Hashable, Waiting] = {
        priority: Waiting(Task(SampleKey("s0", 0, 0), "m0", 0, priority, created_s, 0, ()), 0, 1, 0.0, (0.0, 0))
        for priority, created_s in ((1.0, 0.0), (2.0, 8.0))
    }
    assert make_policy("adaptive", instance, plan).choose(state.view, heads) == 2.0
    assert Adaptive(instance, plan, AdaptiveParameters(ageing_s=1.0)).choose(state.view, heads) == 1.0
