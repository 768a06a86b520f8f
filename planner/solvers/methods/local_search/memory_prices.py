"""Prices of memory in the Lagrangian bound: routes pay for the bytes of their blocks, workers sell what they have.

A source pays ρ_sd for each byte of its blocks on worker d. The worker holds one copy of a block for all sources, so a
byte of model m earns Σ_s ρ_sd over the sources that may use m. It holds the bytes that earn most, as many as fit.
"""

from __future__ import annotations

import numpy as np

from planner.solvers.core.problem import Array, Choice, Choices, Problem
from planner.solvers.core.room import fitting, room_for_weights


class MemoryPrices:
    """The memory of D workers for sale to S sources; without limited memory nothing is priced.

    Parameters
    ----------
    problem
        The problem with its memory limits.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.binds = problem.memory_binds
        self.uses = np.array(
            [
                [
                    any(problem.variants[variant].model == model for variant in demand.variants)
                    for model in range(len(problem.models))
                ]
                for demand in problem.demands
            ],
            dtype=float,
        )
        """Whether each source may use each model; shape [S, M]."""
        fits = fitting(problem)
        self.room_bytes = room_for_weights(problem)
        self.model_bytes = np.array(
            [(weights * fit).sum(axis=0) for weights, fit in zip(problem.weight_bytes, fits, strict=True)]
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of prices: [S, D], or no columns where memory does not bind."""
        return len(self.problem.demands), len(self.problem.workers) if self.binds else 0

    def first(self, choices: Choices | None) -> Array:
        """Return prices [S, D] at which workers faster than the slowest one of good routes cost as much as that."""
        prices = np.zeros(self.shape)
        if not self.binds or choices is None:
            return prices
        for source, (choice,) in enumerate(choices):
            demand, variant = self.problem.demands[source], self.problem.variants[choice.variant]
            work = demand.priority * demand.volume * (variant.reach[:-1] @ variant.block_s)
            slowest = work[list(set(choice.workers))].max()
            size = np.maximum(self.problem.weight_bytes[variant.model].sum(axis=0), 1.0)
            prices[source] = np.maximum(slowest - work, 0.0) / size
        return prices

    def scale(self, value: float) -> Array:
        """Return the square of an ordinary price [D] if all memory were worth ``value``."""
        if not self.binds:
            return np.zeros(0)
        return np.asarray((value / np.maximum(self.model_bytes.sum(axis=0), 1.0)) ** 2)

    def of_blocks(self, price: Array, variant: int) -> Array | None:
        """Return what a source with ``price`` [D] pays for each block of a variant; shape [L, D]."""
        return self.problem.weight_bytes[self.problem.variants[variant].model] * price if self.binds else None

    def count(self, slope: Array, choice: Choice) -> None:
        """Add the bytes of a route to one source's ``slope`` [D]."""
        if self.binds:
            weights = self.problem.weight_bytes[self.problem.variants[choice.variant].model]
            np.add.at(slope, list(choice.workers), weights[np.arange(len(choice.workers)), choice.workers])

    def least(self, price: Array, slope: Array) -> float:
        """Return what workers lose at most by selling memory; subtract the bytes sold from ``slope`` [S, D]."""
        if not self.binds:
            return 0.0
        earned = self.uses.T @ price
        left, value = self.room_bytes.copy(), 0.0
        everyone = np.arange(len(left))
        for model in np.argsort(-earned, axis=0, kind="stable"):
            sold = np.minimum(self.model_bytes[model, everyone], left)
            left -= sold
            value -= float((earned[model, everyone] * sold).sum())
            slope -= self.uses[:, model] * sold
        return value
