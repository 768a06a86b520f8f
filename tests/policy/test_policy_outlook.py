"""The queue that bookings make, against its definition; rates against a steady stream."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.policy.outlook import MOST, Outlook
from planner.policy.types import Booking

times = st.integers(0, 40).map(lambda ticks: ticks * 0.05)
priorities = st.sampled_from([1.0, 2.0, 8.0])
bookings = st.lists(st.builds(Booking, times, priorities, st.floats(0.001, 0.4)), max_size=20)


def left_s(booked: list[Booking], at_s: float, priority: float) -> float:
    """By Reich's formula: of all spans that end now, the largest excess of the work that came in it over its length."""
    served = [booking for booking in booked if booking.priority >= priority and booking.arrives_s <= at_s]
    excess_s = [
        sum(booking.work_s for booking in served if booking.arrives_s >= begin.arrives_s) - (at_s - begin.arrives_s)
        for begin in served
    ]
    return max([0.0, *excess_s])


def outlook_of(booked: list[Booking]) -> Outlook:
    outlook = Outlook()
    for booking in booked:
        outlook.book(0.0, booking)
    return outlook


@given(bookings, times, priorities)
def test_what_is_left_is_what_came_and_could_not_be_done(booked: list[Booking], at_s: float, priority: float) -> None:
    assert outlook_of(booked).busy_s(at_s, priority) == pytest.approx(left_s(booked, at_s, priority))


@given(bookings, times, times, priorities)
def test_what_a_worker_tells_stands_for_all_that_came_before(
    booked: list[Booking], told_s: float, at_s: float, priority: float
) -> None:
    outlook = outlook_of(booked)
    outlook.told(told_s, [(1.0, 0.3), (8.0, 0.2)])
    known = [Booking(told_s, 1.0, 0.3), Booking(told_s, 8.0, 0.2)]
    known += [booking for booking in booked if booking.arrives_s > told_s]
    assert outlook.busy_s(at_s, priority) == pytest.approx(left_s(known, at_s, priority))


@given(bookings, times, times, priorities)
def test_the_past_can_be_put_together(booked: list[Booking], now_s: float, later_s: float, priority: float) -> None:
    outlook = outlook_of(booked)
    at_s = now_s + later_s
    expected_s = outlook.busy_s(at_s, priority)
    outlook.forget(now_s)
    assert outlook.busy_s(at_s, priority) == pytest.approx(expected_s)


def test_no_more_is_kept_than_a_bound_and_no_work_is_lost() -> None:
    booked = [Booking(10.0 + index, float(1 + index % 3), 2.0) for index in range(10 * MOST)]
    outlook = outlook_of(booked)
    assert len(outlook._coming) <= MOST
    end_s = booked[-1].arrives_s
    assert sum(booking.work_s for booking in outlook._coming) == pytest.approx(20.0 * MOST)
    assert outlook.busy_s(end_s, 1.0) >= left_s(booked, end_s, 1.0)


def test_rates_are_those_of_the_last_seconds() -> None:
    outlook = Outlook()
    for tick in range(1200):
        now_s = tick * 0.05
        outlook.book(now_s, Booking(now_s, 1.0 if now_s < 30 else 2.0, 0.01))
    newer, older = outlook.rates(60.0)
    assert (newer.priority, older.priority) == (2.0, 1.0)
    assert newer.tasks_per_s == pytest.approx(20.0, rel=0.02)
    assert newer.utilisation == pytest.approx(0.2, rel=0.02)
    assert older.utilisation < 0.01
