"""Lower bound on the largest load of a worker where memory is limited: the room for blocks within a given load.

Every block of every source runs on one worker. For a load T and any values u of the blocks, the workers together must
have room for all of them: Σ_d C_d(T, u) ≥ Σ u, where C_d is the largest value of blocks that one worker can run within
the load T and its memory. If the room is too small for some u, then T is a lower bound. C_d is bounded by fractional
knapsacks, whose one limit is a mixture of time and memory; for equal values, it is a whole number of blocks. Values
that prove as much as possible are found by multiplicative weights: blocks that found no room become more valuable.

References
----------
S. A. Plotkin, D. B. Shmoys and É. Tardos, "Fast approximation algorithms for fractional packing and covering problems",
Mathematics of Operations Research 20 (1995).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from planner.solvers.core.problem import Array, Problem, Residency

MIXTURES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Weights of time in the mixtures of time and memory."""
BISECTIONS = 20
VALUE_STEPS = 30
"""Steps in which values of blocks are adapted."""
STEP = 0.5
"""Relative change of a value in a step."""
ROUNDING = 1e-9
MOST_COMMON_BYTES = 2**53
"""Sizes up to this are whole numbers of bytes, of which a common divisor is exact."""
MAX_CELLS = 100_000
"""Most blocks of all sources times workers; beyond, the bound takes too long."""


@dataclass(frozen=True)
class Room:
    """The blocks of all sources, I in all, and the workers' room for them.

    Parameters
    ----------
    load
        Utilisation of each worker by each block; infinite where it may not run; shape [I, D].
    size_bytes
        Bytes of each block on each worker, divided among the sources that may share it; shape [I, D].
    room_bytes
        Memory of each worker for weights; shape [D].
    """

    load: Array
    size_bytes: Array
    room_bytes: Array

    @classmethod
    def of(cls, problem: Problem) -> Room:
        """Return the room of a problem; sources that may choose among several models are left out."""
        fits = fitting(problem)
        sources: dict[int, list[int]] = {}
        for source, demand in enumerate(problem.demands):
            models = {problem.variants[variant].model for variant in demand.variants}
            if len(models) == 1:
                sources.setdefault(models.pop(), []).append(source)
        loads, sizes = [np.zeros((0, len(problem.workers)))], [np.zeros((0, len(problem.workers)))]
        for model, users in sources.items():
            for source in users:
                demand = problem.demands[source]
                each = [
                    np.where(
                        problem.runs(source, variant) & fits[model],
                        demand.volume * problem.variants[variant].reach[:-1, None] * problem.variants[variant].block_s,
                        np.inf,
                    )
                    for variant in demand.variants
                ]
                loads.append(np.min(each, axis=0))
                sizes.append(problem.weight_bytes[model] / len(users))
        return cls(np.concatenate(loads), np.concatenate(sizes), room_for_weights(problem))

    def holds(self, most: float, value: Array) -> tuple[float, Array]:
        """Return an upper bound on the value of blocks [I] that have room within a load, and how much of each has.

        Equal values count whole blocks.
        """
        runs = np.isfinite(self.load) & (self.load <= most * (1 + ROUNDING))
        whole = bool((value == value[0]).all())
        best = np.full(self.load.shape[1], np.inf)
        held = np.zeros(self.load.shape)
        for part in MIXTURES if np.isfinite(most) else MIXTURES[:1]:
            used = self._used(most, part)
            used[~runs] = np.inf
            amount = _fractional_knapsack(used, value)
            worth = value @ amount
            if whole:
                worth = np.floor(worth / value[0] * (1 + ROUNDING) + ROUNDING) * value[0]
            better = worth < best
            best = np.where(better, worth, best)
            held[:, better] = amount[:, better]
        return float(best.sum()), held.sum(axis=1)

    def _used(self, most: float, part: float) -> Array:
        """Return the part of each worker that each block uses, of its time and its memory in a mixture; [I, D]."""
        held = np.isfinite(self.load) & (self.room_bytes > 0)
        memory = np.divide(self.size_bytes, self.room_bytes, out=np.zeros(self.load.shape), where=held)
        if part == 0.0 or most <= 0.0:
            return memory
        return np.asarray(part * (np.minimum(self.load, most) / most) + (1 - part) * memory)

    def lacks(self, most: float) -> bool:
        """Return whether the blocks have no room within a load; False if this is not proven."""
        if not len(self.load):
            return False
        value = np.ones(len(self.load))
        for step in range(VALUE_STEPS):
            worth, held = self.holds(most, value)
            if worth < value.sum() * (1 - ROUNDING):
                return True
            if step == 0:
                finite = np.where(np.isfinite(self.load), self.load, np.nan)
                value = np.nanmean(finite, axis=1) if np.isfinite(self.load).any(axis=1).all() else value
                value = value / value.max() if value.any() else np.ones(len(value))
                value /= value.mean()
                continue
            value *= np.exp(STEP * np.clip(1 - held, -1.0, 1.0))
            value /= value.mean()
        return False


