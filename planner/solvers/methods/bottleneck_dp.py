"""Exact bottleneck partition of one source over distinct workers by dynamic programming (the problem of PipeEdge).

For a given largest stage or hop time τ, a state is a set of used workers together with the last of them. Its value is
the set of reachable cuts, stored as the bits of one integer: a worker extends every reachable cut l to the cuts
l + 1 … e(l) that its time and memory permit within τ. The states of all sets of one size are extended at once. A binary
search over the times that occur finds the least τ for which the last cut is reached and the result can return.

References
----------
Y. Hu et al., "PipeEdge: Pipeline parallelism for large-scale model inference on heterogeneous edge devices", DSD 2022.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.errors import SolveError
from planner.solvers.core.deadline import Deadline, Expired
from planner.solvers.core.problem import Array, Choice, Problem
from planner.solvers.core.search_state import Options, Outcome, Search
from planner.solvers.methods.explanation import infeasible

Bits = NDArray[np.uint64]

MAX_WORKERS = 18
"""There are 2^D sets of workers; with more workers their states would not fit into memory."""
MAX_BLOCKS = 63
"""The cuts of L blocks, L + 1 of them, are the bits of one 64-bit integer."""


def solve(problem: Problem, options: Options) -> Outcome:
    """Minimise the largest utilisation of the only source's route.

    Raises
    ------
    SolveError
        The problem is of another kind, see :func:`misfits`.
    """
    if requirements := misfits(problem):
        raise SolveError("not the problem this method solves", where="method dp", expected=", ".join(requirements))
    search = Search(problem, options)
    try:
        _bisect(search)
    except Expired:
        return search.outcome()
    if not search.incumbents:
        return infeasible(problem, options)
    search.raise_bound(search.best)
    return search.outcome()


def _bisect(search: Search) -> None:
    """Offer the best partition of each variant."""
    problem = search.problem
    for variant in problem.demands[0].variants:
        model = problem.variants[variant]
        if model.accuracy < problem.demands[0].min_accuracy:
            continue
        partition = _Partition(problem, variant, search.options.deadline)
        times = partition.times()
        low, high = 0, len(times)
        while low < high:
            middle = (low + high) // 2
            if partition.ends(partition.reach(times[middle]), times[middle]) is None:
                low = middle + 1
            else:
                high = middle
        if low < len(times):
            search.offer(((Choice(variant, partition.route(times[low])),),))


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
        (np.isfinite(problem.demands[0].deadline_s), "no deadline"),
        (len(problem.workers) > MAX_WORKERS, f"at most {MAX_WORKERS} workers"),
        (max(len(variant) for variant in variants) > MAX_BLOCKS, f"at most {MAX_BLOCKS} blocks"),
    ]
    return [requirement for violated, requirement in requirements if violated]


@dataclass
class _Partition:
    """The partition problem of one variant, with L blocks and D workers."""

    problem: Problem
    variant: int
    deadline: Deadline

    def __post_init__(self) -> None:
        problem, model = self.problem, self.problem.variants[self.variant]
        self.length, self.count = len(model), len(problem.workers)
        work = np.cumsum(np.vstack([np.zeros(self.count), model.reach[:-1, None] * model.block_s]), axis=0)
        # stage_s[l, e, d]: blocks l .. e − 1 on worker d; infinite where it may not run or does not fit.
        stage_s = work[None, :, :] - work[:, None, :] + model.reach[:, None, None] * model.overhead_s
        weights = np.cumsum(np.vstack([np.zeros(self.count), problem.weight_bytes[model.model]]), axis=0)
        for first in range(self.length + 1):
            stage_s[first, : first + 1] = np.inf
            peak = np.maximum.accumulate(problem.activation_bytes[model.model][first:], axis=0)
            needed = weights[first + 1 :] - weights[first] + peak
            stage_s[first, first + 1 :][needed > problem.memory_bytes] = np.inf
        for block, worker in np.argwhere(~problem.runs(0, self.variant)).tolist():
            stage_s[: block + 1, block + 1 :, worker] = np.inf
        self.stage_s = stage_s
        # hop_s[l, d, e]: cut l sent from d to e.
        per_byte = problem.hop_s_per_byte[:, :, 0]
        hop_s = (model.reach * model.cut_bytes)[:, None, None] * per_byte
        self.hop_s = np.where(np.isfinite(problem.latency_s), hop_s, np.inf)
        self.home = problem.demands[0].home

    def times(self) -> Array:
        """Return all times that can be the bottleneck, in ascending order, in seconds."""
        times = np.unique(np.concatenate([self.stage_s.ravel(), self.hop_s.ravel()]))
        return np.asarray(times[np.isfinite(times)])

    def reach(self, most_s: float) -> Bits:
        """Return the cuts that each set of workers with each last worker can reach; shape [2^D, D], one bit per cut."""
        tables = [self._table(worker, most_s) for worker in range(self.count)]
        hops = self._hops(most_s)
        reached = np.zeros((2**self.count, self.count), dtype=np.uint64)
        for worker in np.flatnonzero(self.hop_s[0, self.home] <= most_s).tolist():
            reached[1 << worker, worker] = _extend(np.ones(1, dtype=np.uint64), tables[worker])[0]
        sets = np.arange(2**self.count)
        size = sum((sets >> worker) & 1 for worker in range(self.count))
        for members in range(1, self.count):
            of_size = sets[size == members]
            of_size = of_size[reached[of_size].any(axis=1)]
            for worker in self.deadline.watch(range(self.count)):
                before = of_size[(of_size >> worker) & 1 == 0]
                cuts = np.bitwise_or.reduce(reached[before] & hops[:, worker], axis=1)
                reached[before | (1 << worker), worker] = _extend(cuts, tables[worker])
        return reached

    def ends(self, reached: Bits, most_s: float) -> tuple[int, int] | None:
        """Return a set and last worker with which all blocks are done and the result can return, or None."""
        done = (reached >> np.uint64(self.length)) & np.uint64(1) == 1
        done &= self.hop_s[self.length, :, self.home] <= most_s
        states = np.argwhere(done)
        return (int(states[0, 0]), int(states[0, 1])) if len(states) else None

    def route(self, most_s: float) -> tuple[int, ...]:
        """Return the workers of a route within ``most_s``, block by block, traced back from its end.

        Raises
        ------
        ValueError
            There is no route within this time.
        """
        reached = self.reach(most_s)
        end = self.ends(reached, most_s)
        if end is None:
            raise ValueError("no route within this time")
        hops = self._hops(most_s)
        (used, worker), cut = end, self.length
        workers: list[int] = []
        while cut:
            before = used & ~(1 << worker)
            used, previous, first = next(
                (before, other, first)
                for first in range(cut)
                if self.stage_s[first, cut, worker] <= most_s
                for other in (range(self.count) if before else (worker,))
                if (first == 0 and not before) or int(reached[before, other] & hops[other, worker]) >> first & 1
            )
            workers = [worker] * (cut - first) + workers
            worker, cut = previous, first
        return tuple(workers)

    def _hops(self, most_s: float) -> Bits:
        """Return the cuts that each worker can send to each other one within ``most_s``; shape [D, D]."""
        bit = np.uint64(1) << np.arange(1, self.length, dtype=np.uint64)
        return np.asarray(((self.hop_s[1 : self.length] <= most_s) * bit[:, None, None]).sum(axis=0, dtype=np.uint64))

    def _table(self, worker: int, most_s: float) -> Bits:
        """Return the cuts that a worker reaches from each value of each byte of cuts; shape [8, 256].

        The lookup replaces a loop over single bits.
        """
        bit = np.uint64(1) << np.arange(self.length + 1, dtype=np.uint64)
        further = np.zeros(64, dtype=np.uint64)
        further[: self.length + 1] = ((self.stage_s[:, :, worker] <= most_s) * bit).sum(axis=1, dtype=np.uint64)
        table = np.zeros((8, 256), dtype=np.uint64)
        values = np.arange(256)
        for position in range(8):
            table[:, (values >> position) & 1 == 1] |= further[position::8, None]
        return table


def _extend(cuts: Bits, table: Bits) -> Bits:
    """Return the cuts that a worker with this ``table`` reaches from sets of ``cuts``; same shape."""
    reached = np.zeros_like(cuts)
    for byte in range(8):
        reached |= table[byte, (cuts >> np.uint64(8 * byte)) & np.uint64(255)]
    return reached
