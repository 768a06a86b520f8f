"""Operating points from labelled data: accuracy and reach of a model's blocks for different exit thresholds.

A sample leaves at the first exit whose confidence (:func:`planner.runtime.confidence.confidence`) reaches the exit's
threshold; a sample that leaves at no exit is classified by the model's output. From a grid of thresholds, only the
Pareto-optimal points are kept: no other point is at least as accurate without more work in any block.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from planner.errors import Fault, ProfileError
from planner.model.chain import SEQUENCE, Chain, TensorSpec
from planner.profiling.recorded_predictions import RecordedPredictions
from planner.profiling.sampling import ProfiledModel, Progress
from planner.profiling.types import OperatingPoint
from planner.runtime.confidence import confidence
from planner.runtime.inputs import load_arrays
from planner.runtime.session import BlockSession

LABEL: Final = "label"
# 0: every sample leaves at this exit. 1: hardly any sample does, because a softmax rarely reaches 1.
THRESHOLDS: Final = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 1.0)


@dataclass(frozen=True)
class LabelledSamples:
    """Samples with optional labels.

    Parameters
    ----------
    inputs
        Arrays of shape [n, *shape of the input] by name of the model input.
    labels
        Class of each sample; shape [n].
    """

    inputs: Mapping[str, NDArray[Any]]
    labels: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def sample(self, index: int) -> dict[str, NDArray[Any]]:
        """Return the inputs of one sample."""
        return {name: array[index] for name, array in self.inputs.items()}


def load_samples(path: Path, chain: Chain) -> LabelledSamples:
    """Read samples for a chain's inputs, and their labels if present, from an ``.npz`` file.

    Parameters
    ----------
    path
        File with an array for each input, by name, whose first axis counts the samples, and optionally ``label``,
        integers of shape [n]. Other arrays are ignored. Samples may lack the first axis of an input if that is 1 long.
    chain
        The model.

    Raises
    ------
    ProfileError
        If an array is missing or does not match the model; all faults at once.
    RuntimeSessionError
        If the file cannot be read.
    """
    specs = [spec for spec in chain.cuts[0].tensors if spec != SEQUENCE]
    arrays = load_arrays(path, {LABEL, *(spec.name for spec in specs)})
    faults = [fault for spec in specs if (fault := _input_fault(spec, arrays, path))]
    labels = arrays.get(LABEL)
    if labels is not None and (labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer)):
        actual = f"{labels.dtype} {list(labels.shape)}"
        faults.append(Fault("not labels", f"{path}: {LABEL}", actual, "one integer for each sample"))
    if not faults:
        counts = {name: len(arrays[name]) for name in (*(spec.name for spec in specs), LABEL) if name in arrays}
        first, count = next(iter(counts.items()))
        faults = [
            Fault(f"not as many as in {first}", f"{path}: {name}", other, f"{count}")
            for name, other in counts.items()
            if other != count
        ]
    if not faults and count == 0:
        faults = [Fault("no samples", f"{path}: {first}", 0, "one or more")]
    if faults:
        raise ProfileError(faults)
    inputs = {spec.name: _with_batch(spec, arrays[spec.name]) for spec in specs}
    if SEQUENCE in chain.cuts[0].tensors:  # each sample by itself, from a drawn state
        inputs[SEQUENCE.name] = np.full((count, *SEQUENCE.shape), -1, SEQUENCE.dtype)
    return LabelledSamples(inputs, None if labels is None else labels.astype(np.int64))


def _input_fault(spec: TensorSpec, arrays: Mapping[str, NDArray[Any]], path: Path) -> Fault | None:
    sizes = spec.shape[1:] if spec.shape[:1] == (1,) else spec.shape
    expected = f"{spec.dtype} [{', '.join(map(str, ('samples', *sizes)))}]"
    array, where = arrays.get(spec.name), f"{path}: {spec.name}"
    if array is None:
        return Fault("no samples for this input", where, expected=expected)
    if array.dtype.name != spec.dtype or not array.ndim or not spec.fits(_with_batch(spec, array).shape[1:]):
        return Fault("samples do not fit this input", where, f"{array.dtype} {list(array.shape)}", expected)
    return None


def _with_batch(spec: TensorSpec, array: NDArray[Any]) -> NDArray[Any]:
    """Return samples with the first axis of the input, which they may lack if it is 1 long."""
    lacks_batch = spec.shape[:1] == (1,) and array.ndim == len(spec.shape)
    return array[:, None] if lacks_batch else array


def predict(
    chain_model: ProfiledModel, data: LabelledSamples, *, progress: Progress | None = None
) -> RecordedPredictions:
    """Return the predictions of the whole model for labelled samples, run one at a time as on a device.

    Raises
    ------
    ProfileError
        If there are no labels, a label is not a class of the model, or the model has other outputs than its exits and
        one row of scores.
    RuntimeSessionError
        If onnxruntime fails.
    """
    chain = chain_model.chain
    if data.labels is None:
        raise ProfileError(
            "no labels: accuracy cannot be determined", where=LABEL, expected="one integer for each sample"
        )
    check_labels(chain, data.labels)
    session = BlockSession(chain_model.stage_model(0, len(chain) - 1), name=chain.name)
    outputs = []
    for index in range(len(data)):
        outputs.append(session.run(data.sample(index)))
        if progress is not None:
            progress(index + 1, len(data))
    return predictions_of(chain, outputs, data.labels)


def predictions_of(
    chain: Chain, outputs: Sequence[Mapping[str, NDArray[Any]]], labels: NDArray[np.int64] | None
) -> RecordedPredictions:
    """Return the predictions contained in the outputs of a whole model.

    Parameters
    ----------
    outputs
        For each sample: scores of shape [1, classes] by name, including those of the exits.
    labels
        Class of each sample; shape [n]. None if unknown.

    Raises
    ------
    ProfileError
        If the model has other outputs than its exits and one row of scores.
    """
    names = [exit_.name for exit_ in chain.exits] + [_scores(chain).name]
    scores = np.array([[arrays[name][0] for name in names] for arrays in outputs])
    return RecordedPredictions(confidence(scores), None if labels is None else scores.argmax(-1) == labels[:, None])


def _scores(chain: Chain) -> TensorSpec:
    outputs = chain.cuts[-1].tensors
    if len(outputs) != 1 or len(outputs[0].shape) != 2:
        actual = ", ".join(f"{spec.name} {list(spec.shape)}" for spec in outputs)
        raise ProfileError(
            "the model is not a classifier", where=chain.name, value=actual, expected="one output [1, classes]"
        )
    return outputs[0]


def check_labels(chain: Chain, labels: NDArray[np.int64]) -> None:
    """Check that all labels are classes of the model, and that the model is a classifier.

    Raises
    ------
    ProfileError
        If they are not. The error names the first invalid label.
    """
    classes = _scores(chain).shape[-1]
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if wrong.size:
        where = f"{LABEL}[{wrong[0]}]"
        raise ProfileError("no such class", where=where, value=int(labels[wrong[0]]), expected=f"0 to {classes - 1}")


def operating_points(
    chain: Chain, answers: RecordedPredictions, thresholds: Sequence[float] | None = None
) -> tuple[OperatingPoint, ...]:
    """Return the operating points of a grid of thresholds, the most accurate first.

    Parameters
    ----------
    chain
        The model.
    answers
        Its predictions for labelled samples.
    thresholds
        Thresholds to try at each exit. Defaults to :data:`THRESHOLDS`.

    Raises
    ------
    ProfileError
        If the labels are unknown or the thresholds are invalid (see :func:`check_thresholds`).
    """
    check_thresholds(chain, thresholds)
    if answers.correct is None:
        raise ProfileError("no labels: accuracy cannot be determined", where=chain.name, expected=f"an array {LABEL}")
    grid = itertools.product(sorted(set(thresholds or THRESHOLDS)), repeat=len(chain.exits))
    return pareto_optimal(_point(chain, answers.confidence, answers.correct, chosen) for chosen in grid)


def check_thresholds(chain: Chain, thresholds: Sequence[float] | None) -> None:
    """Check that thresholds are probabilities and that the model has exits for them.

    Raises
    ------
    ProfileError
        If they are not, or it has none. The error names the first invalid threshold.
    """
    if thresholds is not None and not chain.exits:
        raise ProfileError("the model has no exits", where="--thresholds", expected="a model with early exits")
    wrong = [value for value in thresholds or () if not 0 <= value <= 1]
    if wrong:
        raise ProfileError("not a probability", where="--thresholds", value=wrong[0], expected="0 to 1")


def pareto_optimal(points: Iterable[OperatingPoint]) -> tuple[OperatingPoint, ...]:
    """Return the Pareto-optimal points in accuracy and work per block, the most accurate first."""
    kept: list[OperatingPoint] = []
    for point in sorted(points, key=lambda point: (-point.accuracy, sum(point.reach))):
        # All points kept so far are at least as accurate.
        if not any(np.less_equal(other.reach, point.reach).all() for other in kept):
            kept.append(point)
    return tuple(kept)


def operating_point(
    chain: Chain, thresholds: Sequence[float], accuracy: float, left: Sequence[float]
) -> OperatingPoint:
    """Return an operating point from the shares of samples that left at each exit and, last, at the output."""
    cuts = [*(exit_.cut for exit_ in chain.exits), len(chain)]

    def reach(block: int) -> float:
        # Rounded because the sum of the shares may exceed 1 by a rounding error.
        return round(math.fsum(share for cut, share in zip(cuts, left, strict=True) if cut > block), 12)

    return OperatingPoint(
        name="/".join(f"{value:g}" for value in thresholds) or "full",
        accuracy=accuracy,
        thresholds=tuple(thresholds),
        reach=tuple(map(reach, range(len(chain)))),
    )


def _point(
    chain: Chain, confidence: NDArray[np.float64], correct: NDArray[np.bool_], thresholds: Sequence[float]
) -> OperatingPoint:
    # Every sample that reaches the output leaves there.
    leaves_at = (confidence >= [*thresholds, 0.0]).argmax(1)
    left = np.bincount(leaves_at, minlength=len(thresholds) + 1) / len(leaves_at)
    accuracy = float(correct[np.arange(len(leaves_at)), leaves_at].mean())
    return operating_point(chain, thresholds, accuracy, left.tolist())
