"""Simulated annealing towards routes within limits on loads, delays, memory and visits.

The energy is the sum of all relative excesses over the limits, so routes with energy 0 satisfy all of them. A move
gives a run of consecutive blocks to another worker, shifts the border between two stages, or exchanges the workers of
two runs. Exchanges matter most: where all workers are nearly full, no single block can move.

References
----------
S. Kirkpatrick, C. D. Gelatt and M. P. Vecchi, "Optimization by simulated annealing", Science 220 (1983).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

import numpy as np

from planner.solvers.core.problem import Array, Choices, Problem, stages
from planner.solvers.routes.random_run import random_run

FIRST_TEMPERATURE, LAST_TEMPERATURE = 0.05, 0.0005
"""Temperatures in units of relative excess: at first, exceeding a limit by 5 % is accepted in one of e cases."""
EXCHANGE_SHARE = 0.3
"""Share of the moves that exchange the workers of two runs."""
BORDER_SHARE = 0.4
"""Share of the plain moves that shift the border between two stages."""
TOLERANCE = 1e-12
"""Energy that counts as 0."""

Change = dict[int, float]
"""Change of measures by index."""
Hops = list[list[list[tuple[int, float]] | None]]
"""Resources and seconds per byte on the path between two workers; None without a path."""
MAX_MOVES, MOVES_PER_PAIR = 100_000, 250
"""Most moves of one run, and moves per pair of a block and a worker."""
MOVES_PER_CHECK = 1000
"""Moves between two looks at the clock."""


@dataclass
class _Chain:
    """The blocks of one source; ``workers`` [L + 2] begins and ends with the source's worker.

    Parameters
    ----------
    load, seconds
        Utilisation, and time of a sample, by the blocks before each cut on each worker; [D][L + 1].
    forbidden
        Number of blocks before each cut that may not run on each worker; [D][L + 1].
    size, reach
        Bytes per second and probability of a transfer across each cut; [L + 1].
    begin, begin_s
        Utilisation, and time of a sample, to begin a stage after each cut; [L + 1][D].
    exits
        Blocks with exits: block, bytes per second and probability.
    block_bytes
        Weights of each block on each worker; [L][D].
    delay, visits
        Index of the measure of this source's delay, and of the first of its visits to workers; −1 if unlimited.
    """

    workers: list[int]
    volume: float
    load: list[list[float]]
    seconds: list[list[float]]
    forbidden: list[list[int]]
    size: list[float]
    reach: list[float]
    begin: list[list[float]]
    begin_s: list[list[float]]
    exits: list[tuple[int, float, float]]
    model: int
    block_bytes: list[list[float]]
    delay: int = -1
    visits: int = -1


class Annealing:
    """Routes that change move by move, with their measures.

    The measures are the utilisation of each of the R resources, the unloaded delay of each of the S sources, the
    weights on each of the D workers, and the visits of each source to each worker. ``measure`` has only those that are
    limited; the variants of ``choices`` stay.
    """

    def __init__(self, problem: Problem, choices: Choices, random: Random) -> None:
        self.problem, self.choices, self.random = problem, choices, random
        workers = range(len(problem.workers))
        self.hops: Hops = [[_hops(problem, sender, receiver) for receiver in workers] for sender in workers]
        self.latency_s: list[list[float]] = problem.latency_s.tolist()
        self.slowness: list[list[float]] = problem.hop_s_per_byte.sum(axis=2).tolist()
        self.measure: list[float] = problem.load(choices).sum(axis=0).tolist()
        timed = problem.goal == "makespan" or any(np.isfinite(demand.deadline_s) for demand in problem.demands)
        self.chains = [_chain(problem, source, choice.variant) for source, (choice,) in enumerate(choices)]
        self.places = [(chain, block) for chain in self.chains for block in range(len(chain.reach) - 1)]
        self.delays = len(self.measure)
        for source, chain in enumerate(self.chains):
            (choice,) = choices[source]
            chain.workers = [problem.demands[source].home, *choice.workers, problem.demands[source].home]
            if timed:
                chain.delay = len(self.measure)
                self.measure.append(problem.cost(source, choice).unloaded_s)
        self.memory = len(self.measure)
        self.copies: dict[tuple[int, int, int], int] = {}
        if problem.memory_binds:
            self._count_copies()
        self.visits = len(self.measure)
        if problem.max_visits is not None:
            self._count_visits()

    def _count_copies(self) -> None:
        self.measure += [0.0] * len(self.problem.workers)
        for chain in self.chains:
            for block, worker in enumerate(chain.workers[1:-1]):
                change: Change = {}
                self._copy(change, chain, block, worker, 1)
                self._apply(change)

    def _count_visits(self) -> None:
        for chain in self.chains:
            chain.visits = len(self.measure)
            self.measure += [0.0] * len(self.problem.workers)
            for worker, _, _ in stages(tuple(chain.workers[1:-1])):
                self.measure[chain.visits + worker] += 1

    def limits(self, most_load: float, most_delay_s: float) -> list[float]:
        """Return the limits of all measures: those of the problem, and the given ones on loads and delays."""
        problem = self.problem
        limits: list[float] = np.minimum(most_load * problem.usable, problem.caps).tolist()
        if self.memory > self.delays:
            limits += [min(most_delay_s, demand.deadline_s) for demand in problem.demands]
        if self.visits > self.memory:
            limits += _room(problem)
        return limits + [float(problem.max_visits or 0)] * (len(self.measure) - self.visits)

    def run(
        self,
        most_load: float,
        most_delay_s: float = math.inf,
        *,
        times: int = 1,
        stopped: Callable[[], bool] = lambda: False,
    ) -> Choices | None:
        """Return routes within the limits on loads and delays, or the last ones if the moves were not enough.

        The moves are as many ``times`` the usual number.

        Returns
        -------
        Choices or None
            None if ``stopped`` became true: longer runs would not see the last routes, and more time must not be worse.
        """
        moves = times * min(MAX_MOVES, MOVES_PER_PAIR * len(self.places) * len(self.hops))
        limit = self.limits(most_load, most_delay_s)
        # For ``makespan`` an excess of a delay is as bad as the same excess of a load.
        least = most_load if self.problem.goal == "makespan" else 0.0
        weight = [
            1 / max(most, least if self.delays <= index < self.memory else 0.0, 1e-9)
            for index, most in enumerate(limit)
        ]
        measure, random, accept = self.measure, self.random.random, math.exp
        energy = sum(max(0.0, value - most) * per for value, most, per in zip(measure, limit, weight, strict=True))
        temperature, cooling = FIRST_TEMPERATURE, (LAST_TEMPERATURE / FIRST_TEMPERATURE) ** (1 / moves)
        for number in range(moves):
            if energy <= TOLERANCE:
                break
            if number % MOVES_PER_CHECK == 0 and stopped():
                return None
            temperature *= cooling
            change: Change = {}
            undo = self._propose(change)
            if undo is None:
                continue
            rise = self._rise(change, limit, weight)
            if rise <= 0 or random() < accept(-rise / temperature):
                for index, more in change.items():
                    measure[index] += more
                energy += rise
            else:
                for chain, first, end, worker in reversed(undo):
                    self._move({}, chain, first, end, worker) if self.copies else _assign(chain, first, end, worker)
        return self._routes()

    def _rise(self, change: Change, limit: list[float], weight: list[float]) -> float:
        """Return the change of the energy."""
        measure, rise = self.measure, 0.0
        for index, more in change.items():
            most, value = limit[index], measure[index]
            if value + more > most:
                rise += (value + more - most) * weight[index]
            if value > most:
                rise -= (value - most) * weight[index]
        return rise

    def _routes(self) -> Choices:
        routes = (tuple(chain.workers[1:-1]) for chain in self.chains)
        return tuple((replace(choice, workers=route),) for (choice,), route in zip(self.choices, routes, strict=True))

    def _apply(self, change: Change) -> None:
        for index, more in change.items():
            self.measure[index] += more

    def _propose(self, change: Change) -> list[tuple[_Chain, int, int, int]] | None:
        """Make a random move, adding its ``change`` of the measures; return how to undo it, or None if impossible."""
        chain, first, end = self._run_of_blocks()
        old = chain.workers[first + 1]
        kind = self.random.random()
        if kind < EXCHANGE_SHARE:
            other, begin, stop = self._run_of_blocks()
            new = other.workers[begin + 1]
            if new == old or not self._move(change, chain, first, end, new):
                return None
            if not self._move(change, other, begin, stop, old):
                self._move(change, chain, first, end, old)
                return None
            return [(chain, first, end, old), (other, begin, stop, new)]
        if kind < EXCHANGE_SHARE + (1 - EXCHANGE_SHARE) * BORDER_SHARE:
            first, end, new = self._beside_border(chain.workers, first)
        else:
            new = int(self.random.random() * len(self.hops))
        moved = new != old and self._move(change, chain, first, end, new)
        return [(chain, first, end, old)] if moved else None

    def _beside_border(self, workers: list[int], block: int) -> tuple[int, int, int]:
        """Return the first or last blocks of the stage with a ``block``, rather few, and the worker before or after."""
        first, end, worker, length = block, block + 1, workers[block + 1], len(workers) - 2
        while first > 0 and workers[first] == worker:
            first -= 1
        while end < length and workers[end + 1] == worker:
            end += 1
        count = 1 + int((end - first) * self.random.random() ** 2)
        if self.random.random() < 1 / 2:
            return first, first + count, workers[first]
        return end - count, end, workers[end + 1]

    def _run_of_blocks(self) -> tuple[_Chain, int, int]:
        """Return a random run of consecutive blocks on one worker: chain, first block and end."""
        chain, first = self.places[int(self.random.random() * len(self.places))]
        return chain, *random_run(chain.workers, first, self.random)

    def _move(self, change: Change, chain: _Chain, first: int, end: int, new: int) -> bool:
        """Move the blocks first .. end − 1 from one worker to another; return False if pins or paths forbid it."""
        workers = chain.workers
        old, before, after = workers[first + 1], workers[first], workers[end + 1]
        forbidden = chain.forbidden[new]
        if forbidden[end] > forbidden[first] or self.hops[before][new] is None or self.hops[new][after] is None:
            return False
        load = chain.load
        change[old] = change.get(old, 0.0) + load[old][first] - load[old][end]
        change[new] = change.get(new, 0.0) + load[new][end] - load[new][first]
        self._transfer(change, chain, first, before, old, sign=-1)
        self._transfer(change, chain, first, before, new, sign=1)
        self._transfer(change, chain, end, old, after, sign=-1)
        self._transfer(change, chain, end, new, after, sign=1)
        if chain.delay >= 0:
            time = chain.seconds
            more = time[new][end] - time[new][first] - time[old][end] + time[old][first]
            change[chain.delay] = change.get(chain.delay, 0.0) + more
        if chain.visits >= 0 and first == 0:
            for worker, sign in ((old, -1), (new, 1)):
                change[chain.visits + worker] = change.get(chain.visits + worker, 0.0) + sign
        if chain.exits:
            self._exit(change, chain, first, end, new)
        if self.copies:
            for block in range(first, end):
                self._copy(change, chain, block, old, -1)
                self._copy(change, chain, block, new, 1)
        _assign(chain, first, end, new)
        return True

    def _transfer(self, change: Change, chain: _Chain, cut: int, sender: int, receiver: int, *, sign: int) -> None:
        """Add or remove the transfer across a cut, and the begin of the stage after it."""
        if sender == receiver:
            return
        size = sign * chain.size[cut]
        for resource, s_per_byte in self.hops[sender][receiver] or ():
            change[resource] = change.get(resource, 0.0) + size * s_per_byte
        begin = chain.begin[cut][receiver]
        if begin:
            change[receiver] = change.get(receiver, 0.0) + sign * begin
        if chain.delay >= 0:
            sent_s = chain.size[cut] / chain.volume * self.slowness[sender][receiver]
            late_s = sent_s + chain.reach[cut] * self.latency_s[sender][receiver] + chain.begin_s[cut][receiver]
            change[chain.delay] = change.get(chain.delay, 0.0) + sign * late_s
        if chain.visits >= 0 and 0 < cut < len(chain.reach) - 1:
            index = chain.visits + receiver
            change[index] = change.get(index, 0.0) + sign

    def _exit(self, change: Change, chain: _Chain, first: int, end: int, new: int) -> None:
        """Send the results of exits within the moved blocks home from another worker."""
        home = chain.workers[0]
        for block, size, share in chain.exits:
            if not first <= block < end:
                continue
            for worker, sign in ((chain.workers[block + 1], -1), (new, 1)):
                if worker == home:
                    continue
                for resource, s_per_byte in self.hops[worker][home] or ():
                    change[resource] = change.get(resource, 0.0) + sign * size * s_per_byte
                if chain.delay >= 0:
                    late_s = size / chain.volume * self.slowness[worker][home] + share * self.latency_s[worker][home]
                    change[chain.delay] = change.get(chain.delay, 0.0) + sign * late_s

    def _copy(self, change: Change, chain: _Chain, block: int, worker: int, sign: int) -> None:
        """Count a block on a worker; the first copy takes memory, and the last one frees it."""
        key = (chain.model, block, worker)
        count = self.copies.get(key, 0)
        self.copies[key] = count + sign
        if count == (sign < 0):
            index = self.memory + worker
            change[index] = change.get(index, 0.0) + sign * chain.block_bytes[block][worker]


def _assign(chain: _Chain, first: int, end: int, worker: int) -> None:
    chain.workers[first + 1 : end + 1] = [worker] * (end - first)


def _hops(problem: Problem, sender: int, receiver: int) -> list[tuple[int, float]] | None:
    if sender == receiver:
        return []
    if not np.isfinite(problem.latency_s[sender, receiver]):
        return None
    pairs = zip(
        problem.hop_resource[sender, receiver].tolist(), problem.hop_s_per_byte[sender, receiver].tolist(), strict=True
    )
    return [(resource, s_per_byte) for resource, s_per_byte in pairs if s_per_byte > 0]


def _chain(problem: Problem, source: int, variant: int) -> _Chain:
    model, volume = problem.variants[variant], problem.demands[source].volume
    begin_s = model.reach[:-1, None] * model.begin_s
    work_s = model.reach[:-1, None] * model.block_s
    work_s[0] += begin_s[0]  # the first stage always begins
    inner_s = np.vstack([0 * begin_s[:1], begin_s[1:], 0 * begin_s[:1]])
    exits = np.flatnonzero(model.exit_share > 0).tolist()
    return _Chain(
        workers=[],
        volume=volume,
        load=_until(volume * work_s).tolist(),
        seconds=_until(work_s).tolist(),
        forbidden=_until((~problem.runs(source, variant)).astype(float)).tolist(),
        size=(volume * model.reach * model.cut_bytes).tolist(),
        reach=model.reach.tolist(),
        begin=(volume * inner_s).tolist(),
        begin_s=inner_s.tolist(),
        exits=[(b, volume * float(model.exit_bytes[b]), float(model.exit_share[b])) for b in exits],
        model=model.model,
        block_bytes=problem.weight_bytes[model.model].tolist(),
    )


def _until(of_block: Array) -> Array:
    """Return the sums over the blocks before each cut, by worker; [L, D] to [D, L + 1]."""
    return np.vstack([np.zeros(of_block.shape[1]), np.cumsum(of_block, axis=0)]).T


def _room(problem: Problem) -> list[float]:
    """Return the memory of each worker for weights, less the largest activation of any block; [D], bytes."""
    largest = [np.max(activations, axis=0) for activations in problem.activation_bytes]
    room: list[float] = (problem.memory_bytes - np.max(largest, axis=0)).tolist()
    return room
