from __future__ import annotations

import pytest

from planner.errors import ProfileError
from planner.profiling.diff import compare
from tests.profiling.small_chain import profile


def test_differences() -> None:
    after = profile(scale=2.0).model_copy(update={"environment": {"provider": "cpu", "threads": 2, "warnings": []}})
    difference = compare(profile(), after)
    assert difference.names == ("block0", "block1")
    assert difference.ratio == pytest.approx(2)
    assert difference.stage_overhead_s == pytest.approx((1e-4, 2e-4))
    assert difference.environment == {"threads": (1, 2)}


def test_equal_profiles() -> None:
    difference = compare(profile(), profile())
    assert difference.ratio == 1
    assert difference.environment == {}


def test_profiles_of_different_chains_cannot_be_compared() -> None:
    other = profile().model_copy(update={"chain_sha256": "f" * 64})
    with pytest.raises(ProfileError, match=r"small in 2 blocks and small in 2;.*earlier versions"):
        compare(profile(), other)
