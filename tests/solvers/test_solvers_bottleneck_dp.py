from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.errors import SolveError
from planner.plan.verify import verify
from planner.solvers import solve
from planner.solvers.core.build import build_problem
from planner.solvers.core.search_state import Options
from planner.solvers.methods import bottleneck_dp as dp
from planner.solvers.methods import exhaustive
from tests.instances import random_instance


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), workers=st.integers(2, 4), blocks=st.integers(1, 5), tight=st.booleans())
def test_it_equals_exhaustive_search(seed: int, workers: int, blocks: int, *, tight: bool) -> None:
    instance = random_instance(
        seed, sources=1, workers=workers, blocks=blocks, goal="throughput", tight_memory=tight, load=1.5
    )
    problem = build_problem(instance, max_visits=1)
    outcome, oracle = dp.solve(problem, Options()), exhaustive.solve(problem, Options())
    assert outcome.status == oracle.status
    if oracle.status == "optimal":
        assert outcome.bound == pytest.approx(oracle.bound, rel=1e-12)


def test_its_plan_passes_verification() -> None:
    instance = random_instance(3, sources=1, workers=8, blocks=24, goal="throughput")
    solution = solve(instance, max_visits=1)
    assert solution.status == "optimal"
    assert solution.plan is not None
    assert solution.plan.method == "dp"
    verify(instance, solution.plan)


@pytest.mark.parametrize("seed", range(3))
def test_workers_that_are_no_use_change_nothing_at_any_number(seed: int) -> None:
    """The exact method ends at 64 workers; what comes after finds the same where few workers count."""
    useful = 4
    many = build_problem(random_instance(seed, sources=1, workers=66, blocks=7, goal="throughput"), max_visits=1)
    many = dataclasses.replace(many, demands=(dataclasses.replace(many.demands[0], home=0),))
    (variant,) = many.variants
    slow = dataclasses.replace(variant, block_s=variant.block_s * np.where(np.arange(66) < useful, 1.0, 1e6))
    few = dataclasses.replace(
        many,
        workers=many.workers[:useful],
        variants=(
            dataclasses.replace(variant, block_s=variant.block_s[:, :useful], overhead_s=variant.overhead_s[:useful]),
        ),
        hop_resource=many.hop_resource[:useful, :useful],
        hop_s_per_byte=many.hop_s_per_byte[:useful, :useful],
        latency_s=many.latency_s[:useful, :useful],
        memory_bytes=many.memory_bytes[:useful],
        weight_bytes=tuple(weights[:, :useful] for weights in many.weight_bytes),
        activation_bytes=tuple(weights[:, :useful] for weights in many.activation_bytes),
        ring=tuple(range(useful)),
    )
    exact = dp.solve(few, Options())
    assert exact.status == "optimal"
    found = dp.solve(dataclasses.replace(many, variants=(slow,)), Options())
    best = min(map(many.objective, found.incumbents))
    assert best == pytest.approx(exact.bound, rel=2 * dp.QUICK_ACCURACY)
    assert found.bound <= best


@pytest.mark.parametrize(
    ("keys", "max_visits", "expected"),
    [
        ({"sources": 2}, 1, "one source"),
        ({"goal": "delay"}, 1, "the goal throughput"),
        ({}, None, "max_visits 1"),
        ({"links": False}, 1, "point-to-point"),
    ],
)
def test_other_problems_are_refused(keys: dict[str, object], max_visits: int | None, expected: str) -> None:
    instance = random_instance(0, **{"sources": 1, "goal": "throughput", **keys})  # type: ignore[arg-type]  # by name
    with pytest.raises(SolveError, match=expected):
        solve(instance, method="dp", max_visits=max_visits)