def _fractional_knapsack(used: Array, value: Array) -> Array:
    """Return how much of each item [I] fills each knapsack of size 1 at the largest value; shape [I, D].

    Parameters
    ----------
    used
        Part of each knapsack that each item uses, infinite where it must not; shape [I, D].
    """
    finite = np.isfinite(used)
    ratio = np.where(finite, value[:, None] / np.maximum(used, 1e-300), -1.0)
    order = np.argsort(-ratio, axis=0, kind="stable")
    sorted_used = np.take_along_axis(np.where(finite, used, 0.0), order, axis=0)
    before = np.cumsum(sorted_used, axis=0) - sorted_used
    amount = np.clip((1 - before) / np.maximum(sorted_used, 1e-300), 0.0, 1.0)
    amount *= np.take_along_axis(finite, order, axis=0)
    result = np.zeros(used.shape)
    np.put_along_axis(result, order, amount, axis=0)
    return result


def lacks_room(problem: Problem) -> bool:
    """Return whether it is proven that the workers' memory has no room for all blocks."""
    return problem.memory_binds and _is_small(problem) and Room.of(problem).lacks(np.inf)


def _is_small(problem: Problem) -> bool:
    return problem.arcs / len(problem.workers) <= MAX_CELLS


def largest_load_bound(problem: Problem, most: float, stopped: Callable[[], bool]) -> float:
    """Return a lower bound on the largest load of any worker.

    Parameters
    ----------
    most
        An objective known to be possible, or infinity: a larger bound is of no use.
    """
    if not _is_small(problem):
        return 0.0
    room = Room.of(problem)
    finite = room.load[np.isfinite(room.load)]
    low, high = 0.0, min(most, float(finite.sum()) if finite.size else 0.0)
    for _ in range(BISECTIONS):
        if stopped():
            break
        middle = (low + high) / 2
        if room.lacks(middle):
            low = middle
        else:
            high = middle
    return low


def fitting(problem: Problem) -> Residency:
    """Return whether each block may reside on each worker, and alone fits there; shape [L, D] per model."""
    fits = tuple(
        weights + activations <= problem.memory_bytes
        for weights, activations in zip(problem.weight_bytes, problem.activation_bytes, strict=True)
    )
    if problem.resident is None:
        return fits
    return tuple(fit & allowed for fit, allowed in zip(fits, problem.resident, strict=True))


def without_binary_residency(problem: Problem) -> Problem:
    """Return the relaxation in which blocks may be resident in part, as much as samples use them.

    A block on a worker takes at least the largest share, over the sources, of the samples that run it there. That is at
    least the mean share over all sources that may use its model, to which the room of a worker is a linear limit.
    """
    unlimited = np.full(len(problem.workers), np.inf)
    room, fits = room_for_weights(problem), fitting(problem)
    parts = []
    for model, (weights, fit) in enumerate(zip(problem.weight_bytes, fits, strict=True)):
        users = sum(any(problem.variants[v].model == model for v in demand.variants) for demand in problem.demands)
        part = np.zeros(weights.shape)
        np.divide(weights, max(users, 1) * room, out=part, where=fit & (room > 0))
        parts.append(part)
    return replace(problem, memory_bytes=unlimited, resident=fits, room_parts=tuple(parts))


def room_for_weights(problem: Problem) -> Array:
    """Return the most bytes of weights that each worker can hold; shape [D].

    The least activation needs its room, and only multiples of the blocks' common divisor can be used.
    """
    fits = fitting(problem)
    least = np.min(
        [
            np.where(fit, activations, np.inf).min(axis=0)
            for fit, activations in zip(fits, problem.activation_bytes, strict=True)
        ],
        axis=0,
    )
    room = np.maximum(np.where(np.isfinite(least), problem.memory_bytes - least, 0.0), 0.0)
    for worker in range(len(room)):
        sizes = np.concatenate(
            [weights[fit[:, worker], worker] for weights, fit in zip(problem.weight_bytes, fits, strict=True)]
        )
        if room[worker] < MOST_COMMON_BYTES and (sizes == np.floor(sizes)).all() and sizes.any():
            common = math.gcd(*sizes.astype(np.int64).tolist())
            room[worker] = common * (room[worker] // common)
    return np.asarray(room)
