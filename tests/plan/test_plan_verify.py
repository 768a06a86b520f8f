from __future__ import annotations

from typing import Any

import pytest

from planner.errors import PlanError
from planner.plan.types import PlanSpec, Stage
from planner.plan.verify import verify
from planner.scenario.instance import Instance
from planner.solvers import solve
from tests.instances import MIB, make_instance, random_instance


@pytest.fixture(scope="module")
def instance() -> Instance:
    return random_instance(4, load=0.3)


@pytest.fixture(scope="module")
def plan(instance: Instance) -> PlanSpec:
    found = solve(instance).plan
    assert found is not None
    return found


def change_route(plan: PlanSpec, **update: Any) -> PlanSpec:
    source = plan.sources["s0"]
    route = source.routes[0].model_copy(update=update)
    return plan.model_copy(update={"sources": {**plan.sources, "s0": source.model_copy(update={"routes": (route,)})}})


def test_a_solved_plan_passes(instance: Instance, plan: PlanSpec) -> None:
    verify(instance, plan)


@pytest.mark.parametrize(
    ("update", "message"),
    [
        ({"share": 0.5}, "do not add up"),
        ({"model": "m1"}, "not a model of this source"),
        ({"operating_point": 3}, "no such operating point"),
        ({"stages": (Stage(worker="w9", first_block=0, last_block=3),)}, "no such worker"),
        ({"stages": (Stage(worker="w0", first_block=0, last_block=2),)}, "left out"),
        ({"stages": (Stage(worker="w0", first_block=1, last_block=3),)}, "join up"),
        (
            {"stages": tuple(Stage(worker=f"w{n % 3}", first_block=n, last_block=n) for n in range(4))},
            "does not follow from the routes",
        ),
    ],
)
def test_wrong_routes_are_found(instance: Instance, plan: PlanSpec, update: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        verify(instance, change_route(plan, **update))


@pytest.mark.parametrize(
    ("update", "message"),
    [
        ({"objective": 0.0}, "objective: does not follow"),
        ({"bound": 1e6}, "bound: above the objective"),
        ({"gap": 0.5}, "gap: is not"),
        ({"goal": "throughput"}, "another goal"),
        ({"workers": {}}, "missing from the plan"),
        ({"chains": {"m0": "other"}}, "another chain"),
    ],
)
def test_wrong_records_are_found(instance: Instance, plan: PlanSpec, update: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        verify(instance, plan.model_copy(update=update))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pins": {"s0": {"1": "w0"}}}, "block 1 is not where it is pinned; found 'w1'; expected w0"),
        ({"max_visits": 1}, "visits w0 too often; found 2; expected at most 1"),
    ],
)
def test_broken_wishes_are_found(instance: Instance, plan: PlanSpec, options: dict[str, Any], message: str) -> None:
    there_and_back = change_route(
        plan,
        stages=(
            Stage(worker="w0", first_block=0, last_block=0),
            Stage(worker="w1", first_block=1, last_block=2),
            Stage(worker="w0", first_block=3, last_block=3),
        ),
    )
    with pytest.raises(PlanError, match=message):
        verify(instance, there_and_back.model_copy(update={"options": options}))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"rate_per_s": 49.0}, "busier than the cap"),
        ({"max_mean_delay_s": 0.001}, "above the largest mean delay"),
        ({"min_accuracy": 1.0}, "not accurate enough"),
    ],
)
def test_broken_promises_are_found(keys: dict[str, float], message: str) -> None:
    easy = make_instance(workers={"slow": 1.0})
    plan = solve(easy).plan
    assert plan is not None
    spec = easy.scenario.sources["camera"].model_copy(update=keys)
    scenario = easy.scenario.model_copy(update={"sources": {"camera": spec}})
    hard = easy.model_copy(update={"scenario": scenario})
    if "min_accuracy" in keys:
        profile = easy.any_profile("m")
        points = [{"name": "p", "accuracy": 0.5, "reach": (1.0, 1.0)}]
        weak = type(profile).model_validate({**profile.model_dump(), "operating_points": points})
        hard = hard.model_copy(update={"profiles": {"m": {profile.device_class: weak}}})
    with pytest.raises(PlanError, match=message):
        verify(hard, plan)


def test_too_little_memory_is_found() -> None:
    plan = solve(make_instance(workers={"slow": 1.0})).plan
    assert plan is not None
    with pytest.raises(PlanError, match="more memory than there is"):
        verify(make_instance(workers={"slow": {"memory_bytes": 201 * MIB}}), plan)
