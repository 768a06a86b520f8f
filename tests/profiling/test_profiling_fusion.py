"""Savings by joining blocks, fitted to segments that were run as one session."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.profiling.fusion import Times, choose_fused, fit_savings
from planner.profiling.measure import measure
from tests.model.decoder_models import export
from tests.profiling.small_chain import SmallModel


@given(
    savings=st.lists(st.floats(-1e-3, 1e-3), min_size=1, max_size=11),
    exits=st.sets(st.integers(1, 11), max_size=2),
    seed=st.integers(0, 99),
)
def test_savings_that_add_up_are_found_and_predict_what_was_held_out(
    savings: list[float], exits: set[int], seed: int
) -> None:
    length = len(savings) + 1
    segments = choose_fused(length, exits, np.random.default_rng(seed))
    everything = [*segments.fitted, *segments.held_out]
    assert len(set(everything)) == len(everything)
    assert not any(first < cut <= last for first, last in everything if last > first + 1 for cut in exits)
    times = {(first, last): Times(0.1, 0.1 - sum(savings[first:last])) for first, last in everything}
    found, error = fit_savings(length, segments, times)
    assert found == pytest.approx(savings, abs=1e-9)
    if error is None:
        assert not segments.held_out
    else:
        assert error.segments == len(segments.held_out)
        assert error.p95 == pytest.approx(0.0, abs=1e-6)
        apart = [abs(times[segment].apart_s / times[segment].fused_s - 1) for segment in segments.held_out]
        assert error.blocks_median == pytest.approx(np.median(apart))


def test_segments_correct_pairs_that_do_not_add_up() -> None:
    segments = choose_fused(4, (), np.random.default_rng(0))
    times = {
        (first, last): Times(0.1, 0.1 - 2e-3 * (last - first) if last > first + 1 else 0.099)
        for first, last in (*segments.fitted, *segments.held_out)
    }
    found, error = fit_savings(4, segments, times)
    assert 3e-3 < sum(found) < 6e-3
    assert error is not None
    assert error.median < error.blocks_median


def test_savings_are_unknown_unless_all_pairs_were_measured() -> None:
    segments = choose_fused(5, (), np.random.default_rng(0))
    times = dict.fromkeys([*segments.fitted[1:], *segments.held_out], Times(0.2, 0.1))
    assert fit_savings(5, segments, times) == ((), None)


def test_a_measured_profile_says_how_well_it_predicts_joined_blocks() -> None:
    found = measure(SmallModel(length=6), device_class="here", rounds=3).fusion_error
    assert found is not None
    assert found.segments == 3  # of the six longer ones that do not cross the exit
    assert found.median >= 0


def test_blocks_that_keep_state_are_not_fused() -> None:
    measured = measure(export("llama-fp32", 3), device_class="here", rounds=3, budget_s=1.0)
    assert measured.fusion_saving_s == ()
    assert measured.fusion_error is None
