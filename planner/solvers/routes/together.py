"""Shortest paths of several sources at once: for few workers, one numpy call for all costs as much as one for each.

Every array has a first axis of length B, one entry per graph; all graphs have the same numbers of blocks and workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from planner.solvers.core.problem import Array, Integers, stages
from planner.solvers.routes.shortest_path import LayeredGraph

MAX_WORKERS = 32
"""With more workers it pays to skip most moves, which differ from source to source."""
MAX_MOVES = 2**16
"""Most moves across one cut that are looked at in one step: they stay in a processor's cache."""

Path = tuple[float, tuple[int, ...]]


def cheapest_paths_together(graphs: Sequence[LayeredGraph]) -> list[Path]:
    """Return the price of the cheapest path through each graph, and its workers."""
    size = max(1, MAX_MOVES // graphs[0].node.shape[1] ** 2)
    found: list[Path] = []
    for begin in range(0, len(graphs), size):
        found += _cheapest(graphs[begin : begin + size])
    return found


def _cheapest(graphs: Sequence[LayeredGraph]) -> list[Path]:
    found = _Stack(graphs).by_blocks()
    heavy = [index for index, graph in enumerate(graphs) if _has_heavy_stage(graph, found[index][1])]
    if heavy:
        for index, path in zip(heavy, _Stack([graphs[index] for index in heavy]).by_stages(), strict=True):
            found[index] = path
    return found


def _has_heavy_stage(graph: LayeredGraph, workers: tuple[int, ...]) -> bool:
    first = graph.first_of_stage
    return first is not None and any(begin < first[last + 1, worker] for worker, begin, last in stages(workers))


@dataclass(frozen=True)
class _Stack:
    """The prices of B graphs in common arrays."""

    graphs: Sequence[LayeredGraph]

    @cached_property
    def node(self) -> Array:
        """Prices of the blocks; shape [L, B, D]."""
        return np.stack([graph.node for graph in self.graphs], axis=1)

    @cached_property
    def base(self) -> Array:
        return np.stack([graph.moves.base for graph in self.graphs])

    @cached_property
    def per_byte(self) -> Array:
        return np.stack([graph.moves.per_byte for graph in self.graphs])

    @cached_property
    def size(self) -> Array:
        return np.stack([graph.cut_bytes for graph in self.graphs], axis=1)[:, :, None, None]

    @cached_property
    def scale(self) -> Array:
        return np.stack([graph.scale for graph in self.graphs], axis=1)[:, :, None, None]

    @cached_property
    def most_bytes(self) -> Array | None:
        most = [graph.most_bytes for graph in self.graphs if graph.most_bytes is not None]
        return np.stack(most) if most else None

    @cached_property
    def begin(self) -> Array | None:
        """Prices of beginning a stage at each block; shape [L, B, D]; None if nothing."""
        if all(graph.begin is None for graph in self.graphs):
            return None
        return np.stack([np.zeros_like(it.node) if it.begin is None else it.begin for it in self.graphs], axis=1)

    def move(self, cut: int) -> Array:
        """Return the prices of moves across a cut, 0 for staying; shape [B, D, D], receivers before senders."""
        move: Array = self.per_byte * self.size[cut]
        move += self.base
        if self.begin is not None:
            everyone = np.arange(move.shape[1])
            move += self.begin[cut][:, :, None]
            move[:, everyone, everyone] = 0.0
        move *= self.scale[cut]
        if self.most_bytes is not None:
            np.putmask(move, self.scale[cut] * self.size[cut] > self.most_bytes, np.inf)
        return move

    def by_blocks(self) -> list[Path]:
        """Return the cheapest paths, whatever the length of their stages, by dynamic programming over blocks."""
        length, rows, _ = self.node.shape
        each = np.arange(rows)
        senders, price = [], self.node[0]
        for block in range(1, length):
            move = self.move(block)
            move += price[:, None, :]
            senders.append(move.argmin(axis=2))
            price = _taken(move, senders[-1]) + self.node[block]
        path = [price.argmin(axis=1)]
        for sender in reversed(senders):
            path.append(sender[each, path[-1]])
        workers = np.stack(path[::-1], axis=1).tolist()
        return list(zip(price.min(axis=1).tolist(), map(tuple, workers), strict=True))

    def by_stages(self) -> list[Path]:
        """Return the cheapest paths without stages that begin too early, by dynamic programming over stages."""
        length, rows, count = self.node.shape
        each, everyone = np.arange(rows)[:, None], np.arange(count)
        infinite = np.isinf(self.node)
        until = np.concatenate([np.zeros((1, rows, count)), np.cumsum(np.where(infinite, 0.0, self.node), axis=0)])
        first = self._first_of_stage(infinite)
        least_first = first.min(axis=(1, 2))
        sender = np.zeros((length, rows, count), dtype=np.intp)
        begin_of = np.zeros((length + 1, rows, count), dtype=np.intp)
        begun = np.full((length, rows, count), np.inf)  # the price until a stage begins, less that of all blocks before
        begun[0] = 0.0
        for cut in range(1, length + 1):
            low = min(int(least_first[cut]), cut - 1)
            too_early = np.arange(low, cut)[:, None, None] < first[cut]
            price = np.where(too_early, np.inf, begun[low:cut])
            begin = price.argmin(axis=0)
            begin_of[cut] = begin + low
            end = price[begin, each, everyone] + until[cut]
            if cut < length:
                move = self.move(cut)
                move[:, everyone, everyone] = np.inf
                move += end[:, None, :]
                sender[cut] = move.argmin(axis=2)
                begun[cut] = _taken(move, sender[cut]) - until[cut]
        return [
            (float(end[row].min()), _staged(begin_of[:, row], sender[:, row], int(end[row].argmin())))
            for row in range(rows)
        ]

    def _first_of_stage(self, infinite: NDArray[np.bool_]) -> Integers:
        """Return the first block of the longest stage that ends before each cut; shape [L + 1, B, D]."""
        first = np.stack([graph.first_of_stage for graph in self.graphs if graph.first_of_stage is not None], axis=1)
        after = np.where(infinite, np.arange(1, len(infinite) + 1)[:, None, None], 0)
        first[1:] = np.maximum(first[1:], np.maximum.accumulate(after, axis=0))
        return first


def _taken(values: Array, index: Integers) -> Array:
    return np.take_along_axis(values, index[:, :, None], axis=2)[:, :, 0]


def _staged(begin_of: Integers, sender: Integers, worker: int) -> tuple[int, ...]:
    """Return the workers of a path that ends at a ``worker``, by the first block and the sender of each stage."""
    workers: list[int] = []
    cut = len(sender)
    while cut:
        begin = int(begin_of[cut, worker])
        workers = [worker] * (cut - begin) + workers
        worker, cut = int(sender[begin, worker]), begin
    return tuple(workers)
