"""Price tables per source and resource, and the loads that minimise a resource's congestion less its payments.

A price is a function of the load of one visit: values at M + 1 equidistant loads up to the cap, linear between them. A
resource receives these payments and has the cost Σ_k w_k G(σ_k); its best loads are found by dynamic programming over
its total load. Loads on the grid suffice: with a piecewise linear Ĝ ≤ G that bends only on the grid, the function to
minimise is linear between the hyperplanes on which one source's load, or the sum of the first few, is on the grid. The
matrix of these sums has consecutive ones in each row and is therefore totally unimodular, so all vertices lie on the
grid.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from planner.plan.surrogate import congestion, congestion_slope
from planner.solvers.core.problem import Array, Integers, Problem

GRID_STEPS = 48
"""Steps of the grid of loads: M."""


class LoadPrices:
    """The grid of loads at T ``resources``.

    A ``price`` is that of a visit of each source to each resource by its load; shape [S, T, M + 1]. A visit without
    load has no positive price, because a resource could collect it for visits that do not exist.
    """

    def __init__(self, problem: Problem, resources: Integers) -> None:
        self.problem, self.resources = problem, resources
        self.step = problem.cap / GRID_STEPS
        self.load: Array = np.linspace(0.0, problem.cap, GRID_STEPS + 1)
        self.congestion = _below_congestion(self.load, problem.kappa)
        self.order = np.argsort(problem.classes.of_source, kind="stable").tolist()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of prices: [S, T, M + 1]."""
        return len(self.order), len(self.resources), len(self.load)

    def of_visit(self, price: Array, more: Array, table: Integers) -> Array:
        """Return the prices [visits], by one source's ``price`` [T, M + 1], of loads ``more`` in the given tables."""
        cell, part = self._cells(more)
        flat = table * (GRID_STEPS + 1) + cell
        return np.asarray(price.ravel()[flat] * (1 - part) + price.ravel()[flat + 1] * part)

    def count(self, slope: Array, more: Array, table: Integers) -> None:
        """Add visits with loads ``more`` in the given tables to one source's ``slope`` [T, M + 1]."""
        cell, part = self._cells(more)
        np.add.at(slope, (table, cell), 1 - part)
        np.add.at(slope, (table, cell + 1), part)

    def _cells(self, more: Array) -> tuple[Integers, Array]:
        cell = np.minimum((more / self.step).astype(np.intp), GRID_STEPS - 1)
        return cell, more / self.step - cell

    def least(self, price: Array, slope: Array) -> float:
        """Return the minimum over all resources of Σ_k w_k Ĝ(σ_k) less payments; subtract its visits from ``slope``."""
        earned, first = _of_visits(price)
        classes, everyone = self.problem.classes, np.arange(len(self.resources))
        total = np.full((len(everyone), GRID_STEPS + 1), np.inf)
        total[:, 0] = 0.0
        chosen = np.zeros((len(self.order), *total.shape), dtype=np.intp)
        padded = np.full((len(everyone), 2 * GRID_STEPS + 1), np.inf)
        level = 0
        for source in self.order:
            while level < classes.of_source[source]:
                total += classes.weight[level] * self.congestion
                level += 1
            padded[:, GRID_STEPS:] = total
            # Window n, reversed, holds the totals n, n − 1, … to which the loads 0, 1, … are added to reach n.
            reached = sliding_window_view(padded, GRID_STEPS + 1, axis=1)[:, :, ::-1] - earned[source][:, None, :]
            chosen[source] = reached.argmin(axis=2)
            total = reached.min(axis=2)
        for weight in classes.weight[level:]:
            total += weight * self.congestion
        end = total.argmin(axis=1)
        least = float(total[everyone, end].sum())
        for source in reversed(self.order):
            load = chosen[source, everyone, end]
            end = end - load
            while (loaded := np.flatnonzero(load)).size:
                visit = first[source, loaded, load[loaded]]
                slope[source, loaded, visit] -= 1
                load[loaded] -= visit
        return least


def _of_visits(price: Array) -> tuple[Array, Integers]:
    """Return the largest payment for a load in any number of visits, and the load of the first; shape as ``price``."""
    of_load = np.ascontiguousarray(price.transpose(2, 0, 1))  # loads first: numpy is quickest across the others
    earned = of_load.copy()
    earned[0] = 0.0
    first = np.empty(earned.shape, dtype=np.intp)
    first[:] = np.arange(len(first))[:, None, None]
    for cell in range(2, len(first)):
        half = cell // 2
        split = of_load[1 : half + 1] + earned[cell - 1 : cell - half - 1 : -1]
        most = split.max(axis=0)
        pays = most > earned[cell]
        if pays.any():
            first[cell, pays] = split[:, pays].argmax(axis=0) + 1
            earned[cell, pays] = most[pays]
    return earned.transpose(1, 2, 0), first.transpose(1, 2, 0)


def _below_congestion(load: Array, kappa: float) -> Array:
    """Return values at ``load`` of a piecewise linear function that is nowhere above G, built from tangents."""
    touch = (load[:-1] + load[1:]) / 2
    touch[0] = 0.0
    value, slope = congestion(touch, kappa), congestion_slope(touch, kappa)
    left, right = value + slope * (load[1:] - touch), value + slope * (load[:-1] - touch)
    return np.asarray(np.minimum(np.append(right, np.inf), np.append(np.inf, left)))
