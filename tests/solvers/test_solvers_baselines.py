from __future__ import annotations

import pytest

from planner.plan.verify import verify
from planner.scenario.types import PolicySpec
from planner.solvers import solve
from tests.instances import make_instance, make_profile, random_instance

BASELINES = ["local", "two-part", "equal", "ar-mdi"]


@pytest.mark.parametrize("seed", range(4))
def test_no_baseline_beats_the_optimum(seed: int) -> None:
    instance = random_instance(seed, load=0.1)
    optimum = solve(instance, rank="surrogate").plan
    for method in BASELINES:
        solution = solve(instance, method=method)
        if solution.plan is None:
            assert solution.reasons, method
            continue
        verify(instance, solution.plan)
        assert optimum is not None, method
        assert solution.plan.objective >= optimum.objective * (1 - 1e-4), method


def test_segments_follow_ring_and_speed() -> None:
    """Worker b is three times as fast as a, and c twice: equal blocks are divided 1 : 3 : 2 around the ring."""
    profile = make_profile(block_s=[0.01] * 12)
    instance = make_instance(profiles=[profile], workers={"a": 1.0, "b": 3.0, "c": 2.0})
    ring = PolicySpec(ring=("c", "a", "b"))
    instance = instance.model_copy(update={"scenario": instance.scenario.model_copy(update={"policy": ring})})

    def stages(method: str) -> list[tuple[str, int]]:
        plan = solve(instance, method=method).plan
        assert plan is not None
        segments = plan.sources["camera"].routes[0].stages
        return [(stage.worker, stage.last_block - stage.first_block + 1) for stage in segments]

    assert stages("equal") == [("a", 4), ("b", 4), ("c", 4)]
    assert stages("ar-mdi") == [("a", 2), ("b", 6), ("c", 4)]
    assert stages("local") == [("a", 12)]


def test_one_split_is_the_best_split() -> None:
    profile = make_profile(block_s=[0.01, 0.05, 0.05], cut_bytes=[500_000, 10_000, 400_000, 1000])
    plan = solve(make_instance(profiles=[profile], workers={"home": 1.0, "fast": 10.0}), method="two-part").plan
    assert plan is not None
    stages = plan.sources["camera"].routes[0].stages
    assert [(stage.worker, stage.first_block) for stage in stages] == [("home", 0), ("fast", 1)]


def test_a_baseline_that_does_not_fit_gives_the_reason() -> None:
    solution = solve(make_instance(sources={"camera": {"rate_per_s": 60.0}}), method="local")
    assert solution.status == "no_solution"
    assert solution.reasons == ("worker slow would be 120% busy, 95% is allowed",)


def test_reasons_of_a_baseline_concern_its_routes_only() -> None:
    sources = {"camera": {"rate_per_s": 1.0, "max_mean_delay_s": 0.018}}
    late = solve(make_instance(sources=sources), method="local")
    assert late.reasons == ("camera would take 20 ms, its max_mean_delay is 18 ms",)
    assert solve(make_instance(sources=sources)).plan is not None
    pinned = solve(make_instance(), method="local", pins={"camera": {0: "fast"}})
    assert pinned.reasons == ("the route of camera would violate its pins, use a missing path or exceed max_visits",)


def test_an_earlier_plan_is_a_warm_start() -> None:
    instance = random_instance(2, load=0.1)
    earlier = solve(instance, method="two-part").plan
    assert earlier is not None
    again = solve(instance, method="milp", start=earlier, time_limit_s=0.001, rank="surrogate").plan
    assert again is not None
    assert again.objective <= earlier.objective
