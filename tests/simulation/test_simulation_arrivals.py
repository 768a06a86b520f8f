"""Arrivals whose rate changes in mid-run."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.scenario.arrivals import instance_arrivals, warp
from planner.scenario.instance import Instance
from planner.scenario.types import EventSpec
from tests.instances import make_instance

moments = st.lists(st.floats(0, 100), max_size=30).map(sorted)
changes = st.lists(st.tuples(st.floats(0, 100), st.floats(0.1, 10)), max_size=5).map(
    lambda found: sorted(found, key=lambda change: change[0])
)


@given(moments, changes)
def test_as_much_time_passes_as_the_factors_say(times: list[float], factors: list[tuple[float, float]]) -> None:
    """What passes until a warped moment is the integral of the factor up to it."""
    warped = list(warp(times, factors))
    assert len(warped) == len(times)
    assert all(before <= after + 1e-9 for before, after in pairwise(warped))
    borders = [(0.0, 1.0), *factors, (float("inf"), 1.0)]
    for time_s, at_s in zip(times, warped, strict=True):
        passed_s = sum(
            (min(end_s, at_s) - start_s) * factor
            for (start_s, factor), (end_s, _) in pairwise(borders)
            if start_s < at_s
        )
        assert passed_s == pytest.approx(time_s, abs=1e-6)


def with_rates(*changes: tuple[float, float], arrivals: str = "poisson") -> Instance:
    instance = make_instance(
        sources={"camera": {"rate_per_s": 10.0, "samples": 4000, "arrivals": arrivals}, "other": {"rate_per_s": 10.0}}
    )
    events = tuple(
        EventSpec.model_validate({"at_s": at_s, "action": "rate", "source": "camera", "rate_per_s": rate_per_s})
        for at_s, rate_per_s in changes
    )
    return instance.model_copy(update={"scenario": instance.scenario.model_copy(update={"events": events})})


def test_a_rate_event_changes_the_rate_from_then_on() -> None:
    times = np.array(list(instance_arrivals(with_rates((100.0, 40.0), (120.0, 5.0)), "camera", seed=3)))
    for start_s, end_s, rate_per_s in ((0, 100, 10.0), (100, 120, 40.0), (120, times[-1], 5.0)):
        expected = (end_s - start_s) * rate_per_s
        assert abs(((times >= start_s) & (times < end_s)).sum() - expected) <= 4 * expected**0.5
    assert len(times) == 4000


def test_constant_arrivals_stay_even_on_both_sides_of_a_change() -> None:
    gaps = np.diff(list(instance_arrivals(with_rates((10.05, 20.0), arrivals="constant"), "camera", seed=0)))
    assert gaps[:100] == pytest.approx([0.1] * 100)
    assert gaps[100] == pytest.approx(0.075)
    assert gaps[101:] == pytest.approx([0.05] * len(gaps[101:]))


def test_events_of_one_source_leave_the_others_alone() -> None:
    plain, changed = with_rates(), with_rates((1.0, 99.0))
    assert list(instance_arrivals(plain, "other", 1)) == list(instance_arrivals(changed, "other", 1))
    assert list(instance_arrivals(plain, "camera", 1)) != list(instance_arrivals(changed, "camera", 1))
