"""Inputs of a run whose sources have no data of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from planner.model.chain import TensorSpec
from planner.runtime.inputs import random_inputs

POOL: Final = 16
"""Distinct inputs of a source. They are drawn before the run, not in it; its samples take them in turn."""


def input_pool(
    specs: Sequence[TensorSpec], *, seed: int, source_index: int, samples: int
) -> list[dict[str, NDArray[Any]]]:
    """Draw a source's inputs; agent and reference draw the same.

    Parameters
    ----------
    specs
        The tensors of cut 0.
    source_index
        Position of the source in the scenario.
    samples
        How many samples the source has; sample k takes entry k modulo the length of the result.
    """
    return [
        random_inputs(specs, np.random.default_rng([seed, source_index, entry])) for entry in range(min(samples, POOL))
    ]


def prompt_pool(length: int, vocabulary: int, *, seed: int, source_index: int, samples: int) -> list[list[int]]:
    """Draw the prompts of a source of sequences; agent and reference draw the same.

    Parameters
    ----------
    length
        Tokens of each prompt.
    vocabulary
        Number of tokens of the model.
    source_index, samples
        As for :func:`input_pool`.
    """
    return [
        np.random.default_rng([seed, source_index, entry]).integers(0, vocabulary, length).tolist()
        for entry in range(min(samples, POOL))
    ]
