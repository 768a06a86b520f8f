"""Who counts as slow."""

from __future__ import annotations

import pytest

from planner.policy.costs import Costs
from planner.policy.types import View
from planner.worker.pace import ENOUGH, MEMORY_S, Pace, Slowed
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


def test_a_worker_that_has_not_computed_lately_counts_as_fast_as_its_profile() -> None:
    instance = make_instance(profiles=[make_profile(block_s=[0.01], cut_bytes=[8, 8])])
    view = View("slow", instance, Costs(instance).own(), priorities={})
    pace = Pace(view)
    view.now_s = 1.0
    for _ in range(ENOUGH):
        pace.ran(0.01, 0.08)
    assert pace.own_at(1.0) == pytest.approx(8.0)
    assert pace.own_at(1.0 + 0.99 * MEMORY_S) == pytest.approx(8.0)
    assert pace.own_at(1.01 + MEMORY_S) == 1.0
