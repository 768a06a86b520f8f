"""A model of a device: the time of a block as a sum over the terms of its kinds of operators, fitted to measurements.

The time of a block is::

    call + Σ_kind (kernels · launch + flop · a + activation_bytes · b + weight_bytes · c)

with positive coefficients for each kind: an additive roofline. A few measurements do not determine all of them. They
are therefore fitted as *corrections*: the logarithm of a coefficient is that of a nominal device, plus one that all
coefficients share (the device is faster or slower), plus one of its own, which is penalised by its square (ridge
regression). The penalty is chosen by cross-validation over groups of measurements. Squares of relative errors are
minimised: residuals are differences of logarithms.

A prediction of kernels whose parameters come from a few measurements on a new device is the idea of LitePred (Feng et
al., NSDI 2024), which transfers the predictors of known devices, and of MAPLE (Abbasi et al., 2021, arXiv:2111.15106).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from planner.model.work import TERMS, Work

Array = NDArray[np.float64]
Coefficient = tuple[str, str]
"""Kind and term; the call of a block has the kind ``call``."""

CALL: Final[Coefficient] = ("call", "kernels")
NOMINAL: Final = {"kernels": 2e-6, "flop": 1 / 50e9, "activation_bytes": 1 / 10e9, "weight_bytes": 1 / 10e9}
"""Coefficients of a nominal device; only their ratios matter much."""
FUSED_SHARE: Final = 0.05
"""Nominal share of the time of fused operators, which are computed in registers."""

PENALTIES: Final = (0.01, 0.03, 0.1, 0.3, 1.0)
SCALE_PENALTY: Final = 1e-3
STEPS: Final = 40
CONVERGED: Final = 1e-7
"""Relative decrease of the sum of squares in a step, below which the fit ends."""
SHORT_S: Final = 3e-4
"""Blocks shorter than this count less, because launching and noise make up much of their time."""


@dataclass(frozen=True)
class Measurement:
    """Measured time of a block.

    Parameters
    ----------
    group
        What is left out together in cross-validation: the model of the block.
    work
        Work by kind.
    time_s
        Measured time, in seconds.
    whole
        Name of the model that the block is a part of, whose time counts as well; None for a block that counts alone.
    """

    group: str
    work: Work
    time_s: float
    whole: str | None = None


@dataclass(frozen=True)
class KernelTimes:
    """Fitted coefficients of a device.

    Parameters
    ----------
    seconds
        Coefficient of each kind and term, in seconds per unit of the term.
    penalty
        Penalty of the corrections.
    """

    seconds: dict[Coefficient, float]
    penalty: float

    def time_s(self, work: Work) -> float:
        """Return the time of a block; kinds that were never measured have the nominal coefficients, scaled."""
        return self.seconds[CALL] + math.fsum(
            amount * self.coefficient(kind, term)
            for kind, kernels in work.items()
            for term in TERMS
            if (amount := getattr(kernels, term))
        )

    def coefficient(self, kind: str, term: str) -> float:
        """Return the seconds per unit of a term."""
        known = self.seconds.get((kind, term))
        return nominal((kind, term)) * self.scale if known is None else known

    @cached_property
    def kinds(self) -> frozenset[str]:
        """Kinds of operators that were measured."""
        return frozenset(kind for kind, _ in self.seconds)

    @cached_property
    def scale(self) -> float:
        """How many times slower than the nominal device it is: the geometric mean over the coefficients."""
        return float(np.exp(np.mean([np.log(value / nominal(key)) for key, value in self.seconds.items()])))


def nominal(coefficient: Coefficient) -> float:
    """Return the coefficient of the nominal device."""
    kind, term = coefficient
    return NOMINAL[term] * (FUSED_SHARE if kind == "fused" else 1.0)


class Fitter:
    """Fits the coefficients of a device to measurements, or to those of some of the groups.

    Parameters
    ----------
    measurements
        N measurements.
    """

    def __init__(self, measurements: Sequence[Measurement]) -> None:
        used = {
            (kind, term): None
            for item in measurements
            for kind, kernels in item.work.items()
            for term in TERMS
            if getattr(kernels, term)
        }
        self.coefficients: list[Coefficient] = [CALL, *sorted(used)]
        self._groups = [item.group for item in measurements]
        self._wholes = [item.whole for item in measurements]
        self._amounts = np.array([_amounts(item.work, self.coefficients) for item in measurements])
        self._time_s = np.array([item.time_s for item in measurements])
        self._nominal = np.array([nominal(key) for key in self.coefficients])

    def fit(self, penalty: float, without: frozenset[str] = frozenset()) -> KernelTimes:
        """Return the coefficients that fit best, without the measurements of some groups."""
        kept = np.array([group not in without for group in self._groups])
        rows, time_s = self._amounts[kept] * self._nominal, self._time_s[kept]
        parts = [whole for whole, keep in zip(self._wholes, kept, strict=True) if keep]
        wholes = sorted({whole for whole in parts if whole is not None})
        member = np.array([[float(part == whole) for part in parts] for whole in wholes]).reshape(-1, len(parts))
        sizes = np.array([1 if part is None else parts.count(part) for part in parts])
        weight = np.sqrt(np.minimum(time_s / SHORT_S, 1.0) / sizes)
        rows, time_s = np.vstack([rows, member @ rows]), np.append(time_s, member @ time_s)
        weight = np.append(weight, np.ones(len(wholes)))
        return KernelTimes(
            dict(zip(self.coefficients, (self._nominal * _ridge(rows, time_s, weight, penalty)).tolist(), strict=True)),
            penalty,
        )


def _ridge(rows: Array, time_s: Array, weight: Array, penalty: float) -> Array:
    """Minimise Σ (w log(rows·exp(shared + own) / time))² + penalty² Σ own² by damped Gauss-Newton steps.

    Returns exp(shared + own), of shape [K].
    """
    count = rows.shape[1]
    shared = float(np.log(time_s / rows.sum(axis=1)).mean())
    own, damping = np.zeros(count), 1e-3
    ridge = np.append(SCALE_PENALTY, np.full(count, penalty))

    def loss_of(shared: float, own: Array) -> tuple[float, Array, Array]:
        predicted = rows * np.exp(shared + own)
        total = predicted.sum(axis=1)
        residual = weight * np.log(total / time_s)
        loss = float(residual @ residual + penalty**2 * (own @ own))
        return loss, residual, weight[:, None] * predicted / total[:, None]

    loss, residual, slope = loss_of(shared, own)
    for _ in range(STEPS):
        jacobian = np.column_stack([slope.sum(axis=1), slope])
        gradient = jacobian.T @ residual + np.append(0.0, penalty**2 * own)
        step = np.linalg.solve(jacobian.T @ jacobian + np.diag(ridge**2 + damping), -gradient)
        size = np.abs(step).max()
        step *= min(1.0, 2.0 / max(size, 1e-12))
        trial = loss_of(shared + step[0], own + step[1:])
        if trial[0] <= loss:
            shared, own, damping = shared + step[0], own + step[1:], damping / 4
            (loss, residual, slope), before = trial, loss
            if before - loss < CONVERGED * before:
                break
        else:
            damping = max(damping, 1e-6) * 8
    return np.exp(shared + own)


def _amounts(work: Work, coefficients: Sequence[Coefficient]) -> list[float]:
    empty = dict.fromkeys(TERMS, 0.0)
    amounts = {kind: {term: getattr(kernels, term) for term in TERMS} for kind, kernels in work.items()}
    return [1.0 if key == CALL else amounts.get(key[0], empty)[key[1]] for key in coefficients]
