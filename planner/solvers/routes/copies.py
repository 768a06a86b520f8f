"""Further copies of blocks in memory that single routes leave free, for routes that share samples among them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from planner.solvers.core.problem import Array, Choices, Problem, Residency
from planner.solvers.core.room import fitting

MAX_RUNS = 4
"""Most runs of consecutive blocks that are added to a worker."""


def with_copies(problem: Problem, choices: Choices) -> Residency:
    """Return the blocks that routes need on each worker, and further copies where there is room.

    The least busy worker is filled first, with the run of blocks whose present workers are busiest in all.
    """
    held = tuple(blocks.copy() for blocks in problem.residency(choices))
    busy = (problem.load(choices).sum(axis=0) / problem.usable)[: len(problem.workers)]
    pressure = [_pressure(blocks, busy) for blocks in held]
    for worker in np.argsort(busy, kind="stable").tolist():
        for _ in range(MAX_RUNS):
            model, first, end = _best_run(problem, held, pressure, worker)
            if first == end:
                break
            new = ~held[model][first:end, worker]
            copies = held[model][first:end].sum(axis=1)
            pressure[model][first:end] *= np.where(new, copies / (copies + 1), 1.0)
            held[model][first:end, worker] = True
    return held


def _pressure(held: NDArray[np.bool_], busy: Array) -> Array:
    """Return the mean utilisation of the workers that hold each block, 0 for blocks that none holds; shape [L]."""
    return np.asarray((held @ busy) / np.maximum(held.sum(axis=1), 1))


def _best_run(problem: Problem, held: Residency, pressure: list[Array], worker: int) -> tuple[int, int, int]:
    """Return the model, first block and end of the run with most pressure in all that fits on a worker beside others.

    The run is empty if none fits.
    """
    weights, largest = (values[worker] for values in problem.resident_bytes(held))
    best, run = 0.0, (0, 0, 0)
    for model, fits in enumerate(fitting(problem)):
        peak = max(largest, float(problem.activation_bytes[model][:, worker].max(where=fits[:, worker], initial=0.0)))
        room = problem.memory_bytes[worker] - weights - peak
        new = ~held[model][:, worker]
        size = np.where(new, problem.weight_bytes[model][:, worker], 0.0)
        gain = np.where(new, pressure[model], 0.0)
        first, used, gained = 0, 0.0, 0.0
        for block in range(len(size)):
            used, gained = used + size[block], gained + gain[block]
            while first <= block and (used > room or not fits[block, worker]):
                used, gained, first = used - size[first], gained - gain[first], first + 1
            if gained > best * (1 + 1e-9):
                best, run = gained, (model, first, block + 1)
    return run
