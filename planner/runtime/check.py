"""Check that stage models, run one after the other, produce the outputs of the whole model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.errors import Fault, RuntimeSessionError
from planner.model.chain import Chain, TensorSpec
from planner.runtime.session import BlockSession

TOLERANCE = 1e-4
"""Largest acceptable relative error due to graph optimisation, which may fuse differently in stages."""

HALF_TOLERANCE = 8 * float(np.finfo(np.float16).eps)
"""Largest acceptable relative error if half-precision tensors cross cuts and are rounded there.

A CPU computes in single precision, and onnxruntime omits the rounding between its operators even if graph optimisation
is disabled (``InsertCastTransformer``). Outputs of such models are therefore not bit-equal either.
"""

SMALLEST_SCALE = 1e-30  # avoids a division by zero


@dataclass(frozen=True)
class StageModel:
    """Blocks ``first`` to ``last``, inclusive, as one model, serialised or in a file."""

    first: int
    last: int
    model: bytes | Path


@dataclass(frozen=True)
class OutputDifference:
    """Difference between actual and expected outputs.

    Parameters
    ----------
    max_abs_error
        Largest absolute difference over all outputs.
    max_rel_error
        Maximum over the outputs of max|a − b| / max|b|.
    bit_equal
        Whether all outputs are equal bit by bit.
    """

    max_abs_error: float
    max_rel_error: float
    bit_equal: bool


def tolerance_of(cuts: Sequence[Sequence[TensorSpec]]) -> float:
    """Return the largest acceptable relative error of a chain whose cuts these tensors cross."""
    half = any(tensor.dtype == "float16" for cut in cuts[1:-1] for tensor in cut)
    return HALF_TOLERANCE if half else TOLERANCE


def check_stages(
    chain: Chain,
    whole: bytes | Path,
    stages: Sequence[StageModel],
    inputs: Mapping[str, NDArray[Any]],
    *,
    optimise: bool,
) -> OutputDifference:
    """Run the whole model and its stages on the same inputs, and compare all outputs including exits.

    Parameters
    ----------
    chain
        The model's chain.
    whole
        The whole model.
    stages
        Stages that cover the chain, in order. Only one of them is loaded at a time.
    inputs
        Tensors of cut 0, by name.
    optimise
        Whether onnxruntime may optimise the graphs. Without optimisation the outputs are bit-equal, except with
        half precision.

    Raises
    ------
    RuntimeSessionError
        If inputs are unknown or do not match the model, or onnxruntime rejects a model.
    """
    _check_names(chain, inputs)
    expected = BlockSession(whole, name=chain.name, optimise=optimise).run(inputs)
    crossing = dict(inputs)
    results: dict[str, NDArray[Any]] = {}
    for stage in stages:
        name = f"{chain.name}, blocks {stage.first} to {stage.last}"
        crossing |= BlockSession(stage.model, name=name, optimise=optimise).run(crossing)
        names = {tensor.name for tensor in chain.cuts[stage.last + 1].tensors}
        results |= {
            exit_.name: crossing[exit_.name] for exit_ in chain.exits if stage.first < exit_.cut <= stage.last + 1
        }
        crossing = {name: value for name, value in crossing.items() if name in names}
    return compare(results | crossing, expected)


def compare(actual: Mapping[str, NDArray[Any]], expected: Mapping[str, NDArray[Any]]) -> OutputDifference:
    """Compare the tensors named in ``expected``."""
    absolute, relative, equal = 0.0, 0.0, True
    for name, right in expected.items():
        left = actual[name]
        equal = equal and left.dtype == right.dtype and left.tobytes() == right.tobytes()
        if right.size and left.tobytes() != right.tobytes():
            error = float(np.abs(left.astype(np.float64) - right.astype(np.float64)).max())
            scale = float(np.abs(right.astype(np.float64)).max())
            absolute, relative = max(absolute, error), max(relative, error / max(scale, SMALLEST_SCALE))
    return OutputDifference(absolute, relative, equal)


def _check_names(chain: Chain, inputs: Mapping[str, NDArray[Any]]) -> None:
    names = [tensor.name for tensor in chain.cuts[0].tensors]
    wrong = [name for name in inputs if name not in names]
    if wrong:
        expected = f"inputs named {', '.join(names)}"
        raise RuntimeSessionError(Fault("not an input of the model", chain.name, name, expected) for name in wrong)
