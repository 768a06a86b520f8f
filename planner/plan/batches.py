"""Queues of samples that run as batches: how large batches become, and how long samples wait for and in them.

Samples of one priority that wait for the same blocks at a worker are served by a bulk queue: at each end of a batch,
the n samples that wait make up the next one, of the size s(n) that takes the least time t(s) per sample; without any,
the next sample begins one. With Poisson arrivals of rate λ, n is a Markov chain. Its stationary distribution π gives
the mean number that wait, and so the mean wait by Little's law:

    L = Σ_n π_n [(n − s) t_s + λ E t_s² / 2] / Σ_n π_n C_n,   C_n = t_s, and t_1 + 1 / λ without any

Others at the worker, as far as they are at least as important and take its share σ, prolong the time to the next batch
to t / (1 − σ), with a variance; the first sample after a pause finds them, or less important ones, at work; and those
that are equally important do not pass a sample that waits. How much they do is chosen such that the waits are exactly
those of priority queues (:mod:`planner.plan.queueing`) where all batches are of one sample. All others see the batches
as single visits of the mean size. So the queues of a worker depend on each other, and are found by iteration. Beyond
that it is an approximation: exact for one class of constant times alone at a worker.

References
----------
N. T. J. Bailey, "On queueing processes with bulk service", Journal of the Royal Statistical Society B 16 (1954).
M. F. Neuts, "A general class of bulk queues with Poisson input", Annals of Mathematical Statistics 38 (1967).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from planner.plan.journey import Visit
from planner.plan.queueing import Stream
from planner.profiling.batches import MOST
from planner.scenario.instance import Instance

_ROUNDS: Final = 30
_CLOSE: Final = 1e-4
"""How many times mean sizes are found again at most, and the change at which they are known."""
_STATES: Final = 600
"""Largest number of samples that is counted as waiting."""

Array = NDArray[np.float64]


class Batched(NamedTuple):
    """Streams of which some are served in batches.

    Parameters
    ----------
    streams
        What others see: batches of mean size as single visits.
    times_s
        Mean time of a sample's visit, waiting and work, by the number of its stream, for those served in batches.
    sizes
        Mean size of their batches, likewise.
    """

    streams: Sequence[Stream]
    times_s: Mapping[int, float]
    sizes: Mapping[int, float]


@dataclass
class _Group:
    """Streams of one priority that wait for the same blocks at one worker.

    Parameters
    ----------
    piece_s
        Times of the sessions of a batch, by its size from 1 on; shape [B, P], seconds.
    pays
        Size of the batch that up to B waiting samples make up; shape [B].
    hold_s
        Longest wait for a larger batch, in seconds.
    """

    level: int
    members: list[int]
    rate_per_s: float
    visit: Visit
    piece_s: Array
    pays: NDArray[np.intp]
    hold_s: float
    size: float = 1.0
    time_s: float = 0.0

    def at_mean_size(self) -> Visit:
        """Return the visit of a batch of mean size."""
        sizes = np.arange(1, len(self.piece_s) + 1)
        pieces = np.array([np.interp(self.size, sizes, column) for column in self.piece_s.T])
        return replace(self.visit, piece_s=pieces, piece_std_s=self.visit.piece_std_s * pieces / self.visit.piece_s)


def in_batches(instance: Instance, streams: Sequence[Stream], models: Sequence[str]) -> Batched:
    """Return streams as they are where some are served in batches.

    Parameters
    ----------
    models
        The model of each stream.
    """
    groups = _groups(instance, streams, models)
    if not groups:
        return Batched(streams, {}, {})
    seen = list(streams)
    for _ in range(_ROUNDS):
        change = 0.0
        for group in groups:
            visit = group.at_mean_size()
            for member in group.members:
                rate_per_s = streams[member].rate_per_s / group.size
                seen[member] = replace(streams[member], rate_per_s=rate_per_s, visit=visit)
        for group in groups:
            before = group.size
            _serve(group, [stream for number, stream in enumerate(seen) if number not in group.members])
            change = max(change, abs(group.size - before))
        if change < _CLOSE:
            break
    return Batched(
        seen,
        {member: group.time_s for group in groups for member in group.members},
        {member: group.size for group in groups for member in group.members},
    )


def _groups(instance: Instance, streams: Sequence[Stream], models: Sequence[str]) -> list[_Group]:
    together: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for number, (stream, model) in enumerate(zip(streams, models, strict=True)):
        site = stream.visit.site
        if site.transfer or stream.rate_per_s <= 0 or _most(instance, model, stream.visit) == 1:
            continue
        together[model, site, len(stream.visit.piece_s), stream.level, stream.visit.max_batch].append(number)
    lowest = max(stream.level for stream in streams)
    groups = []
    for members in together.values():
        first = streams[members[0]]
        piece_s = _piece_s(instance, models[members[0]], first.visit)
        per_sample_s = piece_s.sum(axis=1) / np.arange(1, len(piece_s) + 1)
        pays = [int(np.flatnonzero(per_sample_s[:most] <= per_sample_s[:most].min())[-1]) + 1
                for most in range(1, len(piece_s) + 1)]  # fmt: skip
        rate_per_s = sum(streams[member].rate_per_s for member in members)
        held = sum(
            streams[member].rate_per_s * instance.max_batch_wait_s(streams[member].source, first.visit.resource)
            for member in members
        )
        hold_s = held / rate_per_s if first.level or not lowest else 0.0
        groups.append(_Group(first.level, members, rate_per_s, first.visit, piece_s, np.array(pays), hold_s))
    return groups


def _most(instance: Instance, model: str, visit: Visit) -> int:
    """Return the size of the largest batch that makes a visit."""
    return min(instance.max_batch(model, visit.resource), visit.max_batch or MOST)


def _piece_s(instance: Instance, model: str, visit: Visit) -> Array:
    """Return the times of the sessions of a visit, by the size of the batch; shape [B, P], seconds."""
    worker, spans = visit.site.resource, visit.spans
    more = [
        [instance.batch_s(model, worker, first, last, size) for first, last in spans]
        for size in range(1, _most(instance, model, visit) + 1)
    ]
    return np.asarray(visit.piece_s + np.array(more))


def _serve(group: _Group, others: Sequence[Stream]) -> None:
    """Find the mean size of a group's batches and the mean time of its samples, given what else is at the worker."""
    here = [stream for stream in others if stream.visit.resource == group.visit.resource]
    above = sum(stream.rate_per_s * stream.visit.mean_s for stream in here if stream.level < group.level)
    ahead = sum(stream.rate_per_s * stream.visit.mean_s for stream in here if stream.level <= group.level)
    below = sum(stream.rate_per_s * stream.visit.mean_s for stream in here if stream.level > group.level)
    squares = sum(stream.rate_per_s * stream.visit.moments.square for stream in here if stream.level <= group.level)
    pieces = sum(stream.rate_per_s * stream.visit.moments.piece_square for stream in here if stream.level > group.level)
    free, best, alone_s = 1 - ahead, int(group.pays[-1]), group.piece_s.sum(axis=1)
    if not (free > 0 and group.rate_per_s * alone_s[best - 1] / best < free):
        group.size, group.time_s = float(best), math.inf
        return
    own = group.rate_per_s * _at(group.size, alone_s) / group.size
    last_s = group.piece_s[:, -1]
    spread = (group.visit.piece_std_s**2).sum() * (alone_s / alone_s[0]) ** 2
    queue = _BulkQueue(
        group,
        time_s=alone_s / free,
        variance=spread / free**2 + alone_s * squares / free**3,
        stay_s=(alone_s - last_s) / (1 - above) + last_s,
        found_s=(squares / free + pieces / max(free - own, below, 1e-12)) / (2 * free),
        states=min(_STATES, 8 * len(alone_s) + 40),
    )
    group.size, wait_s, stay_s = queue.solve()
    group.time_s = wait_s * free / (1 - above) + stay_s


