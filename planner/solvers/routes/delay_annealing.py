"""Simulated annealing of single blocks and stages for the goal ``delay`` with limited memory.

Routes that return to a worker may use memory better than stages along an order: each worker keeps the blocks with the
most work per byte. A move gives a run of consecutive blocks to another worker, or exchanges the workers of two runs.
Lack of memory and overload are penalised, and only routes without either are kept.

References
----------
S. Kirkpatrick, C. D. Gelatt and M. P. Vecchi, "Optimization by simulated annealing", Science 220 (1983).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import numpy as np

from planner.solvers.core.problem import Choice, Choices, Problem
from planner.solvers.core.search_state import Search
from planner.solvers.routes.random_run import random_run

FIRST_TEMPERATURE, LAST_TEMPERATURE = 0.01, 1e-5
"""Temperatures in units of the first objective."""
LACK_PENALTY = 3.0
"""Penalty of a worker that needs twice its memory, in units of the first objective."""
OVERLOAD_SLOPE = 1e4
"""Slope of congestion above the cap."""
EXCHANGE_SHARE, NEIGHBOUR_SHARE = 0.3, 0.4
"""Shares of the moves that are exchanges, and that go to the worker of a neighbouring block."""
TOGETHER_SHARE = 0.5
"""Share of the moves that all sources of a model make together: they share the copies of its blocks."""
MOVES, MAX_IDLE_RUNS = 40_000, 4
"""Moves of one run, and runs in a row without a better incumbent after which annealing ends."""
MOVES_PER_CHECK = 500
"""Moves between two looks at the clock."""


@dataclass
class _Chain:
    """The blocks of one source; ``workers`` [L + 2] begins and ends with the source's worker.

    Parameters
    ----------
    load
        Utilisation by the blocks before each cut on each worker; [D][L + 1].
    forbidden
        Number of blocks before each cut that may not run on each worker; [D][L + 1].
    size, late
        Bytes per second of a transfer across each cut, and its cost per second of latency; [L + 1].
    begin
        Utilisation to begin a stage after each cut, 0 at the first; [L + 1][D].
    exits
        By block with an exit: bytes per second, and cost per second of latency.
    block_bytes
        Weights of each block on each worker; [L][D].
    """

    variant: int
    model: int
    level: int
    workers: list[int]
    load: list[list[float]]
    forbidden: list[list[float]]
    size: list[float]
    late: list[float]
    begin: list[list[float]]
    exits: dict[int, tuple[float, float]]
    block_bytes: list[list[float]]


_Move = tuple[_Chain, int, int, int]
"""A run of blocks, by chain, first block and end, and its new worker."""


class _Change:
    """What a move changes: loads by class and resource, bytes by worker, and the cost of latency."""

    def __init__(self) -> None:
        self.load: dict[tuple[int, int], float] = {}
        self.size: dict[int, float] = {}
        self.cost = 0.0

    def add(self, level: int, resource: int, load: float) -> None:
        key = (level, resource)
        self.load[key] = self.load.get(key, 0.0) + load


def anneal(search: Search, random: Random, until_s: float, start: Choices | None = None) -> None:
    """Anneal the best incumbent of a search until it has run for ``until_s`` seconds, or until that has not helped.

    Without an incumbent it begins at ``start``, whose overload it removes.
    """
    problem, idle = search.problem, 0
    if problem.goal != "delay" or not problem.memory_binds or problem.max_visits is not None:
        return
    while (
        (search.incumbents or start) and idle < MAX_IDLE_RUNS and search.elapsed_s < until_s and not search.out_of_time
    ):
        before = search.best
        best = min(search.incumbents, key=lambda choices: search.incumbents[choices], default=start)
        if best is None:
            return
        start = DelayAnnealing(problem, best, random).run(
            MOVES, lambda: search.out_of_time or search.elapsed_s >= until_s
        )
        search.offer(start)
        idle = 0 if search.best < before * (1 - 1e-6) else idle + 1


class DelayAnnealing:
    """Routes of all sources that change move by move."""

    def __init__(self, problem: Problem, choices: Choices, random: Random) -> None:
        self.problem, self.random = problem, random
        self.workers = len(problem.workers)
        self.weight = problem.classes.weight.tolist()
        self.latency_s: list[list[float]] = problem.latency_s.tolist()
        hops = np.where(problem.hop_s_per_byte > 0, problem.hop_resource, -1).tolist()
        per_byte = problem.hop_s_per_byte.tolist()
        everyone = range(self.workers)
        self.hops = [
            [[(r, s) for r, s in zip(hops[d][e], per_byte[d][e], strict=True) if r >= 0] for e in everyone]
            for d in everyone
        ]
        self.sigma: list[list[float]] = problem.classes.nested(problem.load(choices)).tolist()
        largest = np.max([activations.max(axis=0) for activations in problem.activation_bytes], axis=0)
        self.room: list[float] = np.maximum(problem.memory_bytes - largest, 1.0).tolist()
        self.size: list[float] = problem.resident_bytes(problem.residency(choices))[0].tolist()
        self.chains = [_chain(problem, source, choice) for source, (choice,) in enumerate(choices)]
        self.copies: dict[tuple[int, int, int], int] = {}
        for chain in self.chains:
            for block, worker in enumerate(chain.workers[1:-1]):
                key = (chain.model, block, worker)
                self.copies[key] = self.copies.get(key, 0) + 1
        self.places = [(chain, block) for chain in self.chains for block in range(len(chain.size) - 1)]
        costs = [problem.cost(source, choice) for source, (choice,) in enumerate(choices)]
        self.value: float = sum(
            problem.fixed_cost(source, choice, costs[source].latency_s) for source, (choice,) in enumerate(choices)
        ) + sum(
            weight * self._number(sigma)
            for weight, nested in zip(self.weight, self.sigma, strict=True)
            for sigma in nested
        )
        self.unit: float = min(
            self.value,
            sum(
                demand.priority * demand.volume * cost.unloaded_s
                for demand, cost in zip(problem.demands, costs, strict=True)
            ),
        )

    def run(self, moves: int, stopped: Callable[[], bool]) -> Choices:
        """Return the best routes after a number of ``moves``, or when ``stopped`` becomes true."""
        random, temperature = self.random.random, max(FIRST_TEMPERATURE * self.unit, 1e-200)
        cooling = (LAST_TEMPERATURE / FIRST_TEMPERATURE) ** (1 / moves)
        value, lack = self.value, sum(map(self._lack, range(self.workers), self.size))
        best, routes = value + lack, self.routes
        for number in range(moves):
            if number % MOVES_PER_CHECK == 0 and stopped():
                break
            temperature *= cooling
            change = _Change()
            undo = self._propose(change)
            if undo is None:
                continue
            more, lacking = self._rise(change), self._more_lack(change)
            rise = more + lacking
            if rise <= 0 or random() < math.exp(-rise / temperature):
                self._apply(change)
                value, lack = value + more, lack + lacking
                if lack <= 1e-9 * self.unit and value < best * (1 - 1e-9):
                    best, routes = value, self.routes
            else:
                self._undo(undo)
        return routes

    @property
    def routes(self) -> Choices:
        """The present routes."""
        return tuple((Choice(chain.variant, tuple(chain.workers[1:-1])),) for chain in self.chains)

    def _number(self, sigma: float) -> float:
        cap = self.problem.cap
        if sigma > cap:
            return self._number(cap) + OVERLOAD_SLOPE * (sigma - cap)
        return float(sigma + self.problem.kappa * sigma * sigma / (1 - sigma))

    def _rise(self, change: _Change) -> float:
        """Return by how much the objective rises."""
        rise, more = change.cost, change.load
        for resource in {resource for _, resource in more}:
            load = 0.0
            for level, weight in enumerate(self.weight):
                load += more.get((level, resource), 0.0)
                if load:
                    before = self.sigma[level][resource]
                    rise += weight * (self._number(before + load) - self._number(before))
        return rise

    def _lack(self, worker: int, size: float) -> float:
        return LACK_PENALTY * self.unit * max(0.0, size / self.room[worker] - 1)

    def _more_lack(self, change: _Change) -> float:
        size = self.size
        return sum(
            self._lack(worker, size[worker] + more) - self._lack(worker, size[worker])
            for worker, more in change.size.items()
        )

    def _apply(self, change: _Change) -> None:
        for (level, resource), load in change.load.items():
            for nested in self.sigma[level:]:
                nested[resource] += load
        for worker, more in change.size.items():
            self.size[worker] += more

    def _propose(self, change: _Change) -> list[_Move] | None:
        """Make a random move, adding its ``change``; return how to undo it, or None if it is impossible."""
        chain, first, end = self._run_of_blocks()
        old, together = chain.workers[first + 1], self.random.random() < TOGETHER_SHARE
        if self.random.random() < EXCHANGE_SHARE:
            other, begin, stop = self._run_of_blocks()
            new = other.workers[begin + 1]
            moves = self._alike(chain, first, end, new, together) if new != old else []
            moves += self._alike(other, begin, stop, old, together) if new != old else []
        else:
            kind = self.random.random()
            if kind < NEIGHBOUR_SHARE:
                new = chain.workers[first if kind < NEIGHBOUR_SHARE / 2 else end + 1]
            else:
                new = int(self.random.random() * self.workers)
            moves = self._alike(chain, first, end, new, together) if new != old else []
        undo: list[_Move] = []
        for move in moves:
            before = move[0].workers[move[1] + 1]
            if not self._move(change, *move):
                self._undo(undo)
                return None
            undo.append((*move[:3], before))
        return undo or None

    def _alike(self, chain: _Chain, first: int, end: int, new: int, together: bool) -> list[_Move]:  # noqa: FBT001
        """Return the move of a run, ``together`` with the same run of other sources where it is on the same worker."""
        moves = [(chain, first, end, new)]
        if together:
            run = chain.workers[first + 1 : end + 1]
            moves += [
                (other, first, end, new)
                for other in self.chains
                if other.model == chain.model and other is not chain and other.workers[first + 1 : end + 1] == run
            ]
        return moves

    def _undo(self, moves: list[_Move]) -> None:
        for move in reversed(moves):
            self._move(_Change(), *move)

    def _run_of_blocks(self) -> tuple[_Chain, int, int]:
        """Return a random run of consecutive blocks on one worker: chain, first block and end."""
        chain, first = self.places[int(self.random.random() * len(self.places))]
        return chain, *random_run(chain.workers, first, self.random)

    def _move(self, change: _Change, chain: _Chain, first: int, end: int, new: int) -> bool:
        """Move the blocks first .. end − 1 from one worker to another; return False if pins or paths forbid it."""
        workers = chain.workers
        old, before, after = workers[first + 1], workers[first], workers[end + 1]
        forbidden, latency_s = chain.forbidden[new], self.latency_s
        if forbidden[end] > forbidden[first] or math.isinf(latency_s[before][new] + latency_s[new][after]):
            return False
        load = chain.load
        change.add(chain.level, old, load[old][first] - load[old][end])
        change.add(chain.level, new, load[new][end] - load[new][first])
        for cut, sender, receiver, sign in (
            (first, before, old, -1),
            (first, before, new, 1),
            (end, old, after, -1),
            (end, new, after, 1),
        ):
            if sender != receiver:
                self._transfer(change, chain.level, (sender, receiver), sign * chain.size[cut], sign * chain.late[cut])
                change.add(chain.level, receiver, sign * chain.begin[cut][receiver])
        for block in chain.exits.keys() & range(first, end) if chain.exits else ():
            size, late = chain.exits[block]
            self._transfer(change, chain.level, (old, workers[0]), -size, -late)
            self._transfer(change, chain.level, (new, workers[0]), size, late)
        for block in range(first, end):
            self._copy(change, chain, block, old, -1)
            self._copy(change, chain, block, new, 1)
        workers[first + 1 : end + 1] = [new] * (end - first)
        return True

    def _transfer(self, change: _Change, level: int, path: tuple[int, int], size: float, late: float) -> None:
        sender, receiver = path
        if sender == receiver:
            return
        for resource, s_per_byte in self.hops[sender][receiver]:
            change.add(level, resource, size * s_per_byte)
        change.cost += late * self.latency_s[sender][receiver]

    def _copy(self, change: _Change, chain: _Chain, block: int, worker: int, sign: int) -> None:
        """Count a block on a worker; the first copy takes memory, and the last one frees it."""
        key = (chain.model, block, worker)
        count = self.copies.get(key, 0)
        self.copies[key] = count + sign
        if count == (sign < 0):
            change.size[worker] = change.size.get(worker, 0.0) + sign * chain.block_bytes[block][worker]


def _chain(problem: Problem, source: int, choice: Choice) -> _Chain:
    demand, model = problem.demands[source], problem.variants[choice.variant]
    begin_s = model.reach[:-1, None] * model.begin_s
    work_s = model.reach[:-1, None] * model.block_s
    work_s[0] += begin_s[0]  # the first stage always begins
    inner_s = np.vstack([0 * begin_s[:1], begin_s[1:], 0 * begin_s[:1]])
    per_second = demand.priority * demand.volume
    return _Chain(
        variant=choice.variant,
        model=model.model,
        level=int(problem.classes.of_source[source]),
        workers=[demand.home, *choice.workers, demand.home],
        load=_until(demand.volume * work_s),
        forbidden=_until((~problem.runs(source, choice.variant)).astype(float)),
        size=(demand.volume * model.reach * model.cut_bytes).tolist(),
        late=(per_second * model.reach).tolist(),
        begin=(demand.volume * inner_s).tolist(),
        exits={
            block: (demand.volume * float(model.exit_bytes[block]), per_second * float(model.exit_share[block]))
            for block in np.flatnonzero(model.exit_share > 0).tolist()
        },
        block_bytes=problem.weight_bytes[model.model].tolist(),
    )


def _until(of_block: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> list[list[float]]:
    """Return the sums over the blocks before each cut, by worker; [L, D] to [D][L + 1]."""
    sums: list[list[float]] = np.vstack([np.zeros(of_block.shape[1]), np.cumsum(of_block, axis=0)]).T.tolist()
    return sums
