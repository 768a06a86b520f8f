"""The layered graph of one source and variant at given prices, and its cheapest path, by dynamic programming.

Nodes are "block l runs on worker d". Most of D² moves across a cut cannot be worth it, and need not be looked at: what
a route still costs at least from a node on is known from a relaxation in which a move to a worker costs as little as
from any other, which takes O(L D) instead of O(L D²); and what it costs at most, from a route along the relaxation's.

References
----------
P. E. Hart, N. J. Nilsson and B. Raphael, "A formal basis for the heuristic determination of minimum cost paths", IEEE
Transactions on Systems Science and Cybernetics 4 (1968): what is left to pay is bounded from below.
G. Righini and M. Salani, "New dynamic programming algorithms for the resource constrained elementary shortest path
problem", Networks 51 (2008): visits are counted where they need to be.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planner.solvers.core.problem import Array, Integers, Problem
from planner.solvers.core.resource_prices import Moves

TINY = 1e-12
"""Stands for a reach of 0, so that a missing path stays infinitely dear."""
ROUNDING = 1e-9
"""Moves that cost more than is known to be needed by no more than this part are looked at all the same."""


@dataclass(frozen=True)
class LayeredGraph:
    """Prices in the layered graph.

    ``place`` [L, D] are those of the blocks, with input and result; a move across cut l costs
    ``scale``_l (base + per_byte · ``cut_bytes``_l).
    """

    place: Array
    moves: Moves
    cut_bytes: Array
    scale: Array

    @classmethod
    def of(cls, problem: Problem, source: int, variant: int, second: Array, moves: Moves) -> LayeredGraph:
        """Collect the prices."""
        model, home = problem.variants[variant], problem.demands[source].home
        count = len(problem.workers)
        to_home, from_home = moves.per_byte[home], moves.per_byte[:, home]
        place = model.reach[:-1, None] * model.block_s * second[:count]
        for block in np.flatnonzero(model.exit_share > 0).tolist():
            place[block] += model.exit_bytes[block] * to_home + model.exit_share[block] * moves.latency[home]
        begin = model.overhead_s * second[:count]
        place[0] += model.reach[0] * (begin + model.cut_bytes[0] * from_home + moves.latency[:, home])
        place[-1] += model.reach[-1] * (model.cut_bytes[-1] * to_home + moves.latency[home])
        place[~problem.runs(source, variant)] = np.inf
        return cls(place, moves, model.cut_bytes[:-1], np.maximum(model.reach[:-1], TINY))

    def cheapest(self, near: tuple[int, ...] = ()) -> tuple[float, tuple[int, ...]]:
        """Give the price of the cheapest path, and its workers; a path that is ``near`` it saves time."""
        length, count = self.place.shape
        enter, most = self._bounds()
        most = min(most, self.price(near)) * (1 + ROUNDING) if near else most
        came = np.repeat(np.arange(count)[None], length, axis=0)
        price = self.place[0].copy()
        for block in range(1, length):
            into = (enter[block] + price.min() <= most).nonzero()[0]
            if len(into):
                move = self._move(block, into)
                move += price
                came[block, into] = sender = move.argmin(axis=1)
                price[into] = move[np.arange(len(into)), sender]
            price += self.place[block]
        workers = [int(price.argmin())]
        for block in range(length - 1, 0, -1):
            workers.append(int(came[block, workers[-1]]))
        return float(price.min()), tuple(reversed(workers))

    def price(self, workers: tuple[int, ...]) -> float:
        """Give the price of a path."""
        path = np.array(workers)
        begins = np.flatnonzero(path[1:] != path[:-1]) + 1
        into, sender = path[begins], path[begins - 1]
        moves = self.moves.base[into, sender] + self.cut_bytes[begins] * self.moves.per_byte[into, sender]
        return float(self.place[np.arange(len(path)), path].sum() + self.scale[begins] @ moves)

    def _move(self, block: int, into: Integers) -> Array:
        """Give the price of moves to some workers, or of staying there; shape [into, D]."""
        move = self.moves.per_byte[into]
        move *= self.cut_bytes[block]
        move += self.moves.base[into]
        move *= self.scale[block]
        return move

    def _bounds(self) -> tuple[Array, float]:
        """Give the least price of a move to each worker and of all that follows, [L, D], and the most a path needs."""
        length = len(self.place)
        rest = self.place.copy()
        enter = self.moves.least_base + self.cut_bytes[:, None] * self.moves.least_per_byte
        enter *= self.scale[:, None]
        for block in range(length - 1, 0, -1):
            enter[block] += rest[block]
            rest[block - 1] += np.minimum(rest[block], enter[block].min())
        toward = enter.argmin(axis=1)
        worker = int(rest[0].argmin())
        most = float(self.place[0, worker])
        for block in range(1, length):
            other = int(toward[block])
            price = self.scale[block] * (
                self.moves.base[other, worker] + self.cut_bytes[block] * self.moves.per_byte[other, worker]
            )
            if price + rest[block, other] < rest[block, worker]:
                most += price
                worker = other
            most += self.place[block, worker]
        return enter, most * (1 + ROUNDING)

    def counted(self, visits: Visits) -> tuple[float, tuple[int, ...]]:
        """Give the price of the cheapest path that keeps ``visits`` where they are counted, and its workers."""
        length, count = self.place.shape
        came = np.zeros((length, visits.states, count), dtype=np.intp)
        price = np.full((visits.states, count), np.inf)
        price[visits.first, np.arange(count)] = self.place[0]
        for block in range(1, length):
            price, came[block] = visits.arrive(price, self._move(block, np.arange(count)))
            price += self.place[block]
        state, worker = (int(index) for index in np.unravel_index(price.argmin(), price.shape))
        least, workers = float(price[state, worker]), [worker]
        for block in range(length - 1, 0, -1):
            sender = int(came[block, state, worker])
            state = visits.before(state, worker) if sender != worker else state
            worker = sender
            workers.append(worker)
        return least, tuple(reversed(workers))


@dataclass(frozen=True)
class Visits:
    """States of a path that counts the visits to some ``counted`` workers, up to ``most`` each.

    A state is a number whose digits, in base ``most`` + 1, are the counts.
    """

    counted: tuple[int, ...]
    most: int
    workers: int

    @property
    def states(self) -> int:
        """How many states there are."""
        return int((self.most + 1) ** len(self.counted))

    @property
    def first(self) -> Integers:
        """State of a path that begins at each worker; shape [D]."""
        first = np.zeros(self.workers, dtype=np.intp)
        first[list(self.counted)] = [self._unit(worker) for worker in self.counted]
        return first

    def _unit(self, worker: int) -> int:
        return int((self.most + 1) ** self.counted.index(worker))

    def before(self, state: int, worker: int) -> int:
        """Give the state before a stage began at a worker."""
        return state - self._unit(worker) if worker in self.counted else state

    def arrive(self, price: Array, move: Array) -> tuple[Array, Integers]:
        """Give the prices [states, D] after a ``move`` [D, D], or after staying, and the workers before it."""
        everyone, states = np.arange(self.workers), np.arange(self.states)
        through = price[:, None, :] + move
        came = through.argmin(axis=2)
        least = through[states[:, None], everyone, came]
        for worker in self.counted:
            through[:, worker, worker] = np.inf
            sender = through[:, worker].argmin(axis=1)
            moved = np.full(self.states, np.inf)
            unit = self._unit(worker)
            counts = states // unit % (self.most + 1)
            after = states[counts > 0]
            moved[after] = through[after - unit, worker, sender[after - unit]]
            stays = price[:, worker] <= moved
            least[:, worker] = np.where(stays, price[:, worker], moved)
            came[after, worker] = sender[after - unit]
            came[stays, worker] = worker
        return least, came
