"""Operating points: predictions of a multi-exit model for labelled samples, and the thresholds worth offering."""

from __future__ import annotations

from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from planner.errors import PlannerError, ProfileError
from planner.model.chain import SEQUENCE, Block, Chain, Cut, Exit, TensorSpec
from planner.model.load import ChainModel, load_chain
from planner.profiling.operating_points import LABEL, THRESHOLDS, load_samples, operating_points, predict
from planner.profiling.recorded_predictions import RecordedPredictions
from planner.runtime.confidence import confidence
from planner.runtime.session import BlockSession
from tests.model.chained import reference

SAMPLES = 12
EXITS = ("exit1", "exit2")


@cache
def exits_model() -> ChainModel:
    return load_chain(reference("resnet56-exits"))


def data(path: Path, **changes: NDArray[Any] | None) -> Path:
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        "input": rng.standard_normal((SAMPLES, 3, 32, 32), dtype=np.float32),
        LABEL: rng.integers(0, 10, SAMPLES),
    }
    arrays |= changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def test_predictions_are_those_of_the_whole_model(tmp_path: Path) -> None:
    model = exits_model()
    labelled = load_samples(data(tmp_path / "d.npz"), model.chain)
    answers = predict(model, labelled)
    assert answers.correct is not None
    assert labelled.labels is not None
    whole = BlockSession(model.path)
    for index in range(SAMPLES):
        made = whole.run({"input": labelled.inputs["input"][index]})
        logits = np.array([made[name][0] for name in (*EXITS, "output")])
        probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        np.testing.assert_allclose(answers.confidence[index], probabilities.max(-1), rtol=1e-3)
        assert (answers.correct[index] == (logits.argmax(-1) == labelled.labels[index])).all()


def test_a_model_without_exits_has_one_point_and_its_accuracy(tmp_path: Path) -> None:
    model = load_chain(reference("resnet56"))
    answers = predict(model, load_samples(data(tmp_path / "d.npz"), model.chain))
    (point,) = operating_points(model.chain, answers)
    assert answers.correct is not None
    assert point.accuracy == answers.correct.mean()
    assert point.thresholds == ()
    assert set(point.reach) == {1.0}
    with pytest.raises(ProfileError, match="has no exits"):
        operating_points(model.chain, answers, [0.5])


def chain_of(blocks: int, exits: tuple[int, ...]) -> Chain:
    return Chain(
        "synthetic",
        "",
        "",
        tuple(Block(str(index), 1, 1.0, 1, 1, 1) for index in range(blocks)),
        tuple(Cut(index, ()) for index in range(blocks + 1)),
        tuple(Exit(f"exit{cut}", cut, 40) for cut in exits),
    )


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(1,), (3,), (1, 3), (2, 2)]))
def test_points_are_the_pareto_optimal_ones_of_the_grid(seed: int, exits: tuple[int, ...]) -> None:
    rng, chain = np.random.default_rng(seed), chain_of(4, exits)
    shape = (20, len(exits) + 1)
    right_at = rng.random(shape) < 0.5
    answers = RecordedPredictions(rng.choice([0.3, 0.6, 0.9], shape), right_at)
    grid = (0.2, 0.5, 0.8)
    candidates = []
    for thresholds in product(grid, repeat=len(exits)):
        correct_count, reach = 0, np.zeros(4)
        for confidences, correct in zip(answers.confidence, right_at, strict=True):
            leaves_at = next((i for i, least in enumerate(thresholds) if confidences[i] >= least), len(exits))
            correct_count += correct[leaves_at]
            reach[: (*exits, 4)[leaves_at]] += 1
        candidates.append((correct_count / 20, tuple((reach / 20).round(12).tolist())))
    best = {
        (accuracy, reach)
        for accuracy, reach in candidates
        if not any(
            other != (accuracy, reach) and other[0] >= accuracy and np.less_equal(other[1], reach).all()
            for other in candidates
        )
    }
    points = operating_points(chain, answers, grid)
    assert {(point.accuracy, point.reach) for point in points} == best
    assert len(points) == len(best)
    assert [point.accuracy for point in points] == sorted((point.accuracy for point in points), reverse=True)
    assert len({point.name for point in points}) == len(points)


def test_the_grid_covers_all_and_no_samples_leaving_early() -> None:
    answers = RecordedPredictions(np.array([[0.4, 0.9], [0.6, 0.9]]), np.array([[False, True], [False, True]]))
    points = operating_points(chain_of(2, (1,)), answers)
    assert (points[0].accuracy, points[0].reach) == (1.0, (1.0, 1.0))
    assert (points[-1].accuracy, points[-1].reach) == (0.0, (1.0, 0.0))
    assert THRESHOLDS[0] == 0


def test_confidence_of_large_scores_is_finite() -> None:
    np.testing.assert_allclose(confidence(np.array([[1e4, 0.0], [0.0, 0.0]])), [1.0, 0.5])


