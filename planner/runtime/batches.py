"""Samples that run as one batch: their tensors one after the other along the first axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.errors import RuntimeSessionError


def joined(samples: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """Return the tensors of a batch of one or more samples.

    Raises
    ------
    RuntimeSessionError
        If samples have other tensors than the first one, or tensors of another dtype or shape.
    """
    first = samples[0]
    for number, sample in enumerate(samples):
        for name, tensor in first.items():
            other = sample.get(name)
            if other is None or other.dtype != tensor.dtype or other.shape != tensor.shape:
                found = "none" if other is None else f"{other.dtype} {list(other.shape)}"
                raise RuntimeSessionError(
                    "samples that differ cannot run together",
                    where=f"tensor {name} of sample {number} of the batch",
                    value=found,
                    expected=f"{tensor.dtype} {list(tensor.shape)}",
                )
    return {name: np.concatenate([sample[name] for sample in samples]) for name in first}


def split(tensors: Mapping[str, NDArray[Any]], count: int) -> list[dict[str, NDArray[Any]]]:
    """Return the tensors of each of ``count`` samples of a batch; each has memory of its own.

    Raises
    ------
    RuntimeSessionError
        If the first axis of a tensor does not count samples.
    """
    for name, tensor in tensors.items():
        if tensor.ndim == 0 or tensor.shape[0] % count:
            raise RuntimeSessionError(
                "this tensor cannot be divided among the samples of a batch",
                where=f"tensor {name}",
                value=list(tensor.shape),
                expected=f"a first axis of {count} equal parts",
            )
    parts = {name: np.split(tensor, count) for name, tensor in tensors.items()}
    return [{name: part[index].copy() for name, part in parts.items()} for index in range(count)]