def _at(size: float, time_s: Array) -> float:
    """Return the time of a batch of a size that is a mean."""
    return float(np.interp(size, np.arange(1, len(time_s) + 1), time_s))


@dataclass
class _BulkQueue:
    """The Markov chain of the samples that wait at the end of a batch.

    Parameters
    ----------
    time_s, variance
        Time of a batch by its size from 1 on, with what others do meanwhile, and its variance; shape [B].
    stay_s
        Time that a sample is in a batch; shape [B].
    found_s
        Mean time for which the first sample after a pause waits for others, in seconds.
    states
        Largest number of samples that is counted.
    """

    group: _Group
    time_s: Array
    variance: Array
    stay_s: Array
    found_s: float
    states: int

    def solve(self) -> tuple[float, float, float]:
        """Return the mean size of batches, and how long a sample waits for its batch and is in it, in seconds."""
        rate, most, group = self.group.rate_per_s, len(self.time_s), self.group
        sizes = group.pays[np.clip(np.arange(self.states + 1), 1, most) - 1]
        own_s, square = self.time_s[sizes - 1], (self.time_s**2 + self.variance)[sizes - 1]
        left = np.arange(self.states + 1) - sizes
        # By the number of samples that wait as a batch begins, from 1 on: moves, then what the batch takes.
        served = np.stack([own_s, left * own_s + rate * square / 2, sizes, sizes * self.stay_s[sizes - 1]], 1)
        come = {
            size: _arrivals(rate, self.time_s[size - 1], self.variance[size - 1], self.states)
            for size in set(sizes.tolist())
        }
        begun = np.zeros((self.states + 1, self.states + 1))
        for waiting in range(1, self.states + 1):
            begun[waiting] = _shifted(come[int(sizes[waiting])], int(left[waiting]))
        moves, taken = begun.copy(), served.copy()
        before_s = _at(group.size, self.time_s)
        for waiting in range(most if group.hold_s > 0 and group.pays[-1] > 1 else 1):
            there = max(waiting, 1)
            worth_s = group.hold_s if group.pays[-1] > group.pays[there - 1] else 0.0
            hold = _held(rate, _left_s(worth_s, before_s, waiting), most - there)
            found_s = 0.0 if waiting else self.found_s
            delays = [(1.0, hold)]
            if found_s > 0:  # two values with the mean and the second moment of the time for which others are at work
                busy = _Delay(2 * found_s, 2 * rate * found_s**2, _arrivals(rate, 2 * found_s, 0.0, self.states))
                delays = [(0.5, hold), (0.5, max(hold, busy, key=lambda delay: delay.mean_s))]
            moves[waiting], taken[waiting] = 0.0, 0.0
            for part, delay in delays:
                later = _shifted(_filled(delay.come, self.states + 1), there)
                length_s = delay.mean_s + (0.0 if waiting else 1 / rate)
                moves[waiting] += part * later @ begun
                taken[waiting] += part * (later @ served + [length_s, there * delay.mean_s + delay.waits_s, 0.0, 0.0])
        length_s, waits_s, samples, stays_s = _stationary(moves) @ taken
        return samples, waits_s / length_s / rate, stays_s / samples


