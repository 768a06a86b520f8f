from __future__ import annotations

import pytest

from planner.errors import ProfileError
from planner.profile.compare import compare
from tests.profile.small_chain import profile


def test_what_changed() -> None:
    after = profile(scale=2.0).model_copy(update={"environment": {"provider": "cpu", "threads": 2, "warnings": []}})
    found = compare(profile(), after)
    assert found.names == ("block0", "block1")
    assert found.ratio == pytest.approx(2)
    assert found.stage_overhead_s == pytest.approx((1e-4, 2e-4))
    assert found.environment == {"threads": (1, 2)}


def test_nothing_changed() -> None:
    found = compare(profile(), profile())
    assert found.ratio == 1
    assert found.environment == {}


def test_profiles_of_different_chains_do_not_compare() -> None:
    other = profile().model_copy(update={"chain_sha256": "f" * 64})
    with pytest.raises(ProfileError, match=r"small in 2 blocks and small in 2;.*earlier versions"):
        compare(profile(), other)
