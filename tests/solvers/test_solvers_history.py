"""The record of how objective and bound approach each other."""

from __future__ import annotations

import itertools
import time
from typing import Any

import pytest

from planner.plan.store import load_plan, plan_document, save_plan
from planner.solvers import solve
from planner.solvers.core.history import MAX_STEPS, History
from tests.instances import random_instance


@pytest.mark.parametrize(
    ("method", "goal"), [("colgen", "delay"), ("milp", "delay"), ("search", "throughput"), ("auto", "makespan")]
)
def test_a_plan_tells_how_it_was_proven(tmp_path: Any, method: str, goal: str) -> None:
    instance = random_instance(2, sources=2, workers=3, blocks=3, load=0.3, goal=goal)
    reported: list[tuple[float, float, float]] = []
    plan = solve(instance, method=method, rank="surrogate", progress=lambda *step: reported.append(step)).plan
    assert plan is not None
    assert reported or method == "milp"  # the caller's own callback is called all the same
    assert 0 < len(plan.search) <= MAX_STEPS
    for before, after in itertools.pairwise(plan.search):
        assert before[0] <= after[0] <= plan.solve_s
        assert before[1] is None or (after[1] is not None and after[1] <= before[1])
        assert before[2] <= after[2]
    _, objective, bound = plan.search[-1]
    assert objective == pytest.approx(plan.objective, rel=1e-6)
    assert bound == pytest.approx(plan.bound, rel=1e-6)
    save_plan(plan, tmp_path / "plan.json")
    assert load_plan(tmp_path / "plan.json") == plan
    assert "search" not in plan_document(plan.model_copy(update={"search": ()}))


def test_of_a_long_search_the_record_stays_short() -> None:
    history = History(time.monotonic())
    for step in range(10_000):
        history.add(1e6 - step, float(step))
        history.add(1e6 - step, float(step))  # nothing new
    assert len(history.steps) <= MAX_STEPS
    assert history.steps[0][1:] == (1e6, 0.0)
    assert history.steps[-1][1:] == (1e6 - 9999, 9999.0)


def test_every_step_can_be_saved() -> None:
    history = History(time.monotonic())
    for best, bound in ((float("inf"), 0.0), (3.0, float("inf")), (2.0, 1.0)):
        history.add(best, bound)
    assert [step[1:] for step in history.steps] == [(None, 0.0), (3.0, 0.0), (2.0, 1.0)]