class _Delay(NamedTuple):
    """Time before a batch begins: its mean, the mean sum of the waits of those that come, and how many do."""

    mean_s: float
    waits_s: float
    come: Array


def _left_s(hold_s: float, before_s: float, waiting: int) -> float:
    """Return what is left of a wait on average when some have come at random times of the batch before."""
    within_s = min(hold_s, before_s)
    return hold_s - within_s + within_s * (within_s / before_s) ** waiting / (waiting + 1)


def _held(rate_per_s: float, most_s: float, room: int) -> _Delay:
    """Return the wait for a larger batch: until ``room`` more samples have come, and for ``most_s`` at most."""
    count = _poisson(rate_per_s * most_s, room)
    count[-1] += 1 - count.sum()
    at_least = np.cumsum(count[::-1])[::-1][1:]  # 1, 2, …, room
    until_s = np.cumsum(at_least) / rate_per_s  # min(most_s, time of the j-th arrival)
    mean_s = float(until_s[-1]) if room else 0.0
    return _Delay(mean_s, float((mean_s - until_s).sum()), count)


def _arrivals(rate_per_s: float, mean_s: float, variance: float, most: int) -> Array:
    """Return the probabilities of 0 to ``most`` Poisson arrivals within a gamma distributed time, or a constant one."""
    if variance <= 1e-9 * mean_s**2:
        return _poisson(rate_per_s * mean_s, most)
    shape, scale = mean_s**2 / variance, rate_per_s * variance / mean_s
    counts = np.arange(most + 1)
    logs = np.array([math.lgamma(shape + count) - math.lgamma(count + 1) for count in counts]) - math.lgamma(shape)
    return np.asarray(np.exp(logs - shape * math.log1p(scale) - counts * math.log1p(1 / scale)))


def _filled(probabilities: Array, length: int) -> Array:
    return np.pad(probabilities, (0, length - len(probabilities)))


def _shifted(probabilities: Array, by: int) -> Array:
    """Return the probabilities of counts that are larger by ``by``; those beyond the last one count there."""
    found = np.zeros_like(probabilities)
    found[by:] = probabilities[: len(probabilities) - by]
    found[-1] += 1 - found.sum()
    return found


def _poisson(mean: float, most: int) -> Array:
    """Return the probabilities of 0 to ``most`` events."""
    counts = np.arange(most + 1)
    if mean <= 0:
        return np.asarray((counts == 0).astype(float))
    logs = counts * math.log(mean) - mean - np.array([math.lgamma(count + 1) for count in counts])
    return np.asarray(np.exp(logs))


def _stationary(moves: Array) -> Array:
    """Return the stationary distribution of a Markov chain."""
    count = len(moves)
    equations = np.vstack([(moves.T - np.eye(count))[:-1], np.ones(count)])
    found = np.linalg.solve(equations, np.append(np.zeros(count - 1), 1.0))
    return np.asarray(np.maximum(found, 0) / np.maximum(found, 0).sum())
