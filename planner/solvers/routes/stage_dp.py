"""Dynamic programming over stages: the cheapest route of one source if a stage costs any function of its load.

A single route carries the whole load of its source. Its own congestion therefore counts, and the cost of a stage is a
function of the stage's whole time rather than a price per second. Dynamic programming over whole stages (first block,
end, worker) finds the cheapest route in O(L² D + L D²), provided that visits to a resource are counted separately.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from planner.solvers.core.problem import Array, Choice, Integers, Problem, Residency, stages

MIN_REACH = 1e-12
"""Replaces a price or reach of 0, so that a missing path keeps an infinite cost."""
CostOfLoad = Callable[[Array, Integers], Array]
"""Cost of loads on resources, element by element; all arrays have the same shape."""


@dataclass(frozen=True)
class StagedRoutes:
    """All routes of one source and variant, as loads of stages and moves.

    Parameters
    ----------
    stage_load
        Utilisation of worker d by blocks i .. j − 1, without the results of exits; shape [L, L + 1, D], infinite where
        the stage may not run.
    peak_bytes
        Largest activation of blocks i .. j − 1 on worker d; shape [L, L + 1, D].
    move_load
        Utilisation of each hop by cut l sent from d to e; shape [L + 1, D, D, H].
    move_cost
        Cost of the latency of a move, for ``makespan`` as if the route were the longest; infinite where there is no
        path; shape [L + 1, D, D].
    fixed
        Cost of lost accuracy, for the goal ``delay``.
    """

    problem: Problem
    source: int
    variant: int
    stage_load: Array
    peak_bytes: Array
    move_load: Array
    move_cost: Array
    fixed: float

    @classmethod
    def of(cls, problem: Problem, source: int, variant: int) -> StagedRoutes:
        """Return the routes of a source and variant."""
        demand, model = problem.demands[source], problem.variants[variant]
        count, length = len(problem.workers), len(model)
        done_s = np.vstack([np.zeros(count), np.cumsum(model.reach[:-1, None] * model.block_s, axis=0)])
        begin_s = (model.reach[:-1, None] * model.begin_s)[:, None]
        load = demand.volume * (done_s[None, :, :] - done_s[:-1, None, :] + begin_s)
        load[np.arange(length)[:, None] >= np.arange(length + 1)] = np.inf
        activation_bytes = problem.activation_bytes[model.model]
        peak_bytes = np.zeros((length, length + 1, count))
        for first in range(length):
            peak_bytes[first, first + 1 :] = np.maximum.accumulate(activation_bytes[first:], axis=0)
        for block, worker in np.argwhere(~problem.runs(source, variant)).tolist():
            load[: block + 1, block + 1 :, worker] = np.inf
        size = model.reach * model.cut_bytes
        of_delay, of_makespan = problem.goal == "delay", problem.goal == "makespan"
        per_second = demand.priority * demand.volume if of_delay else float(of_makespan)
        away = ~np.eye(count, dtype=bool)
        latency_s = np.where(away, problem.latency_s, 0.0)
        return cls(
            problem=problem,
            source=source,
            variant=variant,
            stage_load=load,
            peak_bytes=peak_bytes,
            move_load=demand.volume * size[:, None, None, None] * problem.hop_s_per_byte * away[:, :, None],
            move_cost=np.maximum(per_second * model.reach, MIN_REACH)[:, None, None] * latency_s,
            fixed=of_delay * per_second * problem.loss_s * (1 - model.accuracy),
        )

    def beside(self, held: Residency, reserved_bytes: Array | float = 0.0) -> StagedRoutes:
        """Return the routes without stages that do not fit a worker's memory beside the blocks ``held`` there.

        Each stage is checked by itself; no block fits on a worker where the others exceed the memory already. New
        blocks leave ``reserved_bytes`` [D] free.
        """
        problem, model = self.problem, self.problem.variants[self.variant].model
        weights, largest = problem.resident_bytes(held)
        more = problem.weight_bytes[model] * ~held[model]
        until = np.vstack([np.zeros(len(weights)), np.cumsum(more, axis=0)])
        needed = weights + (until - until[:-1, None]) + np.maximum(largest, self.peak_bytes)
        lacks = needed > np.maximum(problem.memory_bytes - reserved_bytes, weights + largest)
        return dataclasses.replace(self, stage_load=np.where(lacks, np.inf, self.stage_load))

    def visits(self, choice: Choice) -> tuple[Array, Integers]:
        """Return the load of each stage and each hop of a route, and their resources; both [visits]."""
        home, hops = self.problem.demands[self.source].home, self.problem.hop_resource
        route = stages(choice.workers)
        stops = [home, *(worker for worker, _, _ in route), home]
        cuts = [*(first for _, first, _ in route), len(choice.workers)]
        moves = [(cut, *pair) for cut, pair in zip(cuts, pairwise(stops), strict=True) if pair[0] != pair[1]]
        loads = [self.stage_load[first, last + 1, [worker]] for worker, first, last in route]
        resources = [np.array([worker]) for worker, _, _ in route]
        loads += [self.move_load[move] for move in moves]
        resources += [hops[sender, receiver] for _, sender, receiver in moves]
        return np.concatenate(loads), np.concatenate(resources)

    def cheapest(self, cost: CostOfLoad) -> tuple[float, Choice]:
        """Return the least cost of a route, and the route; the results of exits are not counted."""
        return self.priced(cost).cheapest()

    def priced(self, cost: CostOfLoad, block_price: Array | None = None) -> PricedStages:
        """Return the costs of all stages and moves, with a price of each block on each worker, shape [L, D]."""
        length, count = len(self.stage_load), self.stage_load.shape[2]
        first_cut, end_cut, worker, hops = self._indices
        stage = np.full((length + 1, length, count), np.inf)
        stage[end_cut, first_cut] = cost(self.stage_load[first_cut, end_cut], worker)
        if block_price is not None:
            until = np.vstack([np.zeros(count), np.cumsum(block_price, axis=0)])
            stage[end_cut, first_cut] += until[end_cut] - until[first_cut]
        move = self.move_cost + cost(self.move_load, hops).sum(axis=3)
        return PricedStages(self.variant, self.problem.demands[self.source].home, stage, move, self.fixed)

    @cached_property
    def _indices(self) -> tuple[Integers, Integers, Integers, Integers]:
        """First and last cut of each stage, the workers of its loads, and the resources of the loads of moves."""
        # Only cuts in ascending order are a stage: half of all pairs.
        length, _, count = self.stage_load.shape
        first_cut, end_cut = np.triu_indices(length, k=1, m=length + 1)
        worker = np.broadcast_to(np.arange(count), (len(first_cut), count))
        return first_cut, end_cut, worker, np.broadcast_to(self.problem.hop_resource, self.move_load.shape)


@dataclass(frozen=True)
class PricedStages:
    """The costs of all stages and moves of one source and variant.

    Parameters
    ----------
    stage
        Cost of blocks i .. j − 1 on worker d, at [j, i, d]; shape [L + 1, L, D].
    move
        Cost of sending cut l from d to e; shape [L + 1, D, D].
    fixed
        Cost of any route.
    """

    variant: int
    home: int
    stage: Array
    move: Array
    fixed: float

    def cheapest(self) -> tuple[float, Choice]:
        """Return the least cost of a route, and the route, which may return to a worker."""
        length, count = self.stage.shape[1:]
        everyone = np.arange(count)
        inner = self.move.copy()
        inner[:, everyone, everyone] = np.inf
        begin = np.full((length, count), np.inf)
        begin[0] = self.move[0, self.home]
        sender, first = np.zeros((length, count), dtype=np.intp), np.zeros((length + 1, count), dtype=np.intp)
        end = begin[0]
        for cut in range(1, length + 1):
            through = begin[:cut] + self.stage[cut, :cut]
            first[cut] = through.argmin(axis=0)
            end = through[first[cut], everyone]
            if cut < length:
                moved = end[:, None] + inner[cut]
                sender[cut] = moved.argmin(axis=0)
                begin[cut] = moved[sender[cut], everyone]
        total = end + self.move[length, :, self.home]
        worker, cut = int(total.argmin()), length
        price = float(total[worker]) + self.fixed
        workers: list[int] = []
        while cut:
            start = int(first[cut, worker])
            workers = [worker] * (cut - start) + workers
            worker, cut = int(sender[start, worker]), start
        return price, Choice(self.variant, tuple(workers))

    @cached_property
    def _of_worker(self) -> Array:
        return np.ascontiguousarray(self.stage.transpose(2, 0, 1))

    def in_order(self, order: Sequence[int]) -> tuple[float, Choice] | None:
        """Return the least cost of a route that visits workers in this ``order``, and the route; None without one.

        Any workers may be skipped, none is visited twice: a limit on each stage is therefore one on each worker.
        """
        length, visits = self.stage.shape[1], len(order)
        inner = self.move[:length].transpose(2, 1, 0)
        end = np.full((visits, length + 1), np.inf)
        first, sender = np.zeros((visits, length + 1), dtype=np.intp), np.zeros((visits, length), dtype=np.intp)
        for place, worker in enumerate(order):
            begin = np.full(length, np.inf)
            if place:
                moved = end[:place, :length] + inner[worker, order[:place]]
                sender[place] = moved.argmin(axis=0)
                begin = moved[sender[place], np.arange(length)]
            begin[0] = self.move[0, self.home, worker]
            through = begin + self._of_worker[worker]
            first[place] = through.argmin(axis=1)
            end[place] = through[np.arange(length + 1), first[place]]
        total = end[:, length] + self.move[length, list(order), self.home]
        place, cut = int(total.argmin()), length
        if not np.isfinite(total[place]):
            return None
        price = float(total[place]) + self.fixed
        workers: list[int] = []
        while cut:
            start = int(first[place, cut])
            workers = [order[place]] * (cut - start) + workers
            if start:
                place = int(sender[place, start])
            cut = start
        return price, Choice(self.variant, tuple(workers))
