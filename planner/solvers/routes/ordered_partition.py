"""The best route that visits workers in a given order, each at most once, by dynamic programming.

Workers may be skipped. A route pays for its stages and moves either the largest of these costs (the bottleneck) or
their sum. As no worker is visited twice, loads and memory are exact, which they are not in
:mod:`planner.solvers.routes.stage_dp`. One order takes O(L² D + L D²).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from planner.solvers.core.deadline import NEVER, Deadline
from planner.solvers.core.problem import Array, Choice, Choices, Integers, Problem
from planner.solvers.routes.best_response import Measure
from planner.solvers.routes.stage_dp import StagedRoutes


@dataclass(frozen=True)
class PartitionCosts:
    """Costs of the stages and moves of one source and variant.

    Parameters
    ----------
    stage
        Cost of blocks i .. j − 1 on worker d; infinite where impossible; shape [L, L + 1, D].
    move
        Cost of cut l sent from d to e, 0 from a worker to itself; shape [L + 1, D, D].
    join
        ``np.maximum`` or ``np.add``: how costs of stages and moves combine.
    """

    stage: Array
    move: Array
    join: np.ufunc

    @classmethod
    def of_bottleneck(cls, staged: StagedRoutes, base: Array) -> PartitionCosts:
        """Return relative utilisations on top of a ``base`` load [R], of which the largest counts."""
        workers, usable = staged.stage_load.shape[2], staged.problem.usable
        used = staged.move_load > 0
        hops = np.broadcast_to(staged.problem.hop_resource, used.shape)
        move = np.where(used, (staged.move_load + base[hops]) / usable[hops], 0.0).max(axis=3)
        move[np.isinf(staged.move_cost)] = np.inf
        return cls((staged.stage_load + base[:workers]) / usable[:workers], move, np.maximum)

    @classmethod
    def of_sum(cls, staged: StagedRoutes, load: Array, measure: Measure) -> PartitionCosts:
        """Return what stages and moves add to a ``measure`` beside a ``load`` [S, R] of the other sources."""
        cost = measure.rise(staged.source, load, 0.0)
        everyone = np.broadcast_to(np.arange(staged.stage_load.shape[2]), staged.stage_load.shape)
        hops = np.broadcast_to(staged.problem.hop_resource, staged.move_load.shape)
        move = staged.move_cost + cost(staged.move_load, hops).sum(axis=3)
        return cls(cost(staged.stage_load, everyone), move, np.add)

    def best(self, home: int, order: Sequence[int]) -> tuple[float, tuple[int, ...]]:
        """Return the least cost of a route from and to ``home``, infinite if there is none, and its workers."""
        length = len(self.stage)
        done = np.full((len(order), length + 1), np.inf)
        sender: Integers = np.zeros((len(order), length), dtype=np.intp)
        first: Integers = np.zeros((len(order), length + 1), dtype=np.intp)
        for place, worker in enumerate(order):
            enter = np.full(length, np.inf)
            if place:
                moved = self.join(done[:place, :length], self.move[:length, order[:place], worker].T)
                sender[place] = moved.argmin(axis=0)
                enter = moved[sender[place], np.arange(length)]
            enter[0] = self.move[0, home, worker]
            ended = self.join(enter[:, None], self.stage[:, :, worker])
            first[place] = ended.argmin(axis=0)
            done[place] = ended[first[place], np.arange(length + 1)]
        total = self.join(done[:, length], self.move[length, list(order), home])
        place, cut = int(total.argmin()), length
        cost = float(total[place])
        workers: list[int] = []
        while cut and np.isfinite(cost):
            begin = int(first[place, cut])
            workers = [order[place]] * (cut - begin) + workers
            place, cut = int(sender[place, begin]), begin
        return cost, tuple(workers)


def ordered_routes(
    problem: Problem, order: Sequence[int], measure: Measure | None = None, deadline: Deadline = NEVER
) -> Choices | None:
    """Return a route for each source in turn of priority, beside the loads and blocks of those before.

    Parameters
    ----------
    measure
        What the sum over a route increases least; without one the largest utilisation is minimised.

    Returns
    -------
    Choices or None
        None if some source has no route left.

    Raises
    ------
    Expired
        The ``deadline`` passes.
    """
    chosen: list[tuple[Choice, ...]] = [()] * len(problem.demands)
    for source in deadline.watch(np.argsort(problem.classes.of_source, kind="stable").tolist()):
        load = problem.load(tuple(chosen))
        held = problem.residency(tuple(chosen)) if problem.memory_binds else None
        home, best = problem.demands[source].home, np.inf
        for variant in problem.demands[source].variants:
            if problem.variants[variant].accuracy < problem.demands[source].min_accuracy:
                continue
            staged = StagedRoutes.of(problem, source, variant)
            staged = staged.beside(held) if held is not None else staged
            costs = (
                PartitionCosts.of_sum(staged, load, measure)
                if measure
                else PartitionCosts.of_bottleneck(staged, load.sum(axis=0))
            )
            cost, workers = costs.best(home, order)
            if cost < best:
                best, chosen[source] = cost, (Choice(variant, workers),)
        if not chosen[source]:
            return None
    return tuple(chosen)
