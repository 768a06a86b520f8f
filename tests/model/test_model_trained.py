"""The trained model with early exits: its file, its slice of test images and its recorded results agree."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from models.exit_accuracy import INPUT, OUTPUTS, SLICE_SAMPLES, THRESHOLDS, Answers, measure, outcome
from models.fashion_mnist import LICENCE, place
from planner.model.load import load_chain
from planner.model.reference import REFERENCE
from planner.runtime.confidence import confidence
from planner.runtime.session import BlockSession
from tests.model.chained import check_split, crossing, reference

MODEL = Path(__file__).parents[2] / "models" / "resnet56-exits-fashion.onnx"
RESULTS: dict[str, Any] = json.loads(MODEL.with_suffix(".json").read_text())


@cache
def samples() -> dict[str, Any]:
    with np.load(MODEL.with_suffix(".npz"), allow_pickle=False) as file:
        return dict(file)


@cache
def answers() -> Answers:
    return Answers.of(MODEL, samples()[INPUT], samples()["label"])


def numbers(values: Any) -> list[float]:
    """Return the numbers of a JSON document in order."""
    if isinstance(values, dict):
        values = list(values.values())
    if isinstance(values, list):
        return [number for value in values for number in numbers(value)]
    return [values]


def test_the_results_are_of_this_file() -> None:
    assert RESULTS["model"] == {"file": MODEL.name, "sha256": hashlib.sha256(MODEL.read_bytes()).hexdigest()}
    assert RESULTS["outputs"] == list(OUTPUTS)
    assert MODEL.stat().st_size < 4e6


def test_the_slice_is_images_as_the_model_takes_them_with_their_licence() -> None:
    images, labels = samples()[INPUT], samples()["label"]
    assert images.shape == (SLICE_SAMPLES, *REFERENCE["resnet56-exits"].input_shape[1:])
    assert images.dtype == np.float32
    pixels = np.round(images[:, 0, 2:30, 2:30] * 255).astype(np.uint8)
    assert (place(pixels) == images).all()
    assert set(labels.tolist()) == set(range(10))
    assert str(samples()["licence"]) == LICENCE.read_text()


def test_the_slice_reproduces_the_recorded_accuracies_and_curve() -> None:
    measured = json.loads(json.dumps(measure(MODEL, answers())["slice"]))
    recorded = RESULTS["slice"]
    assert measured.keys() == recorded.keys()
    # Processors round differently: a sample at a class or threshold boundary may change sides.
    assert np.subtract(numbers(measured), numbers(recorded)) == pytest.approx(0, abs=2.5 / SLICE_SAMPLES)


def test_the_slice_reproduces_the_recorded_confidences() -> None:
    assert answers().confidence == pytest.approx(samples()["confidence"], abs=1e-3)
    assert (answers().correct != samples()["correct"]).mean() <= 1 / SLICE_SAMPLES


def test_the_model_is_trained_and_later_exits_are_more_accurate() -> None:
    accuracy = RESULTS["test"]["accuracy"]
    assert 0.75 < accuracy["exit1"] < accuracy["exit2"] < accuracy["output"]
    assert accuracy["output"] > 0.88
    for name in OUTPUTS:  # the slice is representative of the whole: within four standard deviations
        spread = (accuracy[name] * (1 - accuracy[name]) / SLICE_SAMPLES) ** 0.5
        assert abs(RESULTS["slice"]["accuracy"][name] - accuracy[name]) < 4 * spread


def test_the_grid_has_every_pair_of_thresholds_once() -> None:
    pairs = [tuple(point["thresholds"]) for point in RESULTS["test"]["grid"]]
    assert sorted(pairs) == [(first, second) for first in THRESHOLDS for second in THRESHOLDS]
    equal = [point for point in RESULTS["test"]["grid"] if len(set(point["thresholds"])) == 1]
    assert RESULTS["test"]["curve"] == equal


@pytest.mark.parametrize("part", ["test", "slice"])
def test_higher_thresholds_keep_more_samples_for_later_blocks(part: str) -> None:
    reach = 1 - np.cumsum([point["left"] for point in RESULTS[part]["curve"]], axis=1)
    assert (np.diff(reach, axis=1) <= 1e-9).all()  # along the chain
    assert (np.diff(reach, axis=0) >= -1e-9).all()  # along the thresholds
    assert reach[:, -1] == pytest.approx(0, abs=1e-9)
    alone = RESULTS[part]["accuracy"]
    assert RESULTS[part]["curve"][0]["accuracy"] == alone["exit1"]
    assert RESULTS[part]["curve"][-1]["accuracy"] == alone["output"]


def test_it_has_the_architecture_of_the_reference_model() -> None:
    def layers(path: Path) -> list[tuple[str, str, list[str], list[str]]]:
        return [(node.name, node.op_type, list(node.input), list(node.output)) for node in onnx.load(path).graph.node]

    assert layers(MODEL) == layers(reference("resnet56-exits"))
    assert BlockSession(MODEL).output_names == OUTPUTS
    blocks = load_chain(MODEL).chain.blocks
    assert sum(block.parameters for block in blocks) == REFERENCE["resnet56-exits"].parameters


@pytest.mark.parametrize("max_blocks", [1, 8, None])
def test_exits_end_blocks_and_carry_the_results(max_blocks: int | None) -> None:
    model = load_chain(MODEL, max_blocks=max_blocks)
    assert [exit_.name for exit_ in model.chain.exits] == ["exit1", "exit2"]
    inputs = {INPUT: samples()[INPUT][:1]}
    for exit_ in model.chain.exits:
        assert exit_.name in model.block_outputs(exit_.cut - 1)
        head = BlockSession(model.stage_model(0, exit_.cut - 1)).run(inputs)[exit_.name]
        assert confidence(head) == pytest.approx(answers().confidence[0, OUTPUTS.index(exit_.name)], abs=1e-4)


def test_chained_blocks_match_the_whole_model() -> None:
    model = load_chain(MODEL)
    cuts = range(1, len(model.chain))
    for image in samples()[INPUT][:8, np.newaxis]:
        assert check_split(model, cuts, inputs={INPUT: image}).max_abs_error == 0
    assert check_split(model, cuts, inputs={INPUT: image}, optimise=True).max_rel_error < 1e-4
    assert set(crossing(model, {INPUT: image})[-1]) == {"output"}


@given(
    arrays(np.float64, (20, 3), elements=st.floats(0.1, 1)),
    arrays(np.bool_, (20, 3)),
    st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_the_outcome_matches_a_count_sample_by_sample(
    confidence: np.ndarray[Any, Any], correct: np.ndarray[Any, Any], thresholds: tuple[float, float]
) -> None:
    computed = outcome(Answers(confidence, correct), thresholds)
    left, right = [0, 0, 0], 0
    for sure, good in zip(confidence.tolist(), correct.tolist(), strict=True):
        index = 0 if sure[0] >= thresholds[0] else 1 if sure[1] >= thresholds[1] else 2
        left[index] += 1
        right += good[index]
    assert computed == {
        "thresholds": list(thresholds),
        "accuracy": pytest.approx(right / 20),
        "left": pytest.approx([count / 20 for count in left]),
    }


@given(arrays(np.float32, (4, 10), elements=st.floats(-500, 500, width=32)))
def test_confidence_is_the_largest_softmax_probability(logits: np.ndarray[Any, Any]) -> None:
    powers = np.exp(logits.astype(np.longdouble))
    assert confidence(logits) == pytest.approx((powers / powers.sum(1, keepdims=True)).max(1).astype(float))
