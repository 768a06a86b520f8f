"""Where a sample's time goes: legs that add up to its delay, and the one that explains a difference."""

from __future__ import annotations

import pytest

from planner.plan.journey import LegSite
from planner.simulation.simulator import simulate
from planner.trace.records import BlockRecord, Record, SampleRecord, TransferRecord
from planner.validation.legs import BusyTime, LegComparison, Legs, LegTimes, Spent, compare_legs, explain, latencies
from tests.execution.rig import SPLIT, small_instance, small_plan

INSTANCE = small_instance(samples=40)
A0, CUT1, B12 = (
    LegSite("a", 0, 0, transfer=False),
    LegSite("wifi", 1, 1, transfer=True),
    LegSite("b", 1, 2, transfer=False),
)
CUT3 = LegSite("wifi", 3, 3, transfer=True)


def run(*extra: Record) -> list[Record]:
    """One sample: waits 1 s, block 0 at a, 2 s on the way, waits 3 s, blocks 1 and 2 at b with a pause of 1 s, home."""
    return [
        BlockRecord("a", "urgent", 0, 0, 11.0, 12.0),
        TransferRecord("wifi", "a", "b", "urgent", 0, 1, 100, 12.5, 13.999),
        BlockRecord("b", "urgent", 0, 1, 17.0, 18.0),
        BlockRecord("b", "urgent", 0, 2, 19.0, 20.0),
        TransferRecord("wifi", "b", "a", "urgent", 0, 3, 100, 20.0, 20.499),
        SampleRecord("urgent", 0, 10.0, 21.0, "completed"),
        *extra,
    ]


def times(records: list[Record]) -> Legs:
    legs = LegTimes(latencies(INSTANCE))
    for record in records:
        legs.add(record)
    return legs.result()


def measured_legs(records: list[Record]) -> dict[LegSite, Spent]:
    legs = compare_legs(INSTANCE.sources, {}, times(records))["urgent"]
    assert all(leg.predicted == (0.0, 0.0) for leg in legs)
    return {leg.site: Spent(*(round(time_s, 9) for time_s in leg.measured)) for leg in legs}


def test_legs_wait_first_and_then_work_and_latency_is_part_of_the_way() -> None:
    assert measured_legs(run()) == {A0: (1.0, 1.0), CUT1: (0.5, 1.5), B12: (4.0, 2.0), CUT3: (0.5, 0.5)}
    assert list(measured_legs(run())) == [A0, CUT1, B12, CUT3]


def test_what_two_attempts_did_at_once_counts_once_and_a_failed_sample_not_at_all() -> None:
    again = BlockRecord("c", "urgent", 0, 0, 11.5, 12.2)
    late = BlockRecord("c", "urgent", 0, 1, 30.0, 31.0)
    legs = measured_legs(run(again, late, SampleRecord("urgent", 1, 0.0, 9.0, "failed", "b left")))
    assert legs[LegSite("c", 0, 0, transfer=False)] == (0.0, 0.2)
    assert sum(sum(spent) for spent in legs.values()) == pytest.approx(11.0)


@pytest.mark.parametrize("plan", [SPLIT, small_plan([("a", 0, 2)]), small_plan([("b", 0, 1), ("a", 2, 2)])])
def test_legs_of_a_simulated_run_add_up_to_the_mean_delays(plan: object) -> None:
    records, _ = simulate(INSTANCE, policy="planned", plan=plan, seed=1)  # type: ignore[arg-type]
    for source, legs in compare_legs(INSTANCE.sources, times(records), times(records)).items():
        delays = [r.delay_s for r in records if isinstance(r, SampleRecord) and r.source == source]
        assert sum(sum(leg.predicted) for leg in legs) == pytest.approx(sum(delays) / len(delays))
        assert all(leg.difference_s == 0 for leg in legs)


def leg(place: LegSite, predicted: tuple[float, float], measured: tuple[float, float]) -> LegComparison:
    return LegComparison(place, Spent(*predicted), Spent(*measured))


def test_the_leg_that_explains_most_is_named() -> None:
    same, slow = leg(A0, (0.01, 0.02), (0.01, 0.021)), leg(B12, (0.0, 0.04), (0.002, 0.06))
    text = explain([same, slow], 0.023, 0.07)
    assert text == "22.0 of 23.0 ms: computing takes longer at b: blocks 1-2, 60.0 ms instead of 40.0 ms"
    queue = leg(A0, (0.01, 0.02), (0.05, 0.021))
    assert explain([queue, slow], 0.063, 0.07) == "41.0 of 63.0 ms: samples wait longer at a: block 0"
    quick = leg(CUT1, (0.0, 0.03), (0.0, 0.01))
    assert explain([same, quick], -0.019, 0.07) == (
        "20.0 of 19.0 ms: transfers take less time at wifi: cut 1, 10.0 ms instead of 30.0 ms"
    )
    assert explain([same], 0.001, 0.07) == ""


def test_a_resource_is_busy_while_it_carries_anything() -> None:
    spans = [(0.0, 1.0), (0.5, 2.0), (3.0, 4.0), (3.2, 3.4)]
    records = [TransferRecord("wifi", "a", "b", "urgent", k, 1, 100, *span) for k, span in enumerate(spans)]
    busy = BusyTime(["wifi", "lan"])
    for record in records:
        busy.add(record)
    assert busy.shares(10.0) == {"wifi": pytest.approx(0.3), "lan": 0.0}
