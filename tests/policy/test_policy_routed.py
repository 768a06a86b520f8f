from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.errors import UsageError
from planner.plan.types import PlanSpec, Route, SourcePlan, Stage
from planner.policy.candidate_routes import candidate_routes, resident_blocks
from planner.policy.costs import CostTable
from planner.policy.registry import make_policy
from planner.policy.types import Policy, View, WorkerState
from tests.instances import make_instance, make_profile

INSTANCE = make_instance(profiles=[make_profile(block_s=[0.01] * 3)], workers={"slow": 1.0, "mid": 2.0, "fast": 4.0})


def shared_plan(shares: dict[str, float]) -> PlanSpec:
    """Each share's route computes everything on the worker of its name."""
    routes = tuple(
        Route(share=share, model="m", stages=(Stage(worker=worker, first_block=0, last_block=2),))
        for worker, share in shares.items()
    )
    own = SourcePlan(accuracy=1.0, delay_s=0.1, surrogate_delay_s=0.1, routes=routes)
    return PlanSpec(
        status="optimal", method="test", goal="delay", objective=1.0, bound=1.0, gap=0.0, solve_s=0.0,
        provenance="measured", sources={"camera": own}, workers={}, networks={},
    )  # fmt: skip


def first_worker(policy: Policy, view: View) -> str:
    route = policy.route(view, "camera")
    assert isinstance(route, Route)
    return route.stages[0].worker


@given(st.lists(st.floats(0.05, 1.0), min_size=1, max_size=3), st.integers(1, 400))
def test_planned_keeps_the_shares_in_every_stretch(weights: list[float], samples: int) -> None:
    workers = ["slow", "mid", "fast"][: len(weights)]
    shares = {worker: weight / sum(weights) for worker, weight in zip(workers, weights, strict=True)}
    policy = make_policy("planned", INSTANCE, shared_plan(shares))
    view = WorkerState("slow", INSTANCE, CostTable(INSTANCE)).view
    drawn = Counter(first_worker(policy, view) for _ in range(samples))
    for worker, share in shares.items():
        # The discrepancy of the golden-ratio sequence grows with log n; chance would give the square root of n.
        assert abs(drawn[worker] - share * samples) <= 4.0


def test_planned_leaves_out_routes_through_absent_workers() -> None:
    policy = make_policy("planned", INSTANCE, shared_plan({"mid": 0.5, "fast": 0.5}))
    state = WorkerState("slow", INSTANCE, CostTable(INSTANCE), absent=frozenset({"fast"}))
    assert {first_worker(policy, state.view) for _ in range(20)} == {"mid"}
    state.absent |= {"mid"}
    assert first_worker(policy, state.view) == "slow"


def test_candidate_routes_determine_the_blocks_to_load() -> None:
    plan = shared_plan({"mid": 0.25, "fast": 0.75})
    assert [route.share for route in candidate_routes(INSTANCE, "planned", plan)["camera"]] == [0.25, 0.75]
    assert resident_blocks(INSTANCE, "planned", plan) == {"slow": {}, "mid": {"m": (0, 1, 2)}, "fast": {"m": (0, 1, 2)}}
    assert resident_blocks(INSTANCE, "local", plan) == {"slow": {"m": (0, 1, 2)}, "mid": {}, "fast": {}}


def test_unknown_policies_and_missing_plans_are_reported() -> None:
    with pytest.raises(UsageError, match=r"unknown policy; found 'best'; expected local \| ddi"):
        make_policy("best", INSTANCE, None)
    with pytest.raises(UsageError, match="--plan PLAN"):
        make_policy("planned", INSTANCE, None)
