from __future__ import annotations

import pytest

from planner.errors import ProfileError
from planner.profiling.batches import BatchCosts
from planner.profiling.diff import compare
from planner.profiling.sequences import BlockRuns, CutRuns, RunCurve, SequenceCosts
from planner.profiling.types import ColocationCosts, Profile
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


def _with_ways(others: int, sizes: tuple[int, ...], context: int) -> Profile:
    step, prompt = RunCurve(fixed_s=1e-3), RunCurve(fixed_s=0.0, token_s=2e-3)
    runs = BlockRuns(prompt=prompt, step=step, state_fixed_bytes=0, state_token_bytes=8, peak_token_bytes=8)
    return profile().model_copy(
        update={
            "fusion_saving_s": (1e-4,),
            "batches": BatchCosts(sizes=sizes, relative=(tuple(map(float, sizes)),) * 2),
            "colocation": ColocationCosts(others=others, alone=(1.0, 1.0), beside=(1.0 + others, 1.0 + others)),
            "sequences": SequenceCosts(
                blocks=(runs,) * 2,
                cuts=(CutRuns(fixed_bytes=0, token_bytes=8, context_bytes=0),) * 3,
                measured_context=context,
                max_context=None,
                vocabulary=256,
            ),
        }
    )


def test_the_chain_is_compared_in_each_way_that_both_know() -> None:
    before, after = _with_ways(1, (1, 2, 8), 64), _with_ways(3, (1, 4, 8), 16)
    whole_s = sum(block.mean_s for block in before.blocks)
    found = {
        way: pytest.approx((time_s, time_s))
        for way, time_s in (
            ("whole chain", whole_s),
            ("as one session", whole_s - 1e-4),
            ("batch of 8", 8 * whole_s),
            ("in an agent", whole_s),
            ("in an agent beside 1", 2 * whole_s),
            ("prompt of 16", 2 * 16 * 2e-3),
            ("step at 16", 2 * 1e-3),
        )
    }
    difference = compare(before, after)
    assert difference.chain_s == found
    assert "batch of 8" in difference.summary()
    assert list(compare(profile(), after).chain_s) == ["whole chain", "as one session"]
