"""Inputs of models: read from files, or random for models without data."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from planner.errors import RuntimeSessionError
from planner.model.chain import TensorSpec
from planner.runtime.arrays import native

LARGEST_INTEGER: Final = 9
"""Largest random integer. Integers are often indices (tokens, classes), and small ones are valid for most tables."""


def random_inputs(specs: Iterable[TensorSpec], rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    """Return a random tensor for each spec.

    Parameters
    ----------
    specs
        Names, dtypes and shapes, all axes known.
    rng
        Random generator; the same seed gives the same tensors.

    Returns
    -------
    dict
        Tensors by name: standard normal floats, integers in 1..9, booleans with equal probability.

    Raises
    ------
    RuntimeSessionError
        If a dtype is not supported (strings).
    """
    return {spec.name: np.asarray(_draw(spec, rng)) for spec in specs}


def _draw(spec: TensorSpec, rng: np.random.Generator) -> NDArray[Any]:
    dtype = np.dtype(spec.dtype)
    if dtype.kind == "f":
        return rng.standard_normal(spec.shape).astype(dtype)
    if dtype.kind in "iu":
        return rng.integers(1, LARGEST_INTEGER, spec.shape, dtype=dtype, endpoint=True)
    if dtype.kind == "b":
        return rng.integers(0, 2, spec.shape).astype(bool)
    raise RuntimeSessionError("no random data for this dtype", where=f"input {spec.name}", value=spec.dtype)


def load_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of an ``.npz`` file by name.

    Raises
    ------
    RuntimeSessionError
        If the file cannot be read or is not an ``.npz`` file.
    """
    try:
        # Opened here: where the archive is broken, NumPy leaves a file open that it opened itself.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: native(archive[name]) for name in archive.files}
    # A single .npy array is not a context manager: a TypeError, before Python 3.11 an AttributeError.
    except (OSError, EOFError, ValueError, TypeError, AttributeError, BadZipFile) as error:
        raise RuntimeSessionError("not an .npz file", where=str(path), expected="arrays by name") from error
