"""The shortest path through the layered graph of one source and variant at given prices, by dynamic programming.

Nodes are "block l runs on worker d". Most of the D² moves across a cut cannot be on a shortest path and are skipped. A
relaxation, in which a move to a worker costs as little as from any other, bounds the remaining cost from each node from
below in O(L D) instead of O(L D²). The route that follows the relaxation bounds the total cost from above.

References
----------
P. E. Hart, N. J. Nilsson and B. Raphael, "A formal basis for the heuristic determination of minimum cost paths", IEEE
Transactions on Systems Science and Cybernetics 4 (1968): the remaining cost is bounded from below.
G. Righini and M. Salani, "New dynamic programming algorithms for the resource constrained elementary shortest path
problem", Networks 51 (2008): visits are counted only where necessary.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planner.solvers.core import light
from planner.solvers.core.problem import Array, Integers, Problem
from planner.solvers.core.resource_prices import HomeMoves, Moves, Prices

MIN_REACH = 1e-12
"""Replaces a reach of 0, so that a missing path keeps an infinite price."""
ROUNDING = 1e-9
"""Relative tolerance of the upper bound above which moves are skipped."""


@dataclass(frozen=True)
class LayeredGraph:
    """Prices in the layered graph.

    ``node`` [L, D] holds those of the blocks, including input and result; a move across cut l costs
    ``scale``_l (base + per_byte · ``cut_bytes``_l), both [L]. There is no move with ``scale``_l · ``cut_bytes``_l above
    ``most_bytes`` [D, D], receivers as rows, and no stage that ends before cut l on worker d and begins before
    ``first_of_stage`` [L + 1, D]. A move across cut l to worker d costs ``scale``_l · ``begin``_ld more [L, D].
    """

    node: Array
    moves: Moves
    cut_bytes: Array
    scale: Array
    most_bytes: Array | None = None
    first_of_stage: Integers | None = None
    begin: Array | None = None

    @classmethod
    def of(cls, problem: Problem, source: int, variant: int, prices: Prices) -> LayeredGraph:
        """Return the graph at some shadow prices."""
        second, moves = prices.of_source(problem, source, variant)
        model = problem.variants[variant]
        node = _nodes(problem, source, variant, prices, (second, moves.of_home(problem.demands[source].home)))
        scale = np.maximum(model.reach[:-1], MIN_REACH)
        limited = np.isfinite(problem.most_load)
        first = problem.first_of_stage(source, variant) if limited else None
        most_bytes = _most_bytes(problem, source)
        begin = np.broadcast_to(model.saving_s, node.shape) * second[: len(problem.workers)]
        saved = np.asarray(begin) if np.any(model.saving_s) else None
        return cls(node, moves, model.cut_bytes[:-1], scale, most_bytes, first, saved)

    def cheapest(self, near: tuple[int, ...] = ()) -> tuple[float, tuple[int, ...]]:
        """Return the price of the cheapest path, and its workers; a ``near`` path bounds the search.

        Stages that begin too early are not excluded here.
        """
        length, count = self.node.shape
        enter, upper = self._bounds()
        upper = min(upper, self.price(near)) * (1 + ROUNDING) if near else upper
        sender_of = np.repeat(np.arange(count)[None], length, axis=0)
        price = self.node[0].copy()
        for block in range(1, length):
            into = (enter[block] + price.min() <= upper).nonzero()[0]
            if len(into):
                move = self.move(block, into)
                move += price
                sender_of[block, into] = sender = move.argmin(axis=1)
                price[into] = move[np.arange(len(into)), sender]
            price += self.node[block]
        workers = [int(price.argmin())]
        for block in range(length - 1, 0, -1):
            workers.append(int(sender_of[block, workers[-1]]))
        return float(price.min()), tuple(reversed(workers))

    def price(self, workers: tuple[int, ...]) -> float:
        """Return the price of a path."""
        path = np.array(workers)
        begins = np.flatnonzero(path[1:] != path[:-1]) + 1
        into, sender = path[begins], path[begins - 1]
        moves = self.moves.base[into, sender] + self.cut_bytes[begins] * self.moves.per_byte[into, sender]
        if self.begin is not None:
            moves += self.begin[begins, into]
        if self.most_bytes is not None:
            moves[self.scale[begins] * self.cut_bytes[begins] > self.most_bytes[into, sender]] = np.inf
        return float(self.node[np.arange(len(path)), path].sum() + self.scale[begins] @ moves)

    def move(self, block: int, into: Integers) -> Array:
        """Return the price of moves to the workers ``into``, or of staying there; shape [into, D]."""
        move = self.moves.per_byte[into]
        move *= self.cut_bytes[block]
        move += self.moves.base[into]
        if self.begin is not None:
            move += self.begin[block, into, None]
            move[np.arange(len(into)), into] = 0.0
        move *= self.scale[block]
        if self.most_bytes is not None:
            move[self.scale[block] * self.cut_bytes[block] > self.most_bytes[into]] = np.inf
        return move

    def _bounds(self) -> tuple[Array, float]:
        """Return lower bounds on a move to each worker and all that follows [L, D], and an upper bound on a path."""
        length = len(self.node)
        rest = self.node.copy()
        enter = self.moves.least_base + self.cut_bytes[:, None] * self.moves.least_per_byte
        if self.begin is not None:
            enter += self.begin
        enter *= self.scale[:, None]
        for block in range(length - 1, 0, -1):
            enter[block] += rest[block]
            rest[block - 1] += np.minimum(rest[block], enter[block].min())
        toward = enter.argmin(axis=1)
        worker = int(rest[0].argmin())
        upper = float(self.node[0, worker])
        for block in range(1, length):
            other = int(toward[block])
            price = float(self.move(block, np.array([other]))[0, worker])
            if price + rest[block, other] < rest[block, worker]:
                upper += price
                worker = other
            upper += self.node[block, worker]
        return enter, upper * (1 + ROUNDING)

    def counted(self, visits: Visits) -> tuple[float, tuple[int, ...]]:
        """Return the price of the cheapest path within the limit of counted ``visits``, and its workers."""
        length, count = self.node.shape
        sender_of = np.zeros((length, visits.states, count), dtype=np.intp)
        price = np.full((visits.states, count), np.inf)
        price[visits.first, np.arange(count)] = self.node[0]
        for block in range(1, length):
            price, sender_of[block] = visits.arrive(price, self.move(block, np.arange(count)))
            price += self.node[block]
        state, worker = (int(index) for index in np.unravel_index(price.argmin(), price.shape))
        least, workers = float(price[state, worker]), [worker]
        for block in range(length - 1, 0, -1):
            sender = int(sender_of[block, state, worker])
            state = visits.before(state, worker) if sender != worker else state
            worker = sender
            workers.append(worker)
        return least, tuple(reversed(workers))


def cheapest_split(problem: Problem, source: int, variant: int, prices: Prices) -> tuple[float, int, int]:
    """Return the price of the cheapest path with at most one move, from home; its cut, and the worker after it."""
    second, moves = prices.of_home(problem, source)
    model, home = problem.variants[variant], problem.demands[source].home
    node = _nodes(problem, source, variant, prices, (second, moves))
    before = np.append(0.0, np.cumsum(node[:, home]))[:-1]
    total = before[:, None] + np.cumsum(node[::-1], axis=0)[::-1]
    begin = model.begin_s * second[: len(problem.workers)]
    move = begin + moves.from_latency + model.cut_bytes[:-1, None] * moves.from_per_byte
    total[1:] += np.maximum(model.reach[1:-1, None], MIN_REACH) * move[1:]
    total[1:, home] = np.inf
    cut, worker = (int(index) for index in np.unravel_index(total.argmin(), total.shape))
    return float(total[cut, worker]), cut, worker


def _nodes(problem: Problem, source: int, variant: int, prices: Prices, of_home: tuple[Array, HomeMoves]) -> Array:
    """Return the prices of the blocks, with input, result and results of exits; shape [L, D]."""
    second, moves = of_home
    model, count = problem.variants[variant], len(problem.workers)
    node = model.reach[:-1, None] * model.block_s * second[:count]
    for block in np.flatnonzero(model.exit_share > 0).tolist():
        node[block] += model.exit_bytes[block] * moves.to_per_byte + model.exit_share[block] * moves.to_latency
    begin = model.overhead_s * second[:count]
    node[0] += model.reach[0] * (begin + model.cut_bytes[0] * moves.from_per_byte + moves.from_latency)
    node[-1] += model.reach[-1] * (model.cut_bytes[-1] * moves.to_per_byte + moves.to_latency)
    if (block_price := prices.of_blocks(problem, source, variant)) is not None:
        node += block_price
    node[~problem.runs(source, variant)] = np.inf
    return node


def _most_bytes(problem: Problem, source: int) -> Array | None:
    """Return the bytes of a sample that a move may send, receivers as rows; shape [D, D]; None if unlimited."""
    if np.isinf(problem.most_load):
        return None
    load_per_byte = problem.demands[source].volume * problem.hop_s_per_byte.max(axis=2).T
    most_bytes = np.full(load_per_byte.shape, np.inf)
    np.divide(problem.most_load * (1 + light.ROUNDING), load_per_byte, out=most_bytes, where=load_per_byte > 0)
    return most_bytes


@dataclass(frozen=True)
class Visits:
    """States of a path that counts its visits to some ``counted`` workers, up to ``most`` each.

    A state is an integer whose digits, in base ``most`` + 1, are the counts.
    """

    counted: tuple[int, ...]
    most: int
    workers: int

    @property
    def states(self) -> int:
        """Number of states."""
        return int((self.most + 1) ** len(self.counted))

    @property
    def first(self) -> Integers:
        """State of a path that starts at each worker; shape [D]."""
        first = np.zeros(self.workers, dtype=np.intp)
        first[list(self.counted)] = [self._unit(worker) for worker in self.counted]
        return first

    def _unit(self, worker: int) -> int:
        return int((self.most + 1) ** self.counted.index(worker))

    def before(self, state: int, worker: int) -> int:
        """Return the state before a stage started at a worker."""
        return state - self._unit(worker) if worker in self.counted else state

    def arrive(self, price: Array, move: Array) -> tuple[Array, Integers]:
        """Return the prices after a ``move`` [D, D] or after staying, and the senders; both [states, D]."""
        everyone, states = np.arange(self.workers), np.arange(self.states)
        through = price[:, None, :] + move
        sender_of = through.argmin(axis=2)
        least = through[states[:, None], everyone, sender_of]
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
            sender_of[after, worker] = sender[after - unit]
            sender_of[stays, worker] = worker
        return least, sender_of
