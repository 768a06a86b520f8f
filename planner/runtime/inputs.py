"""Inputs of models: read from files, or random for models without data."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.errors import Fault, RuntimeSessionError
from planner.model.chain import TensorSpec
from planner.runtime.arrays import open_arrays
from planner.runtime.session import BlockRunError, tensor_fault


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
        Tensors by name: standard normal floats, and zeros and ones for integers and booleans. Where a spec has bounds,
        whole numbers between them.

    Raises
    ------
    RuntimeSessionError
        If a dtype is not supported (strings).
    """
    return {spec.name: np.asarray(_draw(spec, rng)) for spec in specs}


def _draw(spec: TensorSpec, rng: np.random.Generator) -> NDArray[Any]:
    dtype = np.dtype(spec.dtype)
    if dtype.kind not in "fiub":
        raise RuntimeSessionError("no random data for this dtype", where=f"input {spec.name}", value=spec.dtype)
    if not _is_whole(spec):
        return rng.standard_normal(spec.shape).astype(dtype)
    drawn = np.asarray(rng.integers(*_range(spec), spec.shape, endpoint=True)).astype(dtype)
    if spec.bounds is None and len(spec.shape) > 1:
        drawn[..., :1] = 1  # it may be a mask, and one that hides all of a row gives not-a-number
    return drawn


def _is_whole(spec: TensorSpec) -> bool:
    """Return whether whole numbers are drawn for a tensor."""
    return spec.bounds is not None or np.dtype(spec.dtype).kind != "f"


def _range(spec: TensorSpec) -> tuple[int, int]:
    """Return the smallest and the largest whole number to draw."""
    low, high = spec.bounds or (0, 1)
    kind = np.dtype(spec.dtype).kind
    if kind == "b":
        return low, high
    limits = np.iinfo(spec.dtype) if kind in "iu" else np.finfo(spec.dtype)
    return max(low, int(limits.min)), min(high, int(limits.max))


def read_inputs(path: Path, specs: Sequence[TensorSpec]) -> dict[str, NDArray[Any]]:
    """Return a model's inputs from an ``.npz`` file, by name.

    Raises
    ------
    RuntimeSessionError
        If the file cannot be read, or its arrays are not the inputs of the model; all faults at once.
    """
    names = [spec.name for spec in specs]
    with open_arrays(path) as file:
        found = {name: file.stand_in(name) for name in file.names}
        faults = [
            Fault("not an input of the model", str(path), name, f"inputs named {', '.join(names)}")
            for name in found
            if name not in names
        ]
        misfits = [tensor_fault(spec, found.get(spec.name)) for spec in specs]
        faults += [replace(fault, where=f"{path}, {fault.where}") for fault in misfits if fault is not None]
        if faults:
            raise RuntimeSessionError(faults)
        return {name: file.read(name) for name in names}


@contextmanager
def hint_at_real_inputs(specs: Iterable[TensorSpec], option: str) -> Iterator[None]:
    """Let a failure of onnxruntime on drawn inputs say which values were drawn, and how to give real ones.

    Parameters
    ----------
    specs
        The model's inputs.
    option
        What to give, as in ``--inputs FILE.npz``.
    """
    try:
        yield
    except BlockRunError as error:
        drawn = [f"{spec.name} in {low}..{high}" for spec in specs for low, high in [_range(spec)] if _is_whole(spec)]
        hint = "; ".join([f"real values, with {option}", *([f"drawn were {', '.join(drawn)}"] if drawn else [])])
        raise BlockRunError(replace(fault, expected=hint) for fault in error.faults) from error


def largest_bytes(spec: TensorSpec) -> int:
    """Return the size of an array that is still read, to tell what does not fit: a larger one is no such tensor."""
    return 16 * spec.bytes + 2**24


def load_arrays(path: Path, names: Collection[str] | None = None) -> dict[str, NDArray[Any]]:
    """Return the arrays of an ``.npz`` file by name: those of ``names`` that it has, by default all.

    Raises
    ------
    RuntimeSessionError
        If the file cannot be read, is not an ``.npz`` file, or one of these arrays is damaged or too large.
    """
    with open_arrays(path) as file:
        return {name: file.read(name) for name in file.names if names is None or name in names}
