"""How often a model with early exits is right, and where its samples leave, by confidence threshold.

A sample leaves at the first exit whose confidence, the largest softmax probability, reaches the exit's threshold; what
reaches none is answered by the last output.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.fashion_mnist import LICENCE
from planner.runtime.confidence import confidence
from planner.runtime.session import BlockSession

INPUT: Final = "input"
OUTPUTS: Final = ("exit1", "exit2", "output")
SLICE_SAMPLES: Final = 1000
# 0: every sample leaves at the first exit. 1: none leaves early, for a softmax does not quite reach it.
THRESHOLDS: Final = (0.0, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 1.0)


@dataclass(frozen=True)
class Answers:
    """What a model's outputs say of n samples.

    Parameters
    ----------
    confidence
        Largest softmax probability, shape (n, 3): a column for each of :data:`OUTPUTS`.
    correct
        Whether the class of that probability is the sample's, shape (n, 3).
    """

    confidence: NDArray[np.float64]
    correct: NDArray[np.bool_]

    @classmethod
    def of(cls, model: Path, images: NDArray[np.float32], labels: NDArray[np.int64]) -> Answers:
        """Run ``model`` on images of shape (n, 3, 32, 32), one at a time, by onnxruntime."""
        session = BlockSession(model)
        results = [session.run({INPUT: image[np.newaxis]}) for image in images]
        logits = np.array([[result[name][0] for name in OUTPUTS] for result in results])
        return cls(confidence(logits), logits.argmax(-1) == labels[:, np.newaxis])

    def first(self, samples: int) -> Answers:
        """Give the answers to the first samples."""
        return Answers(self.confidence[:samples], self.correct[:samples])


def outcome(answers: Answers, thresholds: Sequence[float]) -> dict[str, Any]:
    """Give ``accuracy``, and the share of samples that has ``left`` at each output, with a threshold for each exit."""
    leaves = answers.confidence >= [*thresholds, 0.0]  # every sample that comes so far leaves at the last output
    where = leaves.argmax(1)
    return {
        "thresholds": list(thresholds),
        "accuracy": float(answers.correct[np.arange(len(where)), where].mean()),
        "left": (np.bincount(where, minlength=len(OUTPUTS)) / len(where)).tolist(),
    }


def curve(answers: Answers, thresholds: Iterable[Sequence[float]]) -> list[dict[str, Any]]:
    """Give the :func:`outcome` with each of ``thresholds``."""
    return [outcome(answers, pair) for pair in thresholds]


def summary(answers: Answers) -> dict[str, Any]:
    """Give the accuracy of each output alone, and the curve of equal thresholds for both exits."""
    return {
        "samples": len(answers.correct),
        "accuracy": dict(zip(OUTPUTS, answers.correct.mean(0).tolist(), strict=True)),
        "curve": curve(answers, zip(THRESHOLDS, THRESHOLDS, strict=True)),
    }


def measure(model: Path, answers: Answers) -> dict[str, Any]:
    """Describe what ``model`` answered to the test images; ``grid`` has every pair of thresholds."""
    return {
        "model": {"file": model.name, "sha256": hashlib.sha256(model.read_bytes()).hexdigest()},
        "data": "Fashion-MNIST: its 10,000 test images, and a slice, the first of them",
        "outputs": list(OUTPUTS),
        "test": summary(answers) | {"grid": curve(answers, product(THRESHOLDS, repeat=len(OUTPUTS) - 1))},
        "slice": summary(answers.first(SLICE_SAMPLES)),
    }


def write_slice(path: Path, images: NDArray[np.float32], labels: NDArray[np.int64], answers: Answers) -> None:
    """Write the first samples as they go into the model, with their labels and what it answered."""
    first = answers.first(SLICE_SAMPLES)
    np.savez_compressed(
        path,
        input=images[:SLICE_SAMPLES],
        label=labels[:SLICE_SAMPLES],
        confidence=first.confidence.astype(np.float32),
        correct=first.correct,
        licence=np.array(LICENCE.read_text()),
    )
