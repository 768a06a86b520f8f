"""Who counts as slow."""

from __future__ import annotations

import pytest

from planner.policy.costs import CostTable
from planner.policy.types import WorkerState
from planner.scenario.types import PaceParameters, PolicySpec
from planner.worker.pace import Pace, Slowed
from tests.instances import make_instance, make_profile


@pytest.mark.parametrize(
    ("told", "news", "found"),
    [
        ([1.0, 1.4], [False, False], None),
        ([2.0, 2.8, 4.0, 5.7], [False, True, False, False], 2.8),
        ([2.8, 8.0, 4.0, 16.0], [True, True, False, False], 8.0),
        ([8.0, 2.8], [True, True], 2.8),
        ([2.8, 1.42, 1.0], [True, False, True], None),
        ([4.0, 1.42], [True, True], None),
        ([10.0, 0.5, 0.5], [True, True, False], None),
    ],
)
def test_a_worker_is_slow_from_more_than_twice_its_profile_on_until_it_is_as_fast_again(
    told: list[float], news: list[bool], found: float | None
) -> None:
    slowed = Slowed()
    assert slowed.told("b", 3.0)
    before = slowed.slowness
    assert [slowed.told("a", slowness) for slowness in told] == news
    assert slowed.slowness == {"b": 3.0} | ({"a": found} if found is not None else {})
    assert before == {"b": 3.0}


@pytest.mark.parametrize("parameters", [PaceParameters(), PaceParameters(memory_s=3.0, enough=2, step=4.0)])
def test_a_worker_that_has_not_computed_lately_counts_as_fast_as_profiled(parameters: PaceParameters) -> None:
    instance = make_instance(profiles=[make_profile(block_s=[0.01], cut_bytes=[8, 8])])
    scenario = instance.scenario.model_copy(update={"policy": PolicySpec(pace=parameters)})
    instance = instance.model_copy(update={"scenario": scenario})
    state = WorkerState("slow", instance, CostTable(instance))
    pace = Pace(state)
    state.now_s = 1.0
    for _ in range(parameters.enough - 1):
        assert pace.ran(0.01, 0.16) == 1.0
    assert pace.ran(0.01, 0.16) == pytest.approx(16.0)
    assert pace.own_at(1.0) == pytest.approx(16.0)
    assert pace.own_at(1.0 + 0.99 * parameters.memory_s) == pytest.approx(16.0)
    assert pace.own_at(1.01 + parameters.memory_s) == 1.0


def test_slowness_goes_in_steps() -> None:
    instance = make_instance()
    scenario = instance.scenario.model_copy(update={"policy": PolicySpec(pace=PaceParameters(step=3.0))})
    state = WorkerState("slow", instance.model_copy(update={"scenario": scenario}), CostTable(instance))
    pace = Pace(state)
    for took_s in (0.029, 0.031):
        for _ in range(PaceParameters().enough):
            pace.ran(0.01, took_s)
        assert pace.own == pytest.approx(1.0 if took_s < 0.03 else 3.0)


def test_who_counts_as_slow_can_be_set() -> None:
    assert not Slowed().told("a", 2.0)
    assert Slowed(PaceParameters(slow=1.9)).told("a", 2.0)
