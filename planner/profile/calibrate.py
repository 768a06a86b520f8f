"""Operating points from labelled data: how often a model is right, and how far its samples go, by thresholds.

A sample leaves at the first exit whose confidence (:func:`planner.runtime.confidence.confidence`) reaches the exit's
threshold; what reaches none is answered by the model's output. Several thresholds may serve the same end: of the grid
only those points are kept that no other point beats in accuracy without more work in any block.
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
from planner.model.chain import Chain, TensorSpec
from planner.profile.answers import Answers
from planner.profile.sampling import ChainModel, Progress
from planner.profile.types import OperatingPoint
from planner.runtime.confidence import confidence
from planner.runtime.inputs import load_arrays
from planner.runtime.session import BlockSession

LABEL: Final = "label"
# 0: every sample leaves at this exit. 1: hardly any does, for a softmax does not quite reach it.
THRESHOLDS: Final = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 1.0)


@dataclass(frozen=True)
class Samples:
    """n samples and, where they are known, their classes.

    Parameters
    ----------
    inputs
        Arrays of shape [n, ...] by input of the model.
    labels
        Class of each sample; shape [n].
    """

    inputs: Mapping[str, NDArray[Any]]
    labels: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def sample(self, index: int) -> dict[str, NDArray[Any]]:
        """Give the inputs for one sample, as a batch of one."""
        return {name: array[index : index + 1] for name, array in self.inputs.items()}


def load_samples(path: Path, chain: Chain) -> Samples:
    """Read samples of a chain's inputs, and their labels if there are any, from an ``.npz`` file.

    Parameters
    ----------
    path
        Holds, by the name of each input, an array whose first axis counts the samples, and maybe ``label``, integers of
        shape [n]. Other arrays are left alone.
    chain
        The model.

    Raises
    ------
    ProfileError
        An array is missing or does not fit: all faults at once.
    RuntimeSessionError
        The file cannot be read.
    """
    specs = chain.cuts[0].tensors
    arrays = load_arrays(path)
    faults = [fault for spec in specs if (fault := _input_fault(spec, arrays, path))]
    labels = arrays.get(LABEL)
    if labels is not None and (labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer)):
        found = f"{labels.dtype} {list(labels.shape)}"
        faults.append(Fault("no labels", f"{path}: {LABEL}", found, "one integer for each sample"))
    if not faults:
        named = {name: len(arrays[name]) for name in (*(spec.name for spec in specs), LABEL) if name in arrays}
        first, count = next(iter(named.items()))
        faults = [
            Fault(f"not as many as in {first}", f"{path}: {name}", other, f"{count}")
            for name, other in named.items()
            if other != count
        ]
    if not faults and count == 0:
        faults = [Fault("no samples", f"{path}: {first}", 0, "one or more")]
    if faults:
        raise ProfileError(faults)
    return Samples(
        {spec.name: arrays[spec.name] for spec in specs}, None if labels is None else labels.astype(np.int64)
    )


def _input_fault(spec: TensorSpec, arrays: Mapping[str, NDArray[Any]], path: Path) -> Fault | None:
    expected = f"{spec.dtype} [samples, {', '.join(map(str, spec.shape[1:]))}]"
    array, where = arrays.get(spec.name), f"{path}: {spec.name}"
    if spec.shape[:1] != (1,):
        return Fault("the model takes no batch of one sample", f"input {spec.name}", list(spec.shape), "[1, ...]")
    if array is None:
        return Fault("no samples for this input", where, expected=expected)
    if array.dtype.name != spec.dtype or array.shape[1:] != spec.shape[1:] or not array.ndim:
        return Fault("samples do not fit this input", where, f"{array.dtype} {list(array.shape)}", expected)
    return None


def answer(chain_model: ChainModel, data: Samples, *, progress: Progress | None = None) -> Answers:
    """Run the whole model on labelled samples, one at a time as a device would.

    Raises
    ------
    ProfileError
        There are no labels; or the model has several outputs beside its exits, one that is no row of scores, or too few
        classes for a label.
    RuntimeSessionError
        onnxruntime fails.
    """
    chain = chain_model.chain
    if data.labels is None:
        raise ProfileError("no labels: nobody knows what is right", where=LABEL, expected="one integer for each sample")
    check_labels(chain, data.labels)
    session = BlockSession(chain_model.stage_model(0, len(chain) - 1), name=chain.name)
    outputs = []
    for index in range(len(data)):
        outputs.append(session.run(data.sample(index)))
        if progress is not None:
            progress(index + 1, len(data))
    return answers_of(chain, outputs, data.labels)


def answers_of(
    chain: Chain, outputs: Sequence[Mapping[str, NDArray[Any]]], labels: NDArray[np.int64] | None
) -> Answers:
    """Give the answers that lie in what a whole model made of samples.

    Parameters
    ----------
    outputs
        Of each sample: scores of shape [1, classes] by name, the exits' included.
    labels
        Class of each sample; shape [n]. None where they are not known.

    Raises
    ------
    ProfileError
        The model has several outputs beside its exits, or one that is no row of scores.
    """
    names = [leave.name for leave in chain.exits] + [_scores(chain).name]
    scores = np.array([[made[name][0] for name in names] for made in outputs])
    return Answers(confidence(scores), None if labels is None else scores.argmax(-1) == labels[:, None])


def _scores(chain: Chain) -> TensorSpec:
    outputs = chain.cuts[-1].tensors
    if len(outputs) != 1 or len(outputs[0].shape) != 2:
        found = ", ".join(f"{spec.name} {list(spec.shape)}" for spec in outputs)
        raise ProfileError(
            "the model is no classifier", where=chain.name, value=found, expected="one output [1, classes]"
        )
    return outputs[0]


def check_labels(chain: Chain, labels: NDArray[np.int64]) -> None:
    """Refuse labels that are no classes of the model, and a model that knows no classes.

    Raises
    ------
    ProfileError
        With the first label that is none.
    """
    classes = _scores(chain).shape[-1]
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if wrong.size:
        where = f"{LABEL}[{wrong[0]}]"
        raise ProfileError("no such class", where=where, value=int(labels[wrong[0]]), expected=f"0 to {classes - 1}")


def operating_points(
    chain: Chain, answers: Answers, thresholds: Sequence[float] | None = None
) -> tuple[OperatingPoint, ...]:
    """Give the operating points of a grid of thresholds, the most accurate first.

    Parameters
    ----------
    chain
        The model.
    answers
        What it said of labelled samples.
    thresholds
        Tried at each exit; :data:`THRESHOLDS` by default.

    Raises
    ------
    ProfileError
        The labels are not known, or the thresholds do not fit (:func:`check_thresholds`).
    """
    check_thresholds(chain, thresholds)
    if answers.correct is None:
        raise ProfileError("no labels: nobody knows what is right", where=chain.name, expected=f"an array {LABEL}")
    grid = itertools.product(sorted(set(thresholds or THRESHOLDS)), repeat=len(chain.exits))
    return worthwhile(_point(chain, answers.confidence, answers.correct, chosen) for chosen in grid)


def check_thresholds(chain: Chain, thresholds: Sequence[float] | None) -> None:
    """Refuse thresholds for a model without exits, and what is no probability.

    Raises
    ------
    ProfileError
        With the first that does not fit.
    """
    if thresholds is not None and not chain.exits:
        raise ProfileError("the model has no exits", where="--thresholds", expected="a model with early exits")
    wrong = [value for value in thresholds or () if not 0 <= value <= 1]
    if wrong:
        raise ProfileError("not a probability", where="--thresholds", value=wrong[0], expected="0 to 1")


def worthwhile(points: Iterable[OperatingPoint]) -> tuple[OperatingPoint, ...]:
    """Give the points that no other beats in accuracy without more work in any block, the most accurate first."""
    kept: list[OperatingPoint] = []
    for point in sorted(points, key=lambda point: (-point.accuracy, sum(point.reach))):
        # Whatever is kept so far is at least as accurate.
        if not any(np.less_equal(other.reach, point.reach).all() for other in kept):
            kept.append(point)
    return tuple(kept)


def operating_point(
    chain: Chain, thresholds: Sequence[float], accuracy: float, left: Sequence[float]
) -> OperatingPoint:
    """Give an operating point from the shares of the samples that left at each exit and, last, at the output."""
    cuts = [*(leave.cut for leave in chain.exits), len(chain)]

    def reach(block: int) -> float:
        # Rounded, for a sum of shares may exceed 1 in its last digit.
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
    # Every sample that comes so far is answered by the output.
    leaves_at = (confidence >= [*thresholds, 0.0]).argmax(1)
    left = np.bincount(leaves_at, minlength=len(thresholds) + 1) / len(leaves_at)
    accuracy = float(correct[np.arange(len(leaves_at)), leaves_at].mean())
    return operating_point(chain, thresholds, accuracy, left.tolist())
