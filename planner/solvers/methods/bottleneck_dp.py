"""Bottleneck partition of one source over distinct workers by dynamic programming (the problem of PipeEdge).

For a given largest utilisation τ, a state is a set of used workers together with the last of them. Its value is the set
of reachable cuts: a worker extends each reachable cut l to the cuts l + 1 … e(l) that its time and memory permit. The
states of all sets of one size are extended at once. A cut is dropped if the remaining work exceeds what the unused
workers can do within τ, which leaves few states where τ is close to the optimum. A binary search over the utilisations
that occur finds the least feasible one.

Only the most promising sets of each size are kept, the beam. The beam widens until nothing had to be dropped, which
proves the optimum, or until the time limit. A quicker search, :mod:`planner.solvers.routes.partition_beam`, comes
first; with more than 64 workers it alone finds routes, and the bound is what all workers together can do.

References
----------
Y. Hu et al., "PipeEdge: Pipeline parallelism for large-scale model inference on heterogeneous edge devices", DSD 2022.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from planner.errors import SolveError
from planner.solvers.core.deadline import Deadline
from planner.solvers.core.problem import Array, Choice, Choices, Integers, Problem
from planner.solvers.core.search_state import Options, Outcome, Search
from planner.solvers.methods.explanation import infeasible
from planner.solvers.routes.ordered_partition import PartitionCosts
from planner.solvers.routes.partition_beam import PartitionBeam
from planner.solvers.routes.stage_dp import StagedRoutes

Sets = NDArray[np.uint64]
"""Sets of workers, one bit per worker."""
Cuts = NDArray[np.bool_]
"""Whether each cut is reachable, by set and last worker; shape [sets, D, L + 1]."""

MAX_WORKERS = 64
"""The members of a set of workers are the bits of one 64-bit integer; with more workers nothing is proven."""
BEAMS = (32, 512, 8192)
"""Widths of the beam in turn, in sets; the last is limited by memory as well."""
QUICK_BEAMS, WIDE_BEAMS = (16, 64), (256, 1024)
"""Widths of the beam of the quick search in turn, in labels; the wide ones with more workers."""
QUICK_ACCURACY = 5e-4
"""Relative accuracy of the binary search by the quick search."""
MAX_CELLS = 8_000_000
"""Most states times cuts of one size of sets, at one byte each."""


def solve(problem: Problem, options: Options) -> Outcome:
    """Minimise the largest utilisation of the only source's route.

    Raises
    ------
    SolveError
        The problem is of another kind, see :func:`misfits`.
    """
    if requirements := misfits(problem):
        raise SolveError("not the problem this method solves", where="method dp", expected=", ".join(requirements))
    search, partitions = Search(problem, options), _partitions(problem)
    search.raise_bound(min((partition.least for partition in partitions), default=0.0))
    bounds = [_bisect(search, partition) for partition in partitions]
    if not search.incumbents and np.isinf(min(bounds, default=np.inf)):
        return infeasible(problem, options)
    search.raise_bound(min(bounds))
    return search.outcome()


def quick_plan(problem: Problem, deadline: Deadline) -> Choices | None:
    """Return the best bottleneck partition that the quick search finds, for a problem of any goal.

    It is a plan of a tighter problem, with one visit to a worker; None if this method does not apply to that.
    """
    tighter = dataclasses.replace(problem, goal="throughput", max_visits=1)
    if misfits(tighter):
        return None
    search = Search(tighter, Options(deadline=deadline))
    for partition in _partitions(tighter):
        for beam in QUICK_BEAMS:
            _bisect_quickly(search, partition, beam)
    return min(search.incumbents, key=tighter.objective, default=None)


def _partitions(problem: Problem) -> list[_Partition]:
    """Return the partition problems of the variants that are accurate enough."""
    demand = problem.demands[0]
    accurate = [variant for variant in demand.variants if problem.variants[variant].accuracy >= demand.min_accuracy]
    return [_Partition(problem, variant) for variant in accurate]


def misfits(problem: Problem) -> list[str]:
    """Return what this method requires and the problem does not satisfy; empty if the method applies."""
    variants = [problem.variants[variant] for variant in problem.demands[0].variants]
    pairs = ~np.eye(len(problem.workers), dtype=bool) & np.isfinite(problem.latency_s)
    used = problem.hop_resource[pairs]
    separate_links = used.shape[1] == 1 and len(np.unique(used)) == len(used)
    requirements = [
        (len(problem.demands) != 1, "one source"),
        (problem.goal != "throughput", "the goal throughput"),
        (problem.max_visits != 1, "max_visits 1"),
        (not separate_links, "a point-to-point link between each two workers"),
        (any(variant.exit_share.any() for variant in variants), "models without exits in use"),
        (np.isfinite(problem.demands[0].deadline_s) or problem.demands[0].tail, "no limit on delay"),
    ]
    return [requirement for violated, requirement in requirements if violated]


def _bisect(search: Search, partition: _Partition) -> float:
    """Offer the best routes of a partition; return a lower bound, the incumbent's value if no route is better."""
    brief, many = search.options.brief, partition.count > MAX_WORKERS
    for beam in (*QUICK_BEAMS, *(WIDE_BEAMS if many and not brief else ())):
        _bisect_quickly(search, partition, beam)
    if many:
        return partition.least
    times = partition.times(partition.least * (1 - 1e-9), search.best)
    low, high = 0, len(times)
    for beam in BEAMS[:-1] if brief else BEAMS:
        tried = low
        while tried < high and not search.out_of_time:
            middle = (tried + high) // 2
            found = partition.probe(float(times[middle]), beam, lambda: search.out_of_time)
            if found.workers:
                search.offer(((Choice(partition.variant, found.workers),),))
                search.report()
                high = min(middle, int(np.searchsorted(times, partition.value(found.workers))))
                continue
            tried = middle + 1
            low = tried if found.exact else low
        if low >= high or search.out_of_time:
            break
    return float(times[low]) if low < len(times) else search.best


