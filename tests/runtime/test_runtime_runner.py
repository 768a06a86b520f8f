from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from planner.errors import RuntimeSessionError
from planner.model.chain import TensorSpec
from planner.runtime.inputs import random_inputs
from planner.runtime.providers import Provider
from planner.runtime.runner import ChainRunner
from tests.runtime.small_model import CUT_TENSORS, SHAPE, blocks

BOUND_CPU = Provider("bound", ("CPUExecutionProvider",), device="cpu")


def runner(provider: str | Provider = "cpu") -> ChainRunner:
    result = ChainRunner(CUT_TENSORS, provider=provider)
    for index, model in enumerate(blocks()):
        result.load(index, model)
    return result


def test_blocks_one_by_one_keep_only_what_is_needed() -> None:
    chain = runner()
    tensors: dict[str, NDArray[Any]] = {"x": np.ones(SHAPE, np.float32), "stray": np.zeros(1)}
    seen = []
    for index in range(3):
        tensors = chain.run_block(index, tensors)
        seen.append(set(tensors))
    assert seen == [set(names) for names in CUT_TENSORS[1:]]


@pytest.mark.parametrize("provider", ["cpu", BOUND_CPU], ids=["host", "io-binding"])
@pytest.mark.parametrize(("first", "last"), [(0, 0), (0, 2), (1, 2)])
def test_a_segment_equals_its_blocks(provider: str | Provider, first: int, last: int) -> None:
    chain = runner(provider)
    rng = np.random.default_rng(1)
    start = random_inputs([TensorSpec(name, "float32", SHAPE) for name in CUT_TENSORS[first]], rng)
    tensors = dict(start)
    for index in range(first, last + 1):
        tensors = chain.run_block(index, tensors)
    segment = chain.run_segment(first, last, start)
    assert segment.keys() == tensors.keys()
    for name, value in segment.items():
        np.testing.assert_array_equal(value, tensors[name])


def test_only_loaded_blocks_run() -> None:
    chain = runner()
    chain.unload(1)
    assert chain.loaded == {(0, 0), (2, 2)}
    with pytest.raises(RuntimeSessionError, match="block is not loaded; found 1; expected one of: 0, 2"):
        chain.run_block(1, {"a": np.ones(SHAPE, np.float32), "x": np.ones(SHAPE, np.float32)})


@pytest.mark.parametrize("index", [-1, 3])
def test_no_such_block(index: int) -> None:
    with pytest.raises(RuntimeSessionError, match="no such block"):
        runner().load(index, blocks()[0])


@pytest.mark.parametrize("provider", ["cpu", BOUND_CPU], ids=["host", "io-binding"])
def test_a_passing_tensor_that_is_missing_is_named(provider: str | Provider) -> None:
    with pytest.raises(RuntimeSessionError, match="x"):
        runner(provider).run_segment(1, 1, {"a": np.ones(SHAPE, np.float32)})


dtypes = st.sampled_from(["float16", "float32", "float64", "int8", "uint8", "int32", "int64", "bool"])


@given(dtypes, st.lists(st.integers(1, 5), max_size=3), st.integers(0, 2**32))
def test_random_inputs_fit_their_spec_and_repeat(dtype: str, shape: list[int], seed: int) -> None:
    spec = TensorSpec("t", dtype, tuple(shape))
    drawn = random_inputs([spec], np.random.default_rng(seed))["t"]
    again = random_inputs([spec], np.random.default_rng(seed))["t"]
    assert drawn.dtype == dtype
    assert drawn.shape == tuple(shape)
    np.testing.assert_array_equal(drawn, again)
    if np.dtype(dtype).kind in "iu":
        assert np.all((drawn >= 0) & (drawn <= 1))


def test_no_random_strings() -> None:
    with pytest.raises(RuntimeSessionError, match="no random data"):
        random_inputs([TensorSpec("s", "object", (1,))], np.random.default_rng(0))
