from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.plan.journey import FRAGMENT_BYTES
from planner.scenario.instance import Hop, NetworkPath
from planner.simulation.event_heap import EventHeap
from planner.simulation.network import Leg, NetworkModel, legs

RATE = 1e6


def path(*resources: str, latency_s: float = 0.0) -> NetworkPath:
    return NetworkPath(
        hops=tuple(
            Hop(sender=f"{index}", receiver=f"{index + 1}", resource=name, bytes_per_s=RATE, latency_s=latency_s)
            for index, name in enumerate(resources)
        )
    )


def carry(
    transfers: list[tuple[float, float, float]], way: NetworkPath
) -> tuple[list[float], list[tuple[float, float, int]]]:
    """Carry transfers ``(at_s, size_bytes, priority)``; give delivery times and what was occupied when by which."""
    heap = EventHeap()
    occupied: list[tuple[float, float, int]] = []
    arrived = [float("nan")] * len(transfers)

    def note(who: int, _hop: Leg, start_s: float, end_s: float) -> None:
        occupied.append((start_s, end_s, who))

    network = NetworkModel(heap, {hop.resource for hop in way.hops}, arrived.__setitem__, note)

    for index, (at_s, size, priority) in enumerate(transfers):
        heap.at(at_s, network.submit, legs(way), size, priority, index)
    while heap.next_s < float("inf"):
        heap.run_next()
    return arrived, occupied


def test_one_transfer_takes_its_bytes_and_the_latency() -> None:
    arrived, occupied = carry([(1.0, 500_000, 1.0)], path("lan", latency_s=0.01))
    assert arrived == [pytest.approx(1.51)]
    assert len(occupied) == 1
    assert occupied[0] == pytest.approx((1.0, 1.5, 0))


def test_hops_store_and_forward() -> None:
    arrived, _ = carry([(0.0, 500_000, 1.0)], path("a", "b", latency_s=0.01))
    assert arrived == [pytest.approx(1.02)]


def test_urgent_data_waits_for_one_fragment_and_the_rest_goes_on_after_it() -> None:
    fragment_s = FRAGMENT_BYTES / RATE
    arrived, _ = carry([(0.0, 10 * FRAGMENT_BYTES, 1.0), (2.5 * fragment_s, FRAGMENT_BYTES, 8.0)], path("lan"))
    assert arrived == [pytest.approx(11 * fragment_s), pytest.approx(4 * fragment_s)]


def test_the_last_fragment_is_not_interrupted() -> None:
    fragment_s = FRAGMENT_BYTES / RATE
    arrived, _ = carry([(0.0, 2 * FRAGMENT_BYTES, 1.0), (1.5 * fragment_s, FRAGMENT_BYTES, 8.0)], path("lan"))
    assert arrived == [pytest.approx(2 * fragment_s), pytest.approx(3 * fragment_s)]


def test_equals_are_served_first_come_first_served() -> None:
    arrived, _ = carry([(0.0, 300_000, 1.0), (0.1, 1_000, 1.0)], path("lan"))
    assert arrived == [pytest.approx(0.3), pytest.approx(0.301)]


@given(
    st.lists(
        st.tuples(st.floats(0, 2), st.integers(1, 400_000), st.sampled_from([1.0, 2.0, 8.0])), min_size=1, max_size=25
    )
)
def test_a_resource_works_whenever_there_is_work_and_loses_no_byte(transfers: list[tuple[float, int, float]]) -> None:
    arrived, _ = carry([(at_s, float(size), priority) for at_s, size, priority in transfers], path("lan"))
    # The end of the busy periods of a work-conserving server does not depend on its order of service.
    end_s = 0.0
    for at_s, size, _ in sorted(transfers):
        end_s = max(end_s, at_s) + size / RATE
    assert max(arrived) == pytest.approx(end_s)
    top = max(priority for _, _, priority in transfers)
    firsts = [(at_s, size, at) for (at_s, size, p), at in zip(transfers, arrived, strict=True) if p == top]
    # The most urgent class waits for itself, and for one fragment of another at the start of its busy periods.
    end_s = 0.0
    for at_s, size, at in sorted(firsts, key=lambda transfer: transfer[0]):
        end_s = max(end_s, at_s + FRAGMENT_BYTES / RATE) + size / RATE
        assert at <= end_s + 1e-9
