from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.profiling.timing import Rounds, choose_segments, fit_costs, noise_warnings


def synthetic(
    block_s: list[float], overhead_s: float, *, rounds: int = 9, noise: float = 0.0, drift: float = 0.0
) -> Rounds:
    """Return rounds of a machine that follows the cost model exactly, except for noise and drift."""
    rng = np.random.default_rng(3)
    result = Rounds(*choose_segments(len(block_s), rng))
    for number in range(rounds):
        speed = (1 + drift * number / rounds) * (1 + noise * rng.standard_normal())
        times = [speed * time_s for time_s in block_s]
        segment_s = {
            (first, last): speed * overhead_s + sum(times[first : last + 1])
            for first, last in result.fitted + result.held_out
        }
        result.add(times, speed * overhead_s + sum(times), segment_s)
    return result


@given(st.integers(1, 30), st.integers(0, 2**32))
def test_held_out_segments_are_not_used(length: int, seed: int) -> None:
    fitted, held_out = choose_segments(length, np.random.default_rng(seed))
    both = fitted + held_out
    assert len(both) == len(set(both))
    assert all(0 <= first <= last < length for first, last in both)
    assert (0, length - 1) not in both
    assert bool(held_out) == (length > 1)


@given(st.lists(st.floats(1e-4, 1), min_size=1, max_size=12), st.floats(0, 1e-2))
def test_exact_times_recover_their_costs(block_s: list[float], overhead_s: float) -> None:
    fitted = fit_costs(synthetic(block_s, overhead_s))
    assert fitted.mean_s == pytest.approx(block_s)
    assert fitted.std_s == pytest.approx(0, abs=1e-12)
    assert fitted.stage_overhead_s == pytest.approx(overhead_s, abs=1e-9)
    if len(block_s) > 1:
        assert fitted.segment_error is not None
        assert fitted.segment_error.p95 < 1e-6
    else:
        assert fitted.segment_error is None


@pytest.mark.parametrize("length", [1, 4])
def test_the_interval_is_as_wide_as_the_machine_changed(length: int) -> None:
    block_s = [1.0] * length
    assert fit_costs(synthetic(block_s, 0.0)).width == pytest.approx(0, abs=1e-6)
    steady, drifting, fast = (fit_costs(synthetic(block_s, 0.0, rounds=40, drift=drift)) for drift in (0.02, 0.2, 0.8))
    assert steady.width < drifting.width < fast.width
    changed = np.log([1.0, 1.2]) - np.log(1.1)  # from the begin of the measurement to its end, relative to its middle
    assert drifting.width > np.abs(changed).max()


def test_the_interval_contains_what_held_out_segments_are_off_by() -> None:
    rounds = synthetic([1.0, 1.0, 1.0, 1.0], 0.0)
    for times in rounds.segment_s:
        for segment in rounds.held_out:
            times[segment] *= 1.25
    assert fit_costs(rounds).width > np.log(1.25)


def test_a_stage_that_costs_more_than_its_blocks_shows_as_error() -> None:
    rounds = synthetic([1.0, 1.0, 1.0, 1.0], 0.0)
    for times in rounds.segment_s:
        for segment in rounds.held_out:
            times[segment] *= 1.25
    error = fit_costs(rounds).segment_error
    assert error is not None
    assert error.median == pytest.approx(0.2)
    assert error.segments == len(rounds.held_out)
    assert any("held-out" in warning for warning in noise_warnings(rounds, error))


def test_costs_are_robust_against_a_disturbed_round() -> None:
    rounds = synthetic([0.1, 0.2, 0.3], 0.01)
    rounds.add([9.0, 9.0, 9.0], 27.0, dict.fromkeys(rounds.fitted + rounds.held_out, 9.0))
    fitted = fit_costs(rounds)
    assert fitted.mean_s == pytest.approx([0.1, 0.2, 0.3])
    assert fitted.std_s == pytest.approx(0)
    assert fitted.stage_overhead_s == pytest.approx(0.01)


def test_the_spread_is_that_of_the_rounds() -> None:
    fitted = fit_costs(synthetic([1.0, 2.0], 0.0, rounds=2000, noise=0.05))
    assert fitted.std_s == pytest.approx([0.05, 0.1], rel=0.1)


def test_a_quiet_machine_causes_no_warning() -> None:
    rounds = synthetic([0.1, 0.2], 0.01, noise=0.001)
    assert noise_warnings(rounds, fit_costs(rounds).segment_error) == []


def test_a_noisy_machine_causes_a_warning() -> None:
    rounds = synthetic([0.1, 0.2], 0.01, noise=0.2)
    assert any("noisy" in warning for warning in noise_warnings(rounds, None))


def test_a_machine_that_slows_down_causes_a_warning() -> None:
    rounds = synthetic([0.1, 0.2], 0.01, rounds=30, drift=0.3)
    assert any("slower" in warning for warning in noise_warnings(rounds, None))


def test_a_busy_machine_causes_a_warning() -> None:
    rounds = synthetic([0.1, 0.2], 0.01)
    assert noise_warnings(rounds, None, 0.05) == []
    assert noise_warnings(rounds, None, 0.4) == ["busy machine: other programs used the processor for 40% of the time"]