def _bisect_quickly(search: Search, partition: _Partition, beam: int) -> None:
    """Offer routes of a partition by the quick search; at once none if it finds none just below the best."""
    low, quick = partition.least, partition.quick
    first = bool(search.incumbents)
    while not search.out_of_time and (high := min(search.best, partition.most)) - low > QUICK_ACCURACY * low:
        middle = (low + high) / 2 if high < 2 * low else float(np.sqrt(low * high))
        middle = max(middle, high * (1 - QUICK_ACCURACY)) if first else middle
        workers = quick.probe(middle, beam, lambda: search.out_of_time)
        if workers:
            search.offer(((Choice(partition.variant, workers),),))
            search.report()
        if search.best > middle * (1 + 1e-9):
            if first:
                break
            low = middle * (1 + 1e-9)
        first = False


class _Layer(NamedTuple):
    """The sets of one size, in ascending order, and what they reach as packed bits."""

    sets: Sets
    packed: NDArray[np.uint8]


class _Found(NamedTuple):
    """Workers of a route, empty if none was found; ``exact`` if nothing was dropped: then there is none."""

    workers: tuple[int, ...]
    exact: bool


@dataclass
class _Partition:
    """The partition problem of one variant, with L blocks and D workers."""

    problem: Problem
    variant: int

    def __post_init__(self) -> None:
        problem, model = self.problem, self.problem.variants[self.variant]
        staged = StagedRoutes.of(problem, 0, self.variant)
        if problem.memory_binds:
            staged = staged.beside(problem.residency(((),)))
        self.costs = costs = PartitionCosts.of_bottleneck(staged, np.zeros(len(problem.resources)))
        # stage[i, j, d]: utilisation by blocks i .. j − 1; move[l, d, e]: by cut l sent from d to e.
        self.stage, self.move = costs.stage, costs.move
        self.length, self.count = len(model), len(problem.workers)
        self.home = problem.demands[0].home
        # Any prices of workers' time prove how much work is left at least; speeds are the best guess.
        work = problem.demands[0].volume * model.reach[:-1, None] * model.block_s / problem.usable[: self.count]
        self.price = 1 / np.maximum(work.sum(axis=0), 1e-300)
        cheapest = (work * self.price).min(axis=1)
        self.rest = np.append(np.cumsum(cheapest[::-1])[::-1], 0.0)

    @property
    def quick(self) -> PartitionBeam:
        """The quick search."""
        return PartitionBeam(self.costs, self.home, self.price, self.rest)

    @property
    def least(self) -> float:
        """Utilisation of all workers if the work could be divided at will: a lower bound."""
        return float(self.rest[0] / self.price.sum())

    @property
    def most(self) -> float:
        """Largest utilisation by a stage or a move that is possible."""
        return max(float(costs[np.isfinite(costs)].max(initial=0.0)) for costs in (self.stage, self.move))

    def times(self, least: float, most: float) -> Array:
        """Return all utilisations from ``least`` to below ``most`` that can be the bottleneck, in ascending order."""
        times = np.concatenate([self.stage.ravel(), self.move.ravel()])
        return np.unique(times[(times >= least) & (times < most)])

    def value(self, workers: tuple[int, ...]) -> float:
        """Return the largest utilisation of a route."""
        return self.problem.objective(((Choice(self.variant, workers),),)) * (1 - 1e-12)

    def probe(self, most: float, beam: int, stopped: Callable[[], bool]) -> _Found:
        """Look for a route whose utilisations are at most ``most``, keeping at most ``beam`` sets of each size."""
        # ends[l, d]: the last cut that worker d reaches from cut l.
        ends = np.arange(self.length)[:, None] + (self.stage <= most).sum(axis=1)
        sends = np.ascontiguousarray((self.move <= most).transpose(2, 1, 0))  # receiver, sender, cut
        beam = min(beam, max(MAX_CELLS // (self.count * (self.length + 1)), 1))
        sets, reach = np.zeros(1, dtype=np.uint64), np.zeros((1, self.count, self.length + 1), dtype=bool)
        reach[0, self.home, 0] = True
        layers: list[_Layer] = []
        exact = True
        for _ in range(self.count):
            if stopped():
                return _Found((), exact=False)
            sets, reach = self._extend(sets, reach, most, ends, sends)
            if len(sets) > beam:
                kept = self._promising(sets, reach, most, beam)
                sets, reach, exact = sets[kept], reach[kept], False
            layers.append(_Layer(sets, np.packbits(reach, axis=2)))
            done = np.argwhere(reach[:, :, self.length] & sends[self.home, :, self.length])
            if len(done):
                return _Found(self._trace(layers, int(done[0, 0]), int(done[0, 1]), ends, sends), exact)
            if not len(sets):
                break
        return _Found((), exact)

    def _extend(
        self, sets: Sets, reach: Cuts, most: float, ends: Integers, sends: NDArray[np.bool_]
    ) -> tuple[Sets, Cuts]:
        """Return the sets with one more worker, and what they reach."""
        grown: list[tuple[int, Sets, NDArray[np.bool_]]] = []
        cuts = np.arange(self.length)
        for worker in range(self.count):
            bit = np.uint64(1 << worker)
            rows = np.flatnonzero(sets & bit == 0)
            begins = np.logical_and(reach[rows, :, : self.length], sends[worker, :, : self.length]).any(axis=1)
            # The latest begin before a cut reaches furthest, because ends grow with begins.
            latest = np.maximum.accumulate(np.where(begins, cuts, -1), axis=1)
            reached = np.asarray(np.where(latest >= 0, ends[latest, worker], 0) > cuts)
            used = sets[rows] | bit
            reached &= self.rest[1:] <= (most * (1 + 1e-9)) * self._unused(used)[:, None]
            kept = reached.any(axis=1)
            grown.append((worker, used[kept], reached[kept]))
        found = np.unique(np.concatenate([used for _, used, _ in grown]))
        after = np.zeros((len(found), self.count, self.length + 1), dtype=bool)
        for worker, used, reached in grown:
            after[np.searchsorted(found, used), worker, 1:] = reached
        return found, after

    def _unused(self, sets: Sets) -> Array:
        """Return the price of all workers outside each set."""
        bits = np.uint64(1) << np.arange(self.count, dtype=np.uint64)
        return np.asarray(((sets[:, None] & bits) == 0) @ self.price)

    def _promising(self, sets: Sets, reach: Cuts, most: float, beam: int) -> Integers:
        """Return the indices, in order, of the sets with the most time left for the remaining work."""
        furthest = self.length - np.asarray(reach.any(axis=1))[:, ::-1].argmax(axis=1)
        spare = most * self._unused(sets) - self.rest[furthest]
        return np.sort(np.argsort(-spare, kind="stable")[:beam])

    def _trace(
        self, layers: list[_Layer], row: int, worker: int, ends: Integers, sends: NDArray[np.bool_]
    ) -> tuple[int, ...]:
        """Return the workers of the route that ends with ``worker`` in a row of the last layer, block by block."""
        cut, used = self.length, int(layers[-1].sets[row])
        workers: list[int] = []
        for layer in (*reversed(layers[:-1]), None):
            begins = (ends[:cut, worker] >= cut)[None]
            used &= ~(1 << worker)
            if layer is None:
                return tuple([worker] * cut + workers)
            packed = layer.packed[int(np.searchsorted(layer.sets, np.uint64(used)))]
            reach = np.unpackbits(packed, axis=1, count=self.length + 1).astype(bool)
            senders, cuts = np.nonzero(reach[:, :cut] & sends[worker, :, :cut] & begins)
            workers = [worker] * (cut - int(cuts[0])) + workers
            worker, cut = int(senders[0]), int(cuts[0])
        return tuple(workers)
