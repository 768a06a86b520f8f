"""The cheapest path through a layered graph among those that are not slower than a limit.

Dynamic programming over stages and over the delay so far, in steps. Delays count as what a stage or a move adds to the
least delay of the rest, rounded down: a path of least delay adds nothing, no path within the limit is lost, and a path
that is slower by less than a step for each of its stages and moves may be found. The price is therefore a lower bound.

References
----------
M. Desrochers and F. Soumis, "A generalized permanent labelling algorithm for the shortest path problem with time
windows", INFOR 26 (1988).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planner.solvers.core.problem import Array, Integers, Problem
from planner.solvers.core.resource_prices import Prices
from planner.solvers.routes.shortest_path import LayeredGraph

DELAY_STEPS = 24
"""Steps of the delay beyond the least one."""
ROUNDING = 1e-9
"""Relative error of delays, in whose favour steps are counted."""
Path = tuple[float, tuple[int, ...]]


def timely(problem: Problem, source: int, variant: int, graph: LayeredGraph, path: Path) -> Path:
    """Return the cheapest path within the problem's ``most_delay_s``, which is ``path`` unless that is slower."""
    if np.isinf(problem.most_delay_s) or np.isinf(path[0]):
        return path
    key = ("delays", source, variant)
    if key not in problem.derived:
        problem.derived[key] = Delays.of(problem, source, variant, problem.most_delay_s)
    delays: Delays = problem.derived[key]
    return delays.cheapest(graph) if delays.slow(path[1]) else path


@dataclass(frozen=True)
class Delays:
    """The delays of a source's paths in one variant, beyond the least ones.

    Parameters
    ----------
    seconds
        The layered graph with delays instead of prices.
    most_s
        The largest delay.
    stage_steps
        Steps that blocks i .. j − 1 on worker d add, at [j, i, d]; shape [L + 1, L, D].
    move_steps
        Steps that a move across cut l adds, receivers before senders; shape [L, D, D].
    first_steps
        Steps that beginning on worker d adds; shape [D].
    """

    seconds: LayeredGraph
    most_s: float
    stage_steps: Integers
    move_steps: Integers
    first_steps: Integers

    @classmethod
    def of(cls, problem: Problem, source: int, variant: int, most_s: float) -> Delays:
        """Return the delays of a source's paths, of which the largest is ``most_s``."""
        seconds = LayeredGraph.of(problem, source, variant, _of_time(problem))
        length, count = seconds.node.shape
        finite = np.isfinite(seconds.node)
        begin, after = np.where(finite, seconds.node, 1e9), np.zeros((length + 1, count))
        moves = [seconds.move(cut, np.arange(count)) for cut in range(length)]
        for move in moves:
            np.fill_diagonal(move, np.inf)
        for block in range(length - 1, 0, -1):
            after[block] = (moves[block] + begin[block][:, None]).min(axis=0)
            begin[block - 1] += np.minimum(begin[block], after[block])
        # Large numbers would cost the differences their digits; stages of a block that may not run are left out later.
        until = np.vstack([np.zeros(count), np.cumsum(np.where(finite, seconds.node, 0.0), axis=0)])
        least_s = float(begin[0].min())
        step = max(most_s - least_s, ROUNDING * most_s) / DELAY_STEPS
        stage = until[:, None] - until[None, :-1] + after[:, None] - begin[None]
        rest = np.where(np.isfinite(after[:length]), after[:length], 0.0)  # no move then
        move = np.array(moves) + begin[:, :, None] - rest[:, None, :]
        return cls(
            seconds,
            most_s,
            *(_steps(extra, step) for extra in (stage, move, begin[0] - min(least_s, most_s * (1 + ROUNDING)))),
        )

    def cheapest(self, graph: LayeredGraph) -> Path:
        """Return the price of the cheapest path, infinite without one, and its workers."""
        length, count = graph.node.shape
        steps, everyone, times = DELAY_STEPS + 1, np.arange(count), np.arange(DELAY_STEPS + 1)
        infinite = np.isinf(graph.node)
        until = np.vstack([np.zeros(count), np.cumsum(np.where(infinite, 0.0, graph.node), axis=0)])
        first = _first_of_stage(graph, infinite)
        begun = np.full((length, count, steps), np.inf)
        reach = self.first_steps < steps
        begun[0, everyone[reach], self.first_steps[reach]] = 0.0
        begin_of = np.zeros((length + 1, count, steps), dtype=np.intp)
        sender = np.zeros((length, count, steps), dtype=np.intp)
        end = begun[0]
        for cut in range(1, length + 1):
            low = min(int(first[cut].min()), cut - 1)
            before = times - self.stage_steps[cut, low:cut, :, None]
            price = np.take_along_axis(begun[low:cut], np.maximum(before, 0), axis=2)
            price[(before < 0) | (np.arange(low, cut)[:, None] < first[cut])[:, :, None]] = np.inf
            begin = price.argmin(axis=0)
            begin_of[cut] = begin + low
            end = np.take_along_axis(price, begin[None], axis=0)[0] + until[cut][:, None]
            if cut < length:
                before = times - self.move_steps[cut][:, :, None]
                moved = end[everyone[None, :, None], np.maximum(before, 0)] + graph.move(cut, everyone)[:, :, None]
                moved[before < 0] = np.inf
                moved[everyone, everyone] = np.inf
                sender[cut] = moved.argmin(axis=1)
                begun[cut] = np.take_along_axis(moved, sender[cut][:, None], axis=1)[:, 0] - until[cut][:, None]
        worker, time = (int(index) for index in np.unravel_index(end.argmin(), end.shape))
        if np.isinf(end[worker, time]):
            return np.inf, (0,) * length
        return float(end[worker, time]), self._traced(begin_of, sender, worker, time)

    def _traced(self, begin_of: Integers, sender: Integers, worker: int, time: int) -> tuple[int, ...]:
        workers: list[int] = []
        cut = len(sender)
        while cut:
            begin = int(begin_of[cut, worker, time])
            workers = [worker] * (cut - begin) + workers
            time -= int(self.stage_steps[cut, begin, worker])
            if begin:
                receiver, worker = worker, int(sender[begin, worker, time])
                time -= int(self.move_steps[begin, receiver, worker])
            cut = begin
        return tuple(workers)

    def slow(self, workers: tuple[int, ...]) -> bool:
        """Return whether a path takes longer than the limit."""
        return self.seconds.price(workers) > self.most_s * (1 + ROUNDING)


def _of_time(problem: Problem) -> Prices:
    none = np.zeros(len(problem.demands))
    return Prices(np.zeros((len(problem.classes.weight), len(problem.resources))), none, problem.volume, none)


def _steps(extra: Array, step: float) -> Integers:
    """Return the whole steps in each delay, at most one more than a path may take; also where it is infinite."""
    most = DELAY_STEPS + 1
    within = extra < most * step * (1 + ROUNDING)
    steps = np.floor(np.where(within, np.maximum(extra, 0.0), 0.0) / step * (1 - ROUNDING))
    return np.asarray(np.where(within, steps, most).astype(np.intp))


def _first_of_stage(graph: LayeredGraph, infinite: Array) -> Integers:
    length, count = graph.node.shape
    first = (
        np.zeros((length + 1, count), dtype=np.intp) if graph.first_of_stage is None else graph.first_of_stage.copy()
    )
    after = np.where(infinite, np.arange(1, length + 1)[:, None], 0)
    first[1:] = np.maximum(first[1:], np.maximum.accumulate(after, axis=0))
    return first
