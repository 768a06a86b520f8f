"""The arcs of the layered graph of a source and variant, for methods with one variable per arc."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from planner.solvers.core.problem import Problem


@dataclass(frozen=True)
class Arc:
    """What a sample that uses this arc takes: seconds of each resource (resource, seconds), and latency.

    ``block`` runs on ``worker``. For a move the previous block runs on ``sender``; otherwise ``sender`` is ``worker``.
    """

    block: int
    worker: int
    sender: int
    seconds: tuple[tuple[int, float], ...]
    latency_s: float

    @property
    def unloaded_s(self) -> float:
        """Delay on an idle system, in seconds."""
        return sum(seconds for _, seconds in self.seconds) + self.latency_s


def node_arcs(problem: Problem, source: int, variant: int) -> Iterator[Arc]:
    """Yield the arc of each node "block l runs on worker d".

    It includes the work, the results of exits, and for the first and last block the input and the result; the first
    block also starts a stage.
    """
    model, home = problem.variants[variant], problem.demands[source].home
    last = len(model) - 1
    for block, worker in np.argwhere(problem.runs(source, variant)).tolist():
        begins = model.begin_s[block, worker] if block == 0 else 0.0
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
    """Yield the arc of each move "block l − 1 ran on d, block l runs on e": transfer across cut l and stage start."""
    model = problem.variants[variant]
    runs = problem.runs(source, variant)
    linked = np.isfinite(problem.latency_s) & ~np.eye(len(problem.workers), dtype=bool)
    for block in range(1, len(model)):
        reach = float(model.reach[block])
        for sender, worker in np.argwhere(linked & runs[block - 1][:, None] & runs[block][None, :]).tolist():
            uses = _hops(problem, sender, worker, reach * float(model.cut_bytes[block]))
            uses.append((worker, reach * float(model.begin_s[block, worker])))
            yield Arc(block, worker, sender, tuple(uses), reach * float(problem.latency_s[sender, worker]))


def _hops(problem: Problem, sender: int, receiver: int, size_bytes: float) -> list[tuple[int, float]]:
    resources = problem.hop_resource[sender, receiver].tolist()
    per_byte = problem.hop_s_per_byte[sender, receiver].tolist()
    return [
        (resource, size_bytes * s_per_byte)
        for resource, s_per_byte in zip(resources, per_byte, strict=True)
        if s_per_byte > 0
    ]
