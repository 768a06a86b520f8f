from __future__ import annotations

import itertools
import subprocess
import sys
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.scenario.arrivals import arrival_times, source_rng
from planner.scenario.types import SourceSpec

Arrivals = Literal["poisson", "constant", "batch", "trace"]


def source(arrivals: Arrivals, samples: int = 5, rate_per_s: float | None = 4.0) -> SourceSpec:
    return SourceSpec(worker="a", models=("m",), rate_per_s=rate_per_s, samples=samples, arrivals=arrivals)


def times(spec: SourceSpec, seed: int = 1, index: int = 0, trace: list[float] | None = None) -> list[float]:
    return list(arrival_times(spec, source_rng(seed, index), trace))


def test_constant_arrivals_are_evenly_spaced() -> None:
    assert times(source("constant")) == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_a_batch_is_there_at_the_start() -> None:
    assert times(source("batch", samples=3, rate_per_s=None)) == [0.0, 0.0, 0.0]


def test_a_trace_is_followed_and_cut_to_the_samples() -> None:
    trace = [0.5, 0.5, 2.0, 3.0]
    assert times(source("trace", samples=3), trace=trace) == [0.5, 0.5, 2.0]
    assert times(source("trace", samples=10), trace=trace) == trace


def test_poisson_arrivals_have_the_rate_and_the_spread() -> None:
    gaps = np.diff([0.0, *times(source("poisson", samples=20_000))])
    # Mean and standard deviation of exponential gaps are both 1/4 s; four standard errors are allowed.
    assert gaps.mean() == pytest.approx(0.25, rel=4 / np.sqrt(20_000))
    assert gaps.std() == pytest.approx(0.25, rel=8 / np.sqrt(20_000))
    assert np.corrcoef(gaps[1:], gaps[:-1])[0, 1] == pytest.approx(0.0, abs=4 / np.sqrt(20_000))


def test_a_seed_tells_the_whole_story() -> None:
    assert times(source("poisson"), seed=7) == times(source("poisson"), seed=7)
    assert times(source("poisson"), seed=7) != times(source("poisson"), seed=8)


def test_sources_have_streams_of_their_own() -> None:
    first, second = (np.diff(times(source("poisson", samples=5000), index=index)) for index in (0, 1))
    assert np.corrcoef(first, second)[0, 1] == pytest.approx(0.0, abs=4 / np.sqrt(5000))


@given(
    st.sampled_from(["poisson", "constant", "batch"]),
    st.integers(1, 50),
    st.floats(1e-3, 1e4),
    st.integers(0, 2**32),
)
def test_times_never_decrease(arrivals: Arrivals, samples: int, rate_per_s: float, seed: int) -> None:
    found = times(source(arrivals, samples, rate_per_s), seed)
    assert len(found) == samples
    assert all(earlier <= later for earlier, later in itertools.pairwise([0.0, *found]))


def test_what_is_missing_is_said() -> None:
    with pytest.raises(ValueError, match="poisson need a rate"):
        times(source("poisson", rate_per_s=None))
    with pytest.raises(ValueError, match="need the trace's times"):
        times(source("trace"))


@pytest.mark.slow
def test_an_agent_loads_no_library_for_people() -> None:
    code = (
        "import sys, planner.scenario.arrivals, planner.scenario.instance;"
        "sys.exit(str({'pint', 'ruamel.yaml', 'joblib'} & set(sys.modules) or ''))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.stderr == "\n"
