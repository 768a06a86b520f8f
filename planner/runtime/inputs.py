"""Inputs of models: from files, and random ones for models that come without data."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from planner.errors import RuntimeSessionError
from planner.model.chain import TensorSpec

LARGEST_INTEGER: Final = 9
"""Integers are often indices (tokens, classes): small and positive ones fit nearly every table."""


def random_inputs(specs: Iterable[TensorSpec], rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    """Draw a tensor for each spec.

    Parameters
    ----------
    specs
        Names, dtypes and shapes, all axes known.
    rng
        Where the numbers come from, so that a seed repeats them.

    Returns
    -------
    dict
        By name: floats standard normal, integers in 1..9, booleans true or false with equal chance.

    Raises
    ------
    RuntimeSessionError
        A dtype that no random data can be drawn for (strings).
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
    """Read arrays by name from an ``.npz`` file.

    Raises
    ------
    RuntimeSessionError
        It cannot be read, or is something else.
    """
    try:
        # Opened here: where the archive is broken, NumPy leaves a file open that it opened itself.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    # A lone .npy array is no context: a TypeError, before Python 3.11 an AttributeError.
    except (OSError, EOFError, ValueError, TypeError, AttributeError, BadZipFile) as error:
        raise RuntimeSessionError("not an .npz file", where=str(path), expected="arrays by name") from error
