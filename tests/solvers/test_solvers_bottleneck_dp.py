from __future__ import annotations

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


@pytest.mark.parametrize(
    ("keys", "max_visits", "expected"),
    [
        ({"sources": 2}, 1, "one source"),
        ({"goal": "delay"}, 1, "the goal throughput"),
        ({}, None, "max_visits 1"),
        ({"links": False}, 1, "point-to-point"),
        ({"workers": 65, "blocks": 1}, 1, "at most 64 workers"),
    ],
)
def test_other_problems_are_refused(keys: dict[str, object], max_visits: int | None, expected: str) -> None:
    instance = random_instance(0, **{"sources": 1, "goal": "throughput", **keys})  # type: ignore[arg-type]  # by name
    with pytest.raises(SolveError, match=expected):
        solve(instance, method="dp", max_visits=max_visits)
