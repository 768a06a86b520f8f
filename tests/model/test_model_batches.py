"""Models that run several samples as one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from planner.errors import ModelError, RuntimeSessionError
from planner.model.batches import checked_for_batches
from planner.model.chain import Exit
from planner.model.load import load_chain, load_for_batches
from planner.model.reference import build_model
from planner.runtime.batches import joined, split
from planner.runtime.runner import ChainRunner
from planner.runtime.session import BlockSession
from tests.model.batch_models import TOKENS, apart, small_gpt2, small_model, two_layers
from tests.model.chained import reference


def test_a_model_is_the_same_chain_whether_it_is_loaded_for_batches_or_not() -> None:
    opened, single = small_model(), load_chain(small_gpt2(), axes={"batch": 1}, max_blocks=3)
    assert opened.chain == single.chain
    assert not opened.single
    assert single.single


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_each_sample_of_a_batch_comes_out_as_alone(count: int) -> None:
    model = small_model()
    runner = ChainRunner([[tensor.name for tensor in cut.tensors] for cut in model.chain.cuts])
    for index in range(len(model.chain)):
        runner.load(index, model.block_model(index))
    rng = np.random.default_rng(count)
    samples = [{"input_ids": rng.integers(0, 50, (1, TOKENS))} for _ in range(count)]
    whole = BlockSession(model.model_bytes(), optimise=False)
    together = runner.run_segment(0, len(model.chain) - 1, joined(samples))
    for sample, outputs in zip(samples, split(together, count), strict=True):
        np.testing.assert_allclose(outputs["logits"], whole.run(sample)["logits"], rtol=1e-4, atol=1e-6)


def test_a_batch_of_samples_of_several_rows_each(tmp_path: Path) -> None:
    model = load_chain(apart(tmp_path / "m.onnx"), axes={"n": 3}, batch=True)
    assert model.chain.cuts[0].tensors[0].shape == (3, 4)
    session = BlockSession(model.stage_model(0, len(model.chain) - 1))
    samples = [{"x": np.full((3, 4), value, np.float32)} for value in (1.0, -2.0)]
    parts = split(session.run(joined(samples)), 2)
    assert all(np.allclose(part["y"], session.run(own)["y"]) for part, own in zip(parts, samples, strict=True))


@pytest.mark.parametrize(
    ("axes", "given", "words"),
    [
        ((1, 4), {}, "the batch axis of this input is not open"),
        (("n", "n"), {"n": 4}, "the batch is not the only open axis|no batches: "),
        (("n", 4), {"n": 0}, "several lengths"),
    ],
)
def test_why_a_model_runs_no_batches(
    axes: tuple[str | int, ...], given: dict[str, int], words: str, tmp_path: Path
) -> None:
    path = two_layers(tmp_path / "m.onnx", [helper.make_node("Relu", ["h"], ["mean"])], axes)
    with pytest.raises(ModelError, match=words):
        load_chain(path, axes=given, batch=True)
    assert load_for_batches(path, axes=given).single


def test_models_whose_first_axis_is_fixed_run_no_batches(tmp_path: Path) -> None:
    assert "not open" in load_for_batches(build_model("resnet56-exits", tmp_path / "m.onnx")).single
    assert "not open" in load_for_batches(reference("gpt2-small")).single


def test_samples_that_differ_are_not_joined() -> None:
    one = {"x": np.zeros((1, 2), np.float32)}
    for other in ({}, {"x": np.zeros((1, 3), np.float32)}, {"x": np.zeros((1, 2), np.float64)}):
        with pytest.raises(RuntimeSessionError, match="samples that differ"):
            joined([one, other])
    with pytest.raises(RuntimeSessionError, match="cannot be divided"):
        split({"x": np.zeros((3, 2), np.float32)}, 2)


def test_a_chain_with_exits_is_refused() -> None:
    chain = replace(small_model().chain, exits=(Exit("early", 1, 8),))
    with pytest.raises(ModelError, match="a model with early exits runs no batches"):
        checked_for_batches(chain, "m.onnx")
