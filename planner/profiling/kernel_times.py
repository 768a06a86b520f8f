"""A model of a device: the time of a block as a sum over the terms of its kinds of operators, fitted to measurements.

The time of a block is::

    call + Σ_kind (kernels · launch + flop · a + activation_bytes · b + weight_bytes · c)

with positive coefficients for each kind: an additive roofline. A few measurements do not determine all of them. They
are therefore fitted as *corrections*: the logarithm of a coefficient is that of a nominal device, plus one that all
coefficients share (the device is faster or slower), plus one of its own, which is penalised by its square (ridge
regression). Each file of measurements has a speed of its own, penalised likewise: a device is not equally fast at all
moments, and what the sum over kinds misses goes the same way in all blocks of a model. Squares of relative errors are
minimised: residuals are differences of logarithms.

No penalty is chosen. Errors in cross-validation differ less from penalty to penalty than by chance, and where a model
is left out, the choice tends to the penalty that suits it least, since its own error is missing from the comparison.
The coefficients are therefore means of fits with each penalty, and so are the times, which are linear in them.

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
SHARED_RIDGE: Final = 1e-6
"""Keeps the steps finite."""
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
    file
        What was measured at one time, and has a speed of its own.
    is_part
        Whether the blocks of the file make up a model, whose time counts as well.
    """

    group: str
    work: Work
    time_s: float
    file: int = 0
    is_part: bool = False


@dataclass(frozen=True)
class KernelTimes:
    """Fitted coefficients of a device.

    Parameters
    ----------
    seconds
        Coefficient of each kind and term, in seconds per unit of the term.
    """

    seconds: dict[Coefficient, float]

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
        self._files = np.array([item.file for item in measurements])
        self._is_part = np.array([item.is_part for item in measurements])
        self._amounts = np.array([_amounts(item.work, self.coefficients) for item in measurements])
        self._time_s = np.array([item.time_s for item in measurements])
        self._nominal = np.array([nominal(key) for key in self.coefficients])

    def fit(self, without: frozenset[str] = frozenset(), penalties: Sequence[float] = PENALTIES) -> KernelTimes:
        """Return the mean of the coefficients that fit best with each penalty, without some groups' measurements."""
        kept = np.array([group not in without for group in self._groups])
        rows, time_s, files = self._amounts[kept] * self._nominal, self._time_s[kept], self._files[kept]
        wholes = np.unique(files[self._is_part[kept]])
        member = (files == wholes[:, None]).astype(float)
        sizes = np.maximum(member.sum(axis=1) @ member, 1)
        weight = np.append(np.sqrt(np.minimum(time_s / SHORT_S, 1.0) / sizes), np.ones(len(wholes)))
        rows, time_s = np.vstack([rows, member @ rows]), np.append(time_s, member @ time_s)
        files = np.append(files, wholes)
        speeds = (files[:, None] == np.unique(files)).astype(float)
        corrections = [_ridge(rows, time_s, speeds, weight, penalty) for penalty in penalties]
        return KernelTimes(
            dict(zip(self.coefficients, (self._nominal * np.mean(corrections, axis=0)).tolist(), strict=True))
        )


def _ridge(rows: Array, time_s: Array, speeds: Array, weight: Array, penalty: float) -> Array:
    """Minimise Σ (w (log(rows·exp(shared + own) / time) + speeds·v))² + penalty² (Σ own² + Σ v²).

    By damped Gauss-Newton steps. Returns exp(shared + own), of shape [K].

    Parameters
    ----------
    rows
        Nominal time by measurement and coefficient, of shape [N, K].
    speeds
        1 for the file of each measurement, else 0, of shape [N, F].
    """
    count = rows.shape[1]
    ridge = penalty**2 * np.append(0.0, np.ones(count + speeds.shape[1]))
    found = np.append(np.log(time_s / rows.sum(axis=1)).mean(), np.zeros(len(ridge) - 1))
    damping = 1e-3

    def loss_of(found: Array) -> tuple[float, Array, Array]:
        predicted = rows * np.exp(found[0] + found[1 : count + 1])
        total = predicted.sum(axis=1)
        residual = weight * (np.log(total / time_s) + speeds @ found[count + 1 :])
        slope = predicted / total[:, None]
        jacobian = weight[:, None] * np.column_stack([slope.sum(axis=1), slope, speeds])
        return float(residual @ residual + ridge @ found**2), residual, jacobian

    loss, residual, jacobian = loss_of(found)
    for _ in range(STEPS):
        gradient = jacobian.T @ residual + ridge * found
        step = np.linalg.solve(jacobian.T @ jacobian + np.diag(ridge + SHARED_RIDGE + damping), -gradient)
        step *= min(1.0, 2.0 / max(np.abs(step).max(), 1e-12))
        trial = loss_of(found + step)
        if trial[0] <= loss:
            found, damping = found + step, damping / 4
            (loss, residual, jacobian), before = trial, loss
            if before - loss < CONVERGED * before:
                break
        else:
            damping = max(damping, 1e-6) * 8
    fitted: NDArray[np.float64] = np.exp(found[0] + found[1 : count + 1])
    return fitted


def _amounts(work: Work, coefficients: Sequence[Coefficient]) -> list[float]:
    empty = dict.fromkeys(TERMS, 0.0)
    amounts = {kind: {term: getattr(kernels, term) for term in TERMS} for kind, kernels in work.items()}
    return [1.0 if key == CALL else amounts.get(key[0], empty)[key[1]] for key in coefficients]
