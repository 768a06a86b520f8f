"""Differences between the outputs of two runs of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Errors(NamedTuple):
    """Largest errors of a tensor: max|a − b|, and the same divided by max|b|."""

    absolute: float
    relative: float


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

    def to_dict(self) -> dict[str, float | bool | None]:
        """Return the difference as JSON data."""
        return {
            "max_abs_error": json_number(self.max_abs_error),
            "max_rel_error": json_number(self.max_rel_error),
            "bit_equal": self.bit_equal,
        }


def json_number(error: float) -> float | None:
    """Return an error as JSON data: None if it is infinite, which JSON lacks."""
    return error if isfinite(error) else None


def largest(differences: Sequence[OutputDifference]) -> OutputDifference:
    """Return the largest of several differences."""
    return OutputDifference(
        max((each.max_abs_error for each in differences), default=0.0),
        max((each.max_rel_error for each in differences), default=0.0),
        all(each.bit_equal for each in differences),
    )


def compare(actual: Mapping[str, NDArray[Any]], expected: Mapping[str, NDArray[Any]]) -> OutputDifference:
    """Compare the tensors named in ``expected``; one that is missing in ``actual`` differs infinitely."""
    errors = [tensor_errors(actual.get(name), right) for name, right in expected.items()]
    return OutputDifference(
        max((error.absolute for error in errors), default=0.0),
        max((error.relative for error in errors), default=0.0),
        all(_bit_equal(actual.get(name), right) for name, right in expected.items()),
    )


def tensor_errors(actual: NDArray[Any] | None, expected: NDArray[Any]) -> Errors:
    """Return the errors of a tensor: infinite if it is missing, misshapen, or not finite where ``expected`` is.

    Values that are equal, NaN and infinite ones included, have no error. The scale of the relative error is the largest
    finite magnitude; if that is 0, the relative error is the absolute one.
    """
    if actual is None or actual.shape != expected.shape:
        return Errors(inf, inf)
    left, right = actual.astype(np.float64), expected.astype(np.float64)
    differs = ~((left == right) | (np.isnan(left) & np.isnan(right)))
    if not differs.any():
        return Errors(0.0, 0.0)
    # An infinite value less another one, or NaN, is NaN.
    with np.errstate(invalid="ignore"):
        absolute = float(np.nan_to_num(np.abs(left[differs] - right[differs]), nan=inf, posinf=inf).max())
    scale = float(np.abs(right[np.isfinite(right)]).max(initial=0.0))
    return Errors(absolute, absolute / scale if scale > 0 else absolute)


def _bit_equal(actual: NDArray[Any] | None, expected: NDArray[Any]) -> bool:
    return actual is not None and actual.dtype == expected.dtype and actual.tobytes() == expected.tobytes()
