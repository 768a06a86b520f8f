"""The window keeps a medium of any rate and delay busy with a short queue; all in virtual time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.execution.wire.send_window import PROBE_BYTES, QUEUED_S, Departure, SendWindow


@dataclass
class Flow:
    """The throughput and queueing delay of a flow that always has more to send."""

    bytes_per_s: float
    """Throughput in the second half."""
    waited_s: float
    """Longest wait of a fragment of the second half before the medium."""


def flow(
    bytes_per_s: Callable[[float], float],
    round_trip_s: Callable[[float], float],
    until_s: float,
    acknowledged_s: Callable[[float], float] = lambda at_s: at_s,
) -> Flow:
    """Send continuously through a medium with a queue; ``acknowledged_s`` maps arrival to acknowledgement."""
    window, flying = SendWindow(), deque[tuple[float, Departure]]()
    now_s = free_s = last_s = 0.0
    drains, came_bytes, waited_s = False, 0, 0.0
    while now_s < until_s:
        while True:
            most_bytes, own_bytes = window.bytes("b"), sum(gone.size_bytes for _, gone in flying)
            if own_bytes >= most_bytes or (drains and flying):
                drains = drains or window.stale("b", now_s)
                break
            size_bytes = PROBE_BYTES if drains else int(max(most_bytes / 4, (most_bytes - own_bytes) / 2))
            drains = False
            gone = window.sent("b", size_bytes, now_s, limited=True, alone=not flying)
            if now_s > until_s / 2:
                waited_s = max(waited_s, free_s - now_s)
            free_s = max(free_s, now_s) + size_bytes / bytes_per_s(now_s)
            last_s = max(last_s, acknowledged_s(free_s + round_trip_s(now_s)))
            flying.append((last_s, gone))
        now_s, gone = flying.popleft()
        window.acknowledged(gone, now_s)
        if now_s > until_s / 2:
            came_bytes += gone.size_bytes
    return Flow(came_bytes / (now_s - until_s / 2), waited_s)


@given(st.floats(1e6, 2e9), st.floats(1e-4, 0.1))
def test_a_medium_of_any_rate_and_delay_is_kept_busy_with_a_short_queue(rate: float, round_trip_s: float) -> None:
    found = flow(lambda _: rate, lambda _: round_trip_s, 3.0)
    most = 2**26 / (round_trip_s + 2**26 / rate / 4)  # the largest window there is
    assert found.bytes_per_s > 0.85 * min(rate, most)
    assert found.waited_s < max(2 * QUEUED_S + round_trip_s, 2 * 2**14 / rate)


@pytest.mark.parametrize("factor", [0.1, 10.0])
def test_the_window_follows_a_medium_whose_rate_changes(factor: float) -> None:
    found = flow(lambda at_s: 6e6 if at_s < 2.0 else 6e6 * factor, lambda _: 0.002, 8.0)
    assert found.bytes_per_s > 0.85 * 6e6 * factor
    assert found.waited_s < max(0.015, 2 * 2**14 / (6e6 * factor))


def test_the_window_follows_a_round_trip_that_becomes_longer() -> None:
    found = flow(lambda _: 1e7, lambda at_s: 0.001 if at_s < 2.0 else 0.02, 60.0)
    assert found.bytes_per_s > 0.9e7


def test_a_receiver_that_waits_for_a_processor_does_not_look_like_a_fast_medium() -> None:
    def acknowledged_s(at_s: float) -> float:
        """Return when the receiver, which has no processor for a fifth of the time, acknowledges."""
        return at_s if at_s % 0.1 < 0.08 else at_s - at_s % 0.1 + 0.1

    found = flow(lambda _: 6e6, lambda _: 0.001, 8.0, acknowledged_s)
    assert found.bytes_per_s > 0.9 * 0.8 * 6e6
    assert found.waited_s < 0.015
