"""Times of batches in profiles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from planner.errors import ProfileError
from planner.model.load import load_for_batches
from planner.profiling.batches import BatchCosts
from planner.profiling.measure import measure
from planner.profiling.measure_batches import check_sizes, held_out
from tests.model.batch_models import mixing, small_gpt2, small_model


def test_batches_are_measured_and_never_take_less_time_than_smaller_ones() -> None:
    profile = measure(small_model(), device_class="here", rounds=3, budget_s=1.0, batches=(8, 2))
    costs = profile.batches
    assert costs is not None
    assert costs.sizes == (1, 2, 8)
    assert len(costs.relative) == len(profile.blocks)
    assert costs.error is not None
    assert costs.error.sizes == (5,)
    assert (np.diff(costs.relative, axis=1) >= 0).all()
    assert "batches of 1" in "\n".join(str(part) for part in profile.contents())
    assert measure(small_model(), device_class="here", rounds=3, budget_s=1.0).batches is None


@pytest.mark.parametrize("model", ["mixing", "single"])
def test_a_profile_says_why_it_has_no_times_of_batches(model: str, tmp_path: Path) -> None:
    if model == "mixing":
        loaded, words = load_for_batches(mixing(tmp_path / "m.onnx"), axes={"n": 1}), "otherwise than alone"
    else:
        loaded, words = load_for_batches(small_gpt2(), axes={"batch": 1}, max_blocks=3), "loaded for single samples"
        loaded = loaded.__class__(**{**loaded.__dict__, "single": "it was loaded for single samples"})
    profile = measure(loaded, device_class="here", rounds=3, budget_s=0.5, batches=(1, 2))
    assert profile.batches is None
    assert [text for text in profile.environment["warnings"] if words in text]


def test_times_between_sizes_and_the_least_per_sample() -> None:
    costs = BatchCosts(sizes=(1, 2, 4), relative=((1.0, 1.5, 2.5), (1.0, 2.0, 4.8)))
    assert costs.times(3).tolist() == pytest.approx([2.0, 3.4])
    assert costs.least(4).tolist() == pytest.approx([0.625, 1.0])
    assert costs.least(3).tolist() == pytest.approx([2 / 3, 1.0])
    assert costs.least(1).tolist() == [1.0, 1.0]
    for size in np.linspace(1, 4, 31):
        assert (costs.times(size) / size >= costs.least(4) - 1e-12).all()


@pytest.mark.parametrize(
    ("sizes", "relative", "words"),
    [
        ((2, 4), ((1.0, 2.0),), "increase from 1"),
        ((1, 4, 4), ((1.0, 2.0, 2.0),), "increase from 1"),
        ((1, 4), ((1.0, 2.0, 3.0),), "3 times for 2 sizes"),
        ((1, 4), ((1.0, 0.9),), "never decrease"),
        ((1, 4), ((2.0, 3.0),), "never decrease from 1"),
    ],
)
def test_times_that_cannot_be_are_refused(
    sizes: tuple[int, ...], relative: tuple[tuple[float, ...], ...], words: str
) -> None:
    with pytest.raises(ValidationError, match=words):
        BatchCosts(sizes=sizes, relative=relative)


@pytest.mark.parametrize("sizes", [(), (1,), (0, 2), (-1, 2), (2, 2000)])
def test_sizes_that_cannot_be_measured_are_refused(sizes: tuple[int, ...]) -> None:
    with pytest.raises(ProfileError, match="no sizes of batches"):
        check_sizes(sizes)
    assert held_out((1, 2, 4, 8)) == (3, 6)
