"""Backlog forecasts: the queue that bookings make, against its definition; rates against a steady stream."""

from __future__ import annotations

from math import exp

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.policy.backlog_forecast import BacklogForecast
from planner.policy.types import Booking
from planner.scenario.types import AdaptiveParameters

times = st.integers(0, 40).map(lambda ticks: ticks * 0.05)
priorities = st.sampled_from([1.0, 2.0, 8.0])
bookings = st.lists(st.builds(Booking, times, priorities, st.floats(0.001, 0.4)), max_size=20)


def left_s(booked: list[Booking], at_s: float, priority: float) -> float:
    """Reich's formula: over all spans that end now, the largest excess of the work that came in it over its length."""
    served = [booking for booking in booked if booking.priority >= priority and booking.arrives_s <= at_s]
    excess_s = [
        sum(booking.work_s for booking in served if booking.arrives_s >= begin.arrives_s) - (at_s - begin.arrives_s)
        for begin in served
    ]
    return max([0.0, *excess_s])


def forecast_of(booked: list[Booking], parameters: AdaptiveParameters | None = None) -> BacklogForecast:
    forecast = BacklogForecast(parameters)
    for booking in booked:
        forecast.book(0.0, booking)
    return forecast


@given(bookings, times, priorities)
def test_what_is_left_is_what_came_and_could_not_be_done(booked: list[Booking], at_s: float, priority: float) -> None:
    assert forecast_of(booked).busy_s(at_s, priority) == pytest.approx(left_s(booked, at_s, priority))


@given(bookings, times, times, priorities)
def test_what_a_worker_tells_stands_for_all_that_came_before(
    booked: list[Booking], told_s: float, at_s: float, priority: float
) -> None:
    forecast = forecast_of(booked)
    forecast.told(told_s, [(1.0, 0.3), (8.0, 0.2)])
    known = [Booking(told_s, 1.0, 0.3), Booking(told_s, 8.0, 0.2)]
    known += [booking for booking in booked if booking.arrives_s > told_s]
    assert forecast.busy_s(at_s, priority) == pytest.approx(left_s(known, at_s, priority))


@given(bookings, times, times, priorities)
def test_the_past_can_be_merged(booked: list[Booking], now_s: float, later_s: float, priority: float) -> None:
    forecast = forecast_of(booked)
    at_s = now_s + later_s
    expected_s = forecast.busy_s(at_s, priority)
    forecast.forget(now_s)
    assert forecast.busy_s(at_s, priority) == pytest.approx(expected_s)


@pytest.mark.parametrize("parameters", [AdaptiveParameters(), AdaptiveParameters(most_bookings=7)])
def test_no_more_is_kept_than_a_bound_and_no_work_is_lost(parameters: AdaptiveParameters) -> None:
    most = parameters.most_bookings
    booked = [Booking(10.0 + index, float(1 + index % 3), 2.0) for index in range(10 * most)]
    forecast = forecast_of(booked, parameters)
    assert len(forecast._coming) <= most
    end_s = booked[-1].arrives_s
    assert sum(booking.work_s for booking in forecast._coming) == pytest.approx(20.0 * most)
    assert forecast.busy_s(end_s, 1.0) >= left_s(booked, end_s, 1.0)


def test_rates_are_those_of_the_last_seconds() -> None:
    forecast = BacklogForecast()
    for tick in range(1200):
        now_s = tick * 0.05
        forecast.book(now_s, Booking(now_s, 1.0 if now_s < 30 else 2.0, 0.01))
    newer, older = forecast.rates(60.0)
    assert (newer.priority, older.priority) == (2.0, 1.0)
    assert newer.tasks_per_s == pytest.approx(20.0, rel=0.02)
    assert newer.utilisation == pytest.approx(0.2, rel=0.02)
    assert older.utilisation < 0.01


def test_rates_remember_as_long_as_they_are_told_to() -> None:
    """After 1 s without bookings, the estimate of the rate falls by e^(−1 s / memory)."""
    for memory_s in (0.5, 5.0):
        forecast = BacklogForecast(AdaptiveParameters(rate_memory_s=memory_s))
        for tick in range(2000):
            forecast.book(tick * 0.05, Booking(tick * 0.05, 1.0, 0.01))
        now, later = forecast.rates(100.0), forecast.rates(101.0)
        assert later[0].tasks_per_s / now[0].tasks_per_s == pytest.approx(exp(-1.0 / memory_s), rel=1e-6)
