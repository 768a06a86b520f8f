"""Recorded predictions of a model with exits: its confidence at each exit and whether the prediction is correct.

Operating points are computed from recorded predictions, and simulations replay them.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import PlainSerializer, PlainValidator

from planner.errors import Fault, ProfileError
from planner.files import write_bytes_atomic
from planner.runtime.inputs import load_arrays

CONFIDENCE: Final = "confidence"
CORRECT: Final = "correct"


def _lists(array: NDArray[Any]) -> list[Any]:
    values: list[Any] = array.tolist()
    return values


def _floats(value: Any) -> NDArray[np.float64]:
    return np.asarray(value, np.float64)


def _booleans(value: Any) -> NDArray[np.bool_]:
    return np.asarray(value, np.bool_)


@dataclass(frozen=True, eq=False)
class RecordedPredictions:
    """Predictions for n samples at the E exits and the output of a model.

    Parameters
    ----------
    confidence
        Probability of the predicted class; shape [n, E + 1], the output last.
    correct
        Whether the predicted class is the label; shape [n, E + 1]. None without labels.
    """

    confidence: Annotated[NDArray[np.float64], PlainValidator(_floats), PlainSerializer(_lists)]
    correct: Annotated[NDArray[np.bool_], PlainValidator(_booleans), PlainSerializer(_lists)] | None = None

    def __len__(self) -> int:
        return len(self.confidence)


def save_predictions(answers: RecordedPredictions, path: Path) -> None:
    """Write the predictions for labelled samples to an ``.npz`` file atomically.

    Raises
    ------
    ProfileError
        If the samples have no labels.
    """
    if answers.correct is None:
        raise ProfileError("predictions for samples without labels cannot be saved", where=str(path))
    file = io.BytesIO()
    np.savez_compressed(file, confidence=answers.confidence, correct=answers.correct)
    write_bytes_atomic(path, file.getvalue())


def load_predictions(path: Path, exits: int) -> RecordedPredictions:
    """Read a file written by :func:`save_predictions`; other arrays in the file are ignored.

    Parameters
    ----------
    exits
        Number of inner exits of the model.

    Raises
    ------
    ProfileError
        If an array is missing or does not match the model; all faults at once.
    RuntimeSessionError
        If the file cannot be read.
    """
    arrays = load_arrays(path, {CONFIDENCE, CORRECT})
    kinds = {CONFIDENCE: (np.floating, "probabilities"), CORRECT: (np.bool_, "booleans")}
    faults = []
    for name, (kind, noun) in kinds.items():
        array, expected = arrays.get(name), f"{noun} of shape [samples, {exits + 1}]: {exits} exits and the output"
        if array is None:
            faults.append(Fault("no such array", f"{path}: {name}", expected=expected))
        elif not np.issubdtype(array.dtype, kind) or array.ndim != 2 or array.shape[1] != exits + 1 or not len(array):
            actual = f"{array.dtype} {list(array.shape)}"
            faults.append(Fault("does not fit the model", f"{path}: {name}", actual, expected))
    if not faults:
        faults = _value_faults(arrays[CONFIDENCE], arrays[CORRECT], path)
    if faults:
        raise ProfileError(faults)
    return RecordedPredictions(arrays[CONFIDENCE].astype(np.float64), arrays[CORRECT])


def _value_faults(confidence: NDArray[Any], correct: NDArray[Any], path: Path) -> list[Fault]:
    if len(confidence) != len(correct):
        where = f"{path}: {CORRECT}"
        return [Fault("not as many samples", where, len(correct), f"{len(confidence)}, as in {CONFIDENCE}")]
    wrong = np.argwhere(~((confidence >= 0) & (confidence <= 1)))
    if wrong.size:
        row, column = wrong[0]
        where = f"{path}: {CONFIDENCE}[{row}, {column}]"
        return [Fault("not a probability", where, float(confidence[row, column]), "0 to 1")]
    return []
