from __future__ import annotations

import heapq
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from planner.plan.surrogate import Classes, congestion, congestion_slope, kappa, numbers, weighted_number

Array = NDArray[np.float64]


def simulate_preemptive(rate: Array, level: list[int], mean_s: float, *, samples: int, seed: int) -> Array:
    """Mean number in the system of each class of a preemptive-resume priority M/M/1; an independent reference."""
    random = np.random.default_rng(seed)
    end_s = samples / rate.sum()
    arrivals = sorted(
        (time_s, next_level)
        for lambda_, next_level in zip(rate, level, strict=True)
        for time_s in np.cumsum(random.exponential(1 / lambda_, size=int(2 * end_s * lambda_)))
        if time_s < end_s
    )
    count, area = np.zeros(len(rate)), np.zeros(len(rate))
    order = itertools.count()
    waiting: list[tuple[int, int, float]] = []
    now_s = 0.0
    for time_s, next_level in arrivals:
        while waiting and now_s < time_s:
            first, ticket, left_s = heapq.heappop(waiting)
            worked_s = min(left_s, time_s - now_s)
            area += count * worked_s
            now_s += worked_s
            if worked_s < left_s:
                heapq.heappush(waiting, (first, ticket, left_s - worked_s))
            else:
                count[first] -= 1
        now_s = time_s
        count[next_level] += 1
        heapq.heappush(waiting, (next_level, next(order), random.exponential(mean_s)))
    return np.asarray(area / end_s)


def test_the_nested_sum_is_what_a_preemptive_queue_holds() -> None:
    rate = np.array([2.0, 1.5, 3.0])
    classes = Classes.of(np.array([5.0, 2.0, 1.0]))
    load = (rate * 0.1)[:, None]
    held = simulate_preemptive(rate, [0, 1, 2], 0.1, samples=200_000, seed=1)
    assert numbers(classes, load, kappa(1.0)) == pytest.approx(held, rel=0.05)


def test_sources_of_one_priority_share_a_class() -> None:
    classes = Classes.of(np.array([1.0, 8.0, 1.0]))
    assert classes.of_source.tolist() == [1, 0, 1]
    assert classes.weight.tolist() == [7.0, 1.0]


loads = st.lists(st.lists(st.floats(0, 0.2), min_size=2, max_size=2), min_size=4, max_size=4)


@given(loads, st.lists(st.sampled_from([1.0, 2.0, 5.0]), min_size=4, max_size=4), st.floats(0, 2))
def test_numbers_of_sources_add_up_to_the_weighted_sum(
    load: list[list[float]], priority: list[float], cv: float
) -> None:
    classes, utilisation = Classes.of(np.array(priority)), np.array(load)
    held = numbers(classes, utilisation, kappa(cv))
    assert np.array(priority) @ held == pytest.approx(
        weighted_number(classes, utilisation, kappa(cv)), rel=1e-9, abs=1e-12
    )


@given(st.floats(0, 0.98), st.floats(0, 0.98), st.floats(0.5, 3))
def test_congestion_lies_over_its_tangents(at: float, other: float, factor: float) -> None:
    point, elsewhere = np.array(at), np.array(other)
    tangent = congestion(point, factor) + congestion_slope(point, factor) * (elsewhere - point)
    assert congestion(elsewhere, factor) >= tangent - 1e-9 * (1 + abs(tangent))


def test_an_overloaded_resource_holds_infinitely_many() -> None:
    assert np.isinf(congestion(np.array([1.0, 1.2]), 1.0)).all()
