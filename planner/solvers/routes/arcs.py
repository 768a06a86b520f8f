"""The layered graph of a source and variant as lists of coefficients, for methods that give each arc a variable."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from planner.solvers.core.problem import Problem


@dataclass(frozen=True)
class Arc:
    """What a sample takes: seconds of each resource, and latency.

    ``block`` runs on ``worker``, and for a move the block before on ``sender``; else ``sender`` is ``worker`` itself.
    """

    block: int
    worker: int
    sender: int
    seconds: tuple[tuple[int, float], ...]
    latency_s: float

    @property
    def unloaded_s(self) -> float:
        """Delay on an idle system."""
        return sum(seconds for _, seconds in self.seconds) + self.latency_s


def place_arcs(problem: Problem, source: int, variant: int) -> Iterator[Arc]:
    """Give "block l runs on worker d": its work, an exit's result, and at the ends the input and the result.

    The first block also begins a stage.
    """
    model, home = problem.variants[variant], problem.demands[source].home
    last = len(model) - 1
    for block, worker in np.argwhere(problem.runs(source, variant)).tolist():
        begins = model.overhead_s[worker] if block == 0 else 0.0
        uses = [(worker, float(model.reach[block] * (model.block_s[block, worker] + begins)))]
        latency_s = 0.0
        sends = [(worker, home, float(model.exit_share[block]), float(model.exit_bytes[block]))]
        if block == 0:
            sends.append((home, worker, float(model.reach[0]), float(model.reach[0] * model.cut_bytes[0])))
        if block == last:
            sends.append((worker, home, float(model.reach[-1]), float(model.reach[-1] * model.cut_bytes[-1])))
        for sender, receiver, share, size_bytes in sends:
            if sender != receiver and share > 0:
                uses += _hops(problem, sender, receiver, size_bytes)
                latency_s += share * float(problem.latency_s[sender, receiver])
        yield Arc(block, worker, worker, tuple(uses), latency_s)


def move_arcs(problem: Problem, source: int, variant: int) -> Iterator[Arc]:
    """Give "block l − 1 ran on d, block l runs on e": the transfer across cut l and the beginning of a stage."""
    model = problem.variants[variant]
    runs = problem.runs(source, variant)
    linked = np.isfinite(problem.latency_s) & ~np.eye(len(problem.workers), dtype=bool)
    for block in range(1, len(model)):
        reach = float(model.reach[block])
        for sender, worker in np.argwhere(linked & runs[block - 1][:, None] & runs[block][None, :]).tolist():
            uses = _hops(problem, sender, worker, reach * float(model.cut_bytes[block]))
            uses.append((worker, reach * float(model.overhead_s[worker])))
            yield Arc(block, worker, sender, tuple(uses), reach * float(problem.latency_s[sender, worker]))


def _hops(problem: Problem, sender: int, receiver: int, size_bytes: float) -> list[tuple[int, float]]:
    resources = problem.hop_resource[sender, receiver].tolist()
    per_byte = problem.hop_s_per_byte[sender, receiver].tolist()
    return [
        (resource, size_bytes * s_per_byte)
        for resource, s_per_byte in zip(resources, per_byte, strict=True)
        if s_per_byte > 0
    ]
