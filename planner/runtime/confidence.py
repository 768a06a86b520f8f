"""Confidence of a classifier, on which early exits are decided."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def confidence(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Return the largest softmax probability.

    Parameters
    ----------
    logits
        Scores of shape [..., classes].

    Returns
    -------
    numpy.ndarray
        Confidence of shape [...], in (0, 1].
    """
    scores = np.asarray(logits, np.float64)
    return np.asarray(1 / np.exp(scores - scores.max(-1, keepdims=True)).sum(-1))
