"""When a plan is made again: real drift only, not too often, and not for the worse."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.errors import UsageError
from planner.plan.drift import Change, DriftRules, DriftWatch, Load, Window

RULES = DriftRules(drift=1.3, interval_s=60.0, window_s=15.0, worse=1.1)
PLANNED = Load({"gate": 10.0, "yard": 20.0})


def window(
    gate: float = 10.0, yard: float = 20.0, *, delay_s: float = 0.1, failed: int = 0, **slowness: float
) -> Window:
    return Window(15.0, {"gate": round(gate * 15), "yard": round(yard * 15)}, slowness, delay_s, failed)


def change(watch: DriftWatch, now_s: float, seen: Window) -> Load:
    decision = watch.look(now_s, seen)
    assert isinstance(decision, Change)
    watch.changed(now_s, decision.load, seen)
    return decision.load


def test_what_is_as_planned_changes_nothing() -> None:
    watch = DriftWatch(RULES, PLANNED)
    for turn in range(100):
        assert watch.look(15.0 * turn, window(gate=10 + turn % 3 - 1)) == "keep"


def test_a_rate_that_drifts_leads_to_a_plan_for_what_was_measured() -> None:
    watch = DriftWatch(RULES, PLANNED)
    decision = watch.look(15.0, window(yard=40.0))
    assert isinstance(decision, Change)
    assert decision.load.rates_per_s == {"gate": 10.0, "yard": 40.0}
    assert decision.reasons == ("yard has 40 samples/s in place of 20",)


def test_few_samples_prove_nothing() -> None:
    rare = DriftWatch(RULES, Load({"gate": 0.2}))
    assert rare.look(15.0, Window(15.0, {"gate": 6})) == "keep"  # 3 are expected
    assert rare.look(30.0, Window(15.0, {})) == "keep"
    assert rare.look(45.0, Window(15.0, {"gate": 30})) != "keep"


def test_a_source_that_is_silent_drifts_too_and_keeps_a_rate() -> None:
    decision = DriftWatch(RULES, PLANNED).look(15.0, window(yard=0.0))
    assert isinstance(decision, Change)
    assert 0 < decision.load.rates_per_s["yard"] < 0.1


def test_slowness_adds_up_over_plans() -> None:
    watch = DriftWatch(RULES, PLANNED)
    assert change(watch, 0.0, window(office=2.0)).slowness == {"office": 2.0}
    assert watch.look(15.0, window(office=1.0)) == "keep"  # the plan is for its speed now
    assert change(watch, 75.0, window(office=0.5)).slowness == {"office": 1.0}


def test_changes_keep_their_distance() -> None:
    watch = DriftWatch(RULES, PLANNED)
    change(watch, 15.0, window(yard=40.0))
    assert watch.look(30.0, window(yard=80.0)) == "keep"
    assert watch.look(45.0, window(yard=80.0)) == "keep"
    assert isinstance(watch.look(75.0, window(yard=80.0)), Change)


@pytest.mark.parametrize("worse", [window(yard=40.0, delay_s=0.12), window(yard=40.0, failed=1)])
def test_a_change_for_the_worse_is_taken_back_and_not_tried_again_soon(worse: Window) -> None:
    watch = DriftWatch(RULES, PLANNED)
    change(watch, 15.0, window(yard=40.0))
    assert watch.look(30.0, worse) == "roll back"
    drifting = window(yard=40.0)
    assert [watch.look(30.0 + 15 * turn, drifting) == "keep" for turn in range(1, 9)] == [True] * 7 + [False]


def test_a_change_for_the_better_stays() -> None:
    watch = DriftWatch(RULES, PLANNED)
    change(watch, 15.0, window(yard=40.0))
    assert watch.look(30.0, window(yard=40.0, delay_s=0.105)) == "keep"
    assert watch.look(45.0, window(yard=40.0, delay_s=9.0)) == "keep"  # the trial is over


def test_what_was_refused_is_not_tried_again_at_once() -> None:
    watch = DriftWatch(RULES, PLANNED)
    assert isinstance(watch.look(15.0, window(yard=40.0)), Change)
    watch.refused(15.0)
    assert watch.look(75.0, window(yard=40.0)) == "keep"
    assert isinstance(watch.look(135.0, window(yard=40.0)), Change)


def test_a_plan_by_the_user_begins_anew() -> None:
    watch = DriftWatch(RULES, PLANNED)
    change(watch, 15.0, window(yard=40.0))
    watch.reset(Load({"gate": 10.0, "yard": 40.0}), 20.0)
    assert watch.look(30.0, window(yard=40.0, delay_s=9.0)) == "keep"


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0.001, 1.0), st.booleans()), max_size=60))
def test_never_more_often_than_told_and_each_trial_ends_in_one_window(seen: list[tuple[float, float, bool]]) -> None:
    watch, last_s, on_trial = DriftWatch(RULES, PLANNED), -1e9, False
    for turn, (yard, delay_s, refused) in enumerate(seen):
        now_s, one = 15.0 * turn, window(yard=yard, delay_s=delay_s)
        decision = watch.look(now_s, one)
        if isinstance(decision, Change):
            assert now_s - last_s >= RULES.interval_s
            last_s, on_trial = now_s, not refused
            watch.refused(now_s) if refused else watch.changed(now_s, decision.load, one)
        else:
            assert decision == "keep" or on_trial
            on_trial = False


@pytest.mark.parametrize("wrong", [{"drift": 1.0}, {"worse": 0.9}, {"interval_s": 0.0}, {"window_s": float("nan")}])
def test_rules_that_are_none_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        DriftRules(**wrong)