def assert_rejected(path: Path, match: str) -> None:
    with pytest.raises(PlannerError, match=match):
        predict(exits_model(), load_samples(path, exits_model().chain))


def test_bad_data(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    small = np.zeros((SAMPLES, 3, 28, 28), np.float32)
    assert_rejected(
        data(path, input=small), r"input: samples do not fit.*\[12, 3, 28, 28\].*float32 \[samples, 3, 32, 32\]"
    )
    assert_rejected(data(path, input=np.zeros((SAMPLES, 3, 32, 32))), "samples do not fit.*float64")
    assert_rejected(data(path, input=None), "no samples for this input")
    assert_rejected(
        data(path, **{LABEL: np.full(SAMPLES, 10)}), r"label\[0\]: no such class; found 10; expected 0 to 9"
    )
    assert_rejected(data(path, **{LABEL: np.full(SAMPLES, -1)}), "no such class; found -1")
    assert_rejected(data(path, **{LABEL: np.zeros(SAMPLES)}), r"not labels; found 'float64 \[12\]'")
    assert_rejected(data(path, **{LABEL: None}), "no labels")
    assert_rejected(data(path, **{LABEL: np.zeros(3, int)}), "label: not as many as in input; found 3; expected 12")
    assert_rejected(data(path, input=small[:0, :, :0], **{LABEL: np.zeros(0, int)}), "samples do not fit")
    empty = np.zeros((0, 3, 32, 32), np.float32)
    assert_rejected(data(path, input=empty, **{LABEL: np.zeros(0, int)}), "input: no samples; found 0")
    np.save(tmp_path / "lone.npy", small)
    for name, content in (("text", b"no archive"), ("cut.npz", data(path).read_bytes()[:1000])):
        (tmp_path / name).write_bytes(content)
    for name in ("lone.npy", "text", "cut.npz", "absent.npz"):
        assert_rejected(tmp_path / name, "not an .npz file")


def test_bad_thresholds() -> None:
    answers = RecordedPredictions(np.ones((1, 2)), np.ones((1, 2), bool))
    for wrong in (-0.1, 1.5, float("nan")):
        with pytest.raises(ProfileError, match="not a probability"):
            operating_points(chain_of(2, (1,)), answers, [0.5, wrong])


def test_a_model_that_is_not_a_classifier_is_rejected(tmp_path: Path) -> None:
    model = load_chain(reference("gpt2-small"))
    path = tmp_path / "d.npz"
    np.savez(path, input_ids=np.zeros((2, 32), np.int64), label=np.zeros(2, int))
    with pytest.raises(ProfileError, match=r"not a classifier; found 'logits \[1, 32, 1000\]'"):
        predict(model, load_samples(path, model.chain))


def chain_with_inputs(*specs: TensorSpec) -> Chain:
    return Chain("m", "0" * 64, "0" * 64, (), (Cut(0, specs),), ())


def test_samples_have_the_shapes_of_the_inputs_or_lack_a_first_axis_of_one(tmp_path: Path) -> None:
    """A recurrent model has a state with layers first, and a model may have no batch axis at all."""
    shapes = {"frame": (1, 1, 8), "state": (3, 1, 4), "gain": (), "level": (1,)}
    rng = np.random.default_rng(0)
    whole: dict[str, Any] = {name: rng.standard_normal((5, *shape), np.float32) for name, shape in shapes.items()}
    short: dict[str, Any] = {
        name: array[:, 0] if name in {"frame", "level"} else array for name, array in whole.items()
    }
    specs = [TensorSpec(name, "float32", shape) for name, shape in shapes.items()]
    for arrays in (whole, short):
        np.savez(tmp_path / "d.npz", **arrays)
        samples = load_samples(tmp_path / "d.npz", chain_with_inputs(*specs))
        assert len(samples) == 5
        for index in range(5):
            for name, array in samples.sample(index).items():
                np.testing.assert_array_equal(array, whole[name][index], strict=True)
    np.savez(tmp_path / "d.npz", **{**whole, "state": whole["state"][:, 0]})
    with pytest.raises(ProfileError, match=r"d\.npz: state: .*\[5, 1, 4\].*float32 \[samples, 3, 1, 4\]"):
        load_samples(tmp_path / "d.npz", chain_with_inputs(*specs))


def test_samples_of_a_model_with_state_are_sequences_of_their_own(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", frame=np.zeros((5, 1, 8), np.float32))
    chain = chain_with_inputs(TensorSpec("frame", "float32", (1, 1, 8)), SEQUENCE)
    sample = load_samples(tmp_path / "d.npz", chain).sample(4)
    assert sample[SEQUENCE.name].tolist() == [-1, -1]
    assert sample[SEQUENCE.name].dtype == np.int64


def test_lengths_that_vary_fit(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", ids=np.zeros((5, 1, 9), np.int64))
    chain = chain_with_inputs(TensorSpec("ids", "int64", (1, 4), varies=(1,)))
    assert load_samples(tmp_path / "d.npz", chain).sample(0)["ids"].shape == (1, 9)
