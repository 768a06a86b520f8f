"""Branch and bound that raises the lower bound on one route per source beyond that of shared routes.

For a value between bound and incumbent, blocks are pinned to workers one after another, the most divided one first. A
node is closed if shared routes without heavy loads have a bound above the value. If all nodes are closed, the value is
a lower bound.
"""

from __future__ import annotations

import numpy as np

from planner.solvers.core.problem import Array, Choices, Problem
from planner.solvers.core.search_state import Search
from planner.solvers.methods.local_search.peak_bound import PeakBound, excludes

Pins = dict[str, dict[int, int]]

ARCS_PER_STEP = 100_000
"""Nodes between two runs of annealing are as many as have this number of arcs in all: they take about as long."""
MAX_NODES = 120
"""Nodes after which another value is tried."""
PARTS = (0.5, 0.75, 0.25, 0.6, 0.1, 0.03)
"""Values to try in turn, as fractions of the way from the bound to the incumbent. A larger one may need fewer nodes."""
MIN_STEP = 1e-3
"""Relative distance of the incumbent from the bound below which the tree is given up."""


class PeakTree:
    """The tree for one value at a time.

    ``tries`` counts the values that took too many nodes since one was proven; ``helps`` tells whether any was.
    """

    def __init__(self, search: Search, bound: PeakBound) -> None:
        self.search, self.bound = search, bound
        self.tries, self.helps, self.turn = 0, False, 0
        self.nodes_per_step = max(1, ARCS_PER_STEP // max(search.problem.arcs, 1))
        self._restart()

    def _restart(self) -> None:
        part = PARTS[self.turn % len(PARTS)]
        self.value = self.bound.low + part * (self.search.best - self.bound.low)
        self.open: list[Pins] = [self.search.problem.pins]
        self.nodes = 0

    def step(self) -> bool:
        """Close some nodes; return whether further steps may help."""
        if self.value >= self.search.best:
            self._restart()
        if self.tries == len(PARTS) or self.search.best - self.bound.low <= MIN_STEP * self.value:
            return False
        for _ in range(self.nodes_per_step):
            if not self.open or self.nodes >= MAX_NODES or self.search.out_of_time:
                break
            self.nodes += 1
            self._close(self.open.pop())
        if self.search.out_of_time:
            return False
        if not self.open:
            self.bound.prove(self.value)
            self.helps, self.tries = True, 0
            self._restart()
        elif self.nodes >= MAX_NODES:
            self.tries += 1
            self.turn += 1
            self._restart()
        return True

    def _close(self, pins: Pins) -> None:
        """Close a node, or open its children."""
        outcome = self.bound.without_heavy_loads(self.value, pins)
        if excludes(outcome, self.value):
            return
        problem = self.search.problem
        best = min(outcome.incumbents, key=problem.objective, default=None)
        divided = _most_divided(problem, best, pins) if best else None
        if divided is None:
            self.nodes = MAX_NODES  # these routes are single, so this value cannot be excluded
            self.open.append(pins)
            return
        source, block = divided
        name = problem.demands[source].name
        runs = np.any([problem.runs(source, variant)[block] for variant in problem.demands[source].variants], axis=0)
        for worker in np.flatnonzero(runs).tolist():
            self.open.append({**pins, name: {**pins.get(name, {}), block: worker}})


def _most_divided(problem: Problem, choices: Choices, pins: Pins) -> tuple[int, int] | None:
    """Return the source and block whose largest share on one worker is least; None if no block is divided.

    Only blocks that all models of the source have are looked at, since others cannot be pinned.
    """
    least, found = 1 - 1e-6, None
    for source, routes in enumerate(choices):
        length = min(len(problem.variants[variant]) for variant in problem.demands[source].variants)
        share: Array = np.zeros((length, len(problem.workers)))
        for choice in routes:
            share[np.arange(length), choice.workers[:length]] += choice.share
        for block in pins.get(problem.demands[source].name, {}):
            share[block] = 1.0
        largest = share.max(axis=1)
        block = int(largest.argmin())
        if largest[block] < least:
            least, found = float(largest[block]), (source, block)
    return found
