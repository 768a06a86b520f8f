from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from planner.plan.evaluate import evaluate
from planner.plan.interval import HIGH, LOW, at_end, coverage, with_intervals
from planner.plan.store import load_plan, save_plan
from planner.plan.summary import describe_plan
from planner.plan.types import Route, SourcePlan, Stage
from planner.profiling.types import EstimateInterval, Profile
from planner.scenario.instance import Instance
from planner.scenario.types import ObjectiveSpec
from planner.simulation.simulator import simulate
from planner.solvers.solve import solve
from planner.tables import Table
from planner.trace.records import SampleRecord
from tests.instances import make_instance, make_profile

WHOLE = 1.5
ONE = 2.0


def estimated(device_class: str = "reference", *, common: float = WHOLE, own: float = ONE) -> Profile:
    """Return an estimate of four equal blocks, off by a factor as a whole and by another one each."""
    profile = make_profile(block_s=(0.01,) * 4, device_class=device_class)
    blocks = tuple(
        block.model_copy(update={"interval_s": (block.mean_s / own, block.mean_s * own)}) for block in profile.blocks
    )
    interval = EstimateInterval(coverage=0.9, total_s=(0.04 / common, 0.04 * common))
    return profile.model_copy(update={"blocks": blocks, "provenance": "estimated", "interval": interval})


def planned(instance: Instance, *stages: tuple[str, int, int]) -> SourcePlan:
    routes = {
        "camera": (
            Route(
                model="m",
                stages=tuple(Stage(worker=w, first_block=first, last_block=last) for w, first, last in stages),
            ),
        )
    }
    return with_intervals(instance, evaluate(instance, routes).sources)["camera"]


def alone(profile: Profile, rate_per_s: float = 1e-6, goal: Literal["delay", "throughput"] = "delay") -> Instance:
    return make_instance(
        profiles=[profile],
        workers={"slow": 1.0, "fast": 2.0},
        sources={"camera": {"rate_per_s": rate_per_s}},
        objective=ObjectiveSpec(goal=goal),
    )


def test_without_queues_the_interval_of_the_delay_is_that_of_the_model() -> None:
    source = planned(alone(estimated()), ("slow", 0, 3))
    assert source.delay_s == pytest.approx(0.04, rel=1e-3)
    low, high = source.delay_interval_s or (0.0, None)
    assert low == pytest.approx(0.04 / WHOLE, rel=1e-3)
    assert high == pytest.approx(0.04 * WHOLE, rel=1e-3)


def test_queues_widen_the_interval_and_may_grow_without_limit() -> None:
    low, high = planned(alone(estimated(), rate_per_s=10), ("slow", 0, 3)).delay_interval_s or (0.0, None)
    assert high is not None
    assert high / low > WHOLE**2
    low, high = planned(alone(estimated(), rate_per_s=20), ("slow", 0, 3)).delay_interval_s or (0.0, 0.0)
    assert low > 0
    assert high is None


def test_measured_classes_add_no_doubt() -> None:
    measured = make_profile(block_s=(0.01,) * 4, device_class="measured")
    workers = {"slow": {"device_class": "measured"}, "fast": {"device_class": "reference"}}
    instance = make_instance(
        profiles=[measured, estimated()], workers=workers, sources={"camera": {"rate_per_s": 1e-6}}
    )
    source = planned(instance, ("slow", 0, 3))
    assert source.delay_interval_s is None
    low, high = planned(instance, ("slow", 0, 2), ("fast", 3, 3)).delay_interval_s or (0.0, None)
    assert high is not None
    # One estimated block may be off by its own factor; the rest is known.
    assert high - low == pytest.approx(0.01 * (ONE - 1 / ONE), rel=1e-3)


@pytest.mark.parametrize("rate_per_s", [1e-6, 15.0, 22.0])
def test_simulated_delays_at_the_ends_are_as_wide_as_evaluated_ones(rate_per_s: float) -> None:
    profile = make_profile(block_s=(0.01,) * 4)
    interval = EstimateInterval(coverage=0.95, total_s=(0.04 / 1.05, 0.04 * 1.05))
    instance = alone(profile.model_copy(update={"interval": interval}), rate_per_s=rate_per_s)
    instance = instance.with_samples({"camera": 20_000 if rate_per_s > 1 else 5})
    low, high = planned(instance, ("slow", 0, 3)).delay_interval_s or (0.0, None)
    assert high is not None
    for end, expected in ((LOW, low), (HIGH, high)):
        records, _ = simulate(at_end(instance, end), policy="local")
        delays = [record.finished_s - record.created_s for record in records if isinstance(record, SampleRecord)]
        assert sum(delays) / len(delays) == pytest.approx(expected, rel=0.15)


def test_the_rate_of_the_goal_throughput_has_an_interval() -> None:
    source = planned(alone(estimated(), rate_per_s=20, goal="throughput"), ("slow", 0, 3))
    low, high = source.rate_interval_per_s or (0.0, 0.0)
    assert low == pytest.approx(0.95 / (0.04 * WHOLE))
    assert high == pytest.approx(20)


def test_a_solved_plan_carries_the_interval_into_its_file_and_its_table(tmp_path: Path) -> None:
    instance = alone(estimated(), rate_per_s=1.0)
    plan = solve(instance, method="local").plan
    assert plan is not None
    assert plan.coverage == 0.9
    interval = plan.sources["camera"].delay_interval_s
    assert interval is not None
    assert interval[0] < plan.sources["camera"].delay_s < (interval[1] or 0.0)
    save_plan(plan, tmp_path / "plan.json")
    assert load_plan(tmp_path / "plan.json") == plan
    tables = [content for content in describe_plan(plan, instance) if isinstance(content, Table)]
    assert any("interval" in str(column) for column in tables[0].columns)


def test_a_plan_of_measured_profiles_has_no_interval() -> None:
    instance = make_instance()
    plan = solve(instance, method="local").plan
    assert plan is not None
    assert plan.coverage is None
    assert plan.sources["camera"].delay_interval_s is None
    assert coverage(instance, {name: source.routes for name, source in plan.sources.items()}) is None
