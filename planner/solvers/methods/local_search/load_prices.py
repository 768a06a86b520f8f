"""Prices of loads, own for every source, and the most that resources can earn with them beside what they hold.

A price is a function of the load that one visit of a source brings: values at M + 1 equidistant loads up to the cap,
linear between them. A resource that is paid these prices loses Σ_k w_k G(σ_k), and the loads with which it is best off
are found by dynamic programming over its total. Loads on the grid suffice: with a piecewise linear Ĝ ≤ G that bends at
the grid, what is to be minimised is linear between the hyperplanes that hold one source's load, or the sum of the first
few, at a point of the grid. The matrix of these sums has its ones in a row, is totally unimodular therefore, and so all
vertices lie on the grid.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from planner.plan.surrogate import congestion, congestion_slope
from planner.solvers.core.problem import Array, Integers, Problem

CELLS = 48
"""Steps of the grid of loads: M."""


class LoadPrices:
    """The grid of loads at ``resources``, T of them.

    A ``price`` is that of a visit of each source at each resource by its load; shape [S, T, M + 1]. A visit without
    load never costs: a resource would be paid for visits that need not be there.
    """

    def __init__(self, problem: Problem, resources: Integers) -> None:
        self.problem, self.resources = problem, resources
        self.cell = problem.cap / CELLS
        self.load: Array = np.linspace(0.0, problem.cap, CELLS + 1)
        self.held = _below_congestion(self.load, problem.kappa)
        self.order = np.argsort(problem.classes.of_source, kind="stable").tolist()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of prices: [S, T, M + 1]."""
        return len(self.order), len(self.resources), len(self.load)

    def of_visit(self, price: Array, more: Array, place: Integers) -> Array:
        """Give the ``price`` [T, M + 1] of visits that bring loads ``more`` to resources at their place among the T."""
        cell, part = self._cells(more)
        flat = place * (CELLS + 1) + cell
        return np.asarray(price.ravel()[flat] * (1 - part) + price.ravel()[flat + 1] * part)

    def count(self, slope: Array, more: Array, place: Integers) -> None:
        """Add such visits to their source's ``slope`` [T, M + 1]."""
        cell, part = self._cells(more)
        np.add.at(slope, (place, cell), 1 - part)
        np.add.at(slope, (place, cell + 1), part)

    def _cells(self, more: Array) -> tuple[Integers, Array]:
        cell = np.minimum((more / self.cell).astype(np.intp), CELLS - 1)
        return cell, more / self.cell - cell

    def least(self, price: Array, slope: Array) -> float:
        """Give the least of Σ_k w_k Ĝ(σ_k) less what visits pay, over all resources; take its visits off ``slope``."""
        earned, first = _of_visits(price)
        classes, everyone = self.problem.classes, np.arange(len(self.resources))
        total = np.full((len(everyone), CELLS + 1), np.inf)
        total[:, 0] = 0.0
        chosen = np.zeros((len(self.order), *total.shape), dtype=np.intp)
        before = np.full((len(everyone), 2 * CELLS + 1), np.inf)
        level = 0
        for source in self.order:
            while level < classes.of_source[source]:
                total += classes.weight[level] * self.held
                level += 1
            before[:, CELLS:] = total
            # Row n of a window, read backwards, holds the totals n, n − 1, … from which the loads 0, 1, … lead to n.
            reached = sliding_window_view(before, CELLS + 1, axis=1)[:, :, ::-1] - earned[source][:, None, :]
            chosen[source] = reached.argmin(axis=2)
            total = np.take_along_axis(reached, chosen[source][:, :, None], axis=2)[:, :, 0]
        for weight in classes.weight[level:]:
            total += weight * self.held
        end = total.argmin(axis=1)
        least = float(total[everyone, end].sum())
        for source in reversed(self.order):
            own = chosen[source, everyone, end]
            end = end - own
            while (held := np.flatnonzero(own)).size:
                visit = first[source, held, own[held]]
                slope[source, held, visit] -= 1
                own[held] -= visit
        return least


def _of_visits(price: Array) -> tuple[Array, Integers]:
    """Give the most that visits which bring a load together can pay, and the least load of them; shape as ``price``."""
    earned = price.copy()
    earned[:, :, 0] = 0.0
    first = np.broadcast_to(np.arange(price.shape[2]), price.shape).copy()
    for cell in range(2, price.shape[2]):
        half = cell // 2
        several = price[:, :, 1 : half + 1] + earned[:, :, cell - 1 : cell - half - 1 : -1]
        least = several.argmax(axis=2)
        most = np.take_along_axis(several, least[:, :, None], axis=2)[:, :, 0]
        pays = most > earned[:, :, cell]
        earned[:, :, cell] = np.where(pays, most, earned[:, :, cell])
        first[:, :, cell] = np.where(pays, least + 1, first[:, :, cell])
    return earned, first


def _below_congestion(load: Array, kappa: float) -> Array:
    """Give values at ``load`` which, joined by lines, are nowhere above G: where the tangents between them meet."""
    touch = (load[:-1] + load[1:]) / 2
    touch[0] = 0.0
    value, slope = congestion(touch, kappa), congestion_slope(touch, kappa)
    left, right = value + slope * (load[1:] - touch), value + slope * (load[:-1] - touch)
    return np.asarray(np.minimum(np.append(right, np.inf), np.append(np.inf, left)))
