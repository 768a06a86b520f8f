"""The master of column generation: the best shares of known routes, by projected Newton steps.

The master's objective Σ_k w_k G(σ_k) + fixed costs is smooth, so Newton steps on the shares find its optimum, where a
linear program would need thousands of tangents. Limits (the utilisation cap, deadlines, least accuracies) enter by an
augmented Lagrangian; most are slack and never appear. The gradient prices further routes.

References
----------
D. P. Bertsekas and E. M. Gafni, "Projected Newton methods and optimization of multicommodity flows", IEEE Transactions
on Automatic Control 28 (1983).
D. P. Bertsekas, "Constrained Optimization and Lagrange Multiplier Methods" (1982), chapter 2.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.linalg import cho_factor, cho_solve

from planner.solvers.core.problem import Array, Choice, Choices, Problem, normalised
from planner.solvers.core.resource_prices import Prices
from planner.solvers.core.smooth_congestion import smooth_congestion

MARGIN = 1e-6
"""The cap is kept a little tighter than asked for, so that what the search ends with keeps it."""
INNER_STEPS, HALVINGS = 40, 20
SHRINK = 0.2
MAX_STIFFENINGS = 6
NEW_SHARE = 0.01
DENSE = 40_000
"""Loads of up to so many entries are kept dense: for few routes sparse products cost more than they save."""


class Master:
    """Shares of routes, kept between rounds.

    The limits of a source are its unloaded delay over its deadline and its lost accuracy over what may be lost; each is
    at most 1. Attributes over columns have n rows, in the order in which routes came.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        demands = problem.demands
        self.columns: list[tuple[int, Choice]] = []
        self.known: set[tuple[int, Choice]] = set()
        self.share = np.zeros(0)
        self.slack_price = np.zeros(0)
        self.fixed = np.zeros(0)
        self.lateness = np.array([1 / demand.deadline_s for demand in demands])
        self.loss = np.array(
            [1 / max(1 - demand.min_accuracy, 1e-9) if demand.min_accuracy else 0.0 for demand in demands]
        )
        self.limits = np.flatnonzero(np.concatenate([self.lateness, self.loss]) > 0)
        self.limit_use = np.zeros((0, len(self.limits)))
        self.capacity_price = np.zeros(len(problem.resources))
        self.limit_price = np.zeros(len(self.limits))
        self.stiffness = 100 * float(problem.classes.weight.sum())
        self.limit_stiffness = 0.0
        self.excess = np.inf
        self.stiffenings = 0
        self._arrange()

    def add(self, routes: Iterable[tuple[int, Choice]]) -> bool:
        """Take the routes that are new, a source's first one with all of its share; whether any was."""
        fresh = [route for route in dict.fromkeys(routes) if route not in self.known]
        if not fresh:
            return False
        problem = self.problem
        begun = {source for source, _ in self.columns}
        limit_use = np.zeros((len(fresh), 2 * len(problem.demands)))
        share, fixed = np.full(len(fresh), NEW_SHARE), np.zeros(len(fresh))
        for row, (source, choice) in enumerate(fresh):
            cost = problem.cost(source, choice)
            lost = 1 - problem.variants[choice.variant].accuracy
            limit_use[row, source] = self.lateness[source] * cost.unloaded_s
            limit_use[row, len(problem.demands) + source] = self.loss[source] * lost
            fixed[row] = problem.fixed_cost(source, choice, cost.latency_s)
            if source not in begun:
                share[row] = 1.0
                begun.add(source)
        price = float(self.slack_price @ self.share) / max(len(self.share), 1) or 1.0
        self.columns += fresh
        self.known.update(fresh)
        self.share = np.append(self.share, share)
        self.slack_price = np.append(self.slack_price, price / share)
        self.fixed = np.append(self.fixed, fixed)
        self.limit_use = np.concatenate([self.limit_use, limit_use[:, self.limits]])
        self._arrange()
        return True

    def _arrange(self) -> None:
        """Bring what follows from the columns up to date.

        ``load`` [n, U] has a column for each of the resources ``used``, dense or sparse, whichever is quicker.
        """
        problem = self.problem
        self.source = np.array([source for source, _ in self.columns], dtype=np.intp)
        self.by_source = np.argsort(self.source, kind="stable")
        self.begins = np.searchsorted(self.source[self.by_source], np.arange(len(problem.demands)))
        self.level = problem.classes.of_source[self.source]
        self.of_level = np.eye(len(problem.classes.weight))[self.level]
        costs = [problem.cost(*column) for column in self.columns]
        rows = np.repeat(np.arange(len(costs)), [len(cost.resources) for cost in costs])
        seconds = np.concatenate([np.zeros(0), *(cost.seconds for cost in costs)])
        resources = np.concatenate([np.zeros(0, dtype=np.intp), *(cost.resources for cost in costs)])
        self.used, where = np.unique(resources, return_inverse=True)
        seconds = seconds * problem.volume[self.source[rows]]
        shape = (len(costs), len(self.used))
        if shape[0] * shape[1] > DENSE:
            self.load = sparse.csr_array((seconds, (rows, where)), shape=shape)
        else:
            self.load = np.zeros(shape)
            self.load[rows, where] = seconds
        self._rescale()

    def _rescale(self) -> None:
        """Make the shares of each source add up to 1."""
        self.share /= np.bincount(self.source, self.share)[self.source]

    def solve(self, tolerance: float) -> None:
        """Move the shares until moving more between known routes would gain at most about ``tolerance``.

        Then the prices of the limits are brought up to date.
        """
        self.limit_stiffness = self.limit_stiffness or 100 * abs(self._look(self.share).value)
        least = tolerance / len(self.share) / 2
        for _ in range(INNER_STEPS):
            tau = max(least, SHRINK * float(self.share @ self.slack_price) / len(self.share))
            if self._step(tau) <= tolerance:
                break
        found = self._look(self.share)
        self.capacity_price = np.zeros(len(self.problem.resources))
        self.capacity_price[self.used] = found.capacity_price
        self.limit_price = found.limit_price
        if found.excess > MARGIN / 2 and found.excess > self.excess / 4 and self.stiffenings < MAX_STIFFENINGS:
            self.stiffness *= 5
            self.limit_stiffness *= 5
            self.stiffenings += 1
        self.excess = found.excess

    def prices(self) -> Prices:
        """Give what resources and limits cost at the present shares."""
        demands = self.problem.demands
        found = self._look(self.share)
        limit_price = np.zeros(2 * len(demands))
        limit_price[self.limits] = found.limit_price
        return Prices(
            of_class=self._of_class(found),
            latency=np.array([demand.priority for demand in demands]),
            second=limit_price[: len(demands)] * self.lateness,
            accuracy=limit_price[len(demands) :] * self.loss,
        )

    def _of_class(self, found: _Look) -> Array:
        """Prices of all resources; those that no route uses cost what the first little load would."""
        weight = self.problem.classes.weight
        of_class = np.repeat(np.cumsum(weight[::-1])[::-1, None], len(self.problem.resources), axis=1)
        of_class[:, self.used] = found.of_class
        return of_class

    def hard_prices(self) -> Prices:
        """Give what the limits alone cost: prices that can prove that they cannot all be kept."""
        prices = self.prices()
        of_class = np.repeat(self.capacity_price[None, :], len(prices.of_class), axis=0)
        return Prices(of_class, np.zeros_like(prices.latency), prices.second, prices.accuracy)

    def choices(self, least_share: float) -> Choices:
        """Give the routes that have at least a share; the shares of each source add up to 1."""
        own: list[list[Choice]] = [[] for _ in self.problem.demands]
        for (source, choice), share in zip(self.columns, self.share.tolist(), strict=True):
            if share >= least_share:
                own[source].append(Choice(choice.variant, choice.workers, share))
        return tuple(normalised(found) for found in own)

    def drop(self, least_share: float) -> None:
        """Forget the routes with less share, so that the next rounds stay quick; they may be priced again."""
        keep = self.share >= least_share
        self.columns = [column for column, kept in zip(self.columns, keep.tolist(), strict=True) if kept]
        self.known = set(self.columns)
        self.share, self.slack_price, self.fixed = self.share[keep], self.slack_price[keep], self.fixed[keep]
        self.limit_use = self.limit_use[keep]
        self._arrange()

    def _look(self, share: Array) -> _Look:
        """Value and slopes at ``share``."""
        problem = self.problem
        weight = problem.classes.weight[:, None]
        sigma = np.cumsum((self.load.T @ (self.of_level * share[:, None])).T, axis=0)
        value, slope, bend = smooth_congestion(sigma, problem.kappa)
        over = sigma[-1] - problem.cap * (1 - MARGIN)
        beyond = share @ self.limit_use - 1
        before = self.capacity_price[self.used]
        capacity_price = np.maximum(0.0, before + self.stiffness * over)
        limit_price = np.maximum(0.0, self.limit_price + self.limit_stiffness * beyond)
        total = float((weight * value).sum() + self.fixed @ share)
        total += float((capacity_price**2 - before**2).sum()) / 2 / self.stiffness
        if self.limit_stiffness:
            total += float((limit_price**2 - self.limit_price**2).sum()) / 2 / self.limit_stiffness
        of_class = np.cumsum((weight * slope)[::-1], axis=0)[::-1] + capacity_price
        bends = weight * bend
        bends[-1] += self.stiffness * (capacity_price > 0)
        excess = max(float(over.max(initial=0.0)), float(beyond.max(initial=0.0)), 0.0)
        return _Look(total, of_class, bends, capacity_price, limit_price, excess)

    def _step(self, tau: float) -> float:
        """Take one primal-dual Newton step towards the centre at ``tau``; how far from the optimum it started."""
        found = self._look(self.share)
        slope = self.fixed + self.limit_use @ found.limit_price
        slope += (self.load @ found.of_class.T)[np.arange(len(slope)), self.level]
        groups = len(self.problem.demands)
        cheapest = np.minimum.reduceat(slope[self.by_source], self.begins)
        loss = float(self.share @ (slope - cheapest[self.source]))
        bend = self._bend(found)
        bend[np.diag_indices(len(slope))] += self.slack_price / self.share
        member = np.zeros((len(slope), groups))
        member[np.arange(len(slope)), self.source] = 1.0
        solved = cho_solve(cho_factor(bend), np.column_stack([tau / self.share - slope, member]))
        toward, spread = solved[:, 0], solved[:, 1:]
        worth = np.linalg.solve(member.T @ spread, -(member.T @ toward))
        step = toward + spread @ worth
        dual = tau / self.share - self.slack_price * (1 + step / self.share)
        self._walk(step, dual, found.value - tau * float(np.log(self.share).sum()), slope - tau / self.share, tau)
        return loss

    def _bend(self, found: _Look) -> Array:
        """Second derivatives of the objective over shares; shape [n, n]."""
        bend = (self.limit_use * (self.limit_stiffness * (found.limit_price > 0))) @ self.limit_use.T
        # What class k adds to the bend is felt by the classes 1..k together: two routes share the lower one's.
        felt = np.cumsum(found.bends[::-1], axis=0)[::-1]
        for level, own in enumerate(felt):
            rows, above = np.flatnonzero(self.level == level), np.flatnonzero(self.level <= level)
            if not len(rows):
                continue
            crossed = (self.load[rows] * own) @ self.load[above].T
            crossed = crossed if isinstance(crossed, np.ndarray) else crossed.toarray()
            bend[np.ix_(rows, above)] += crossed
            higher = self.level[above] < level
            bend[np.ix_(above[higher], rows)] += crossed[:, higher].T
        return bend

    def _walk(self, step: Array, dual: Array, value: float, slope: Array, tau: float) -> None:
        """Move along a step as far as the shares stay positive and the barrier function falls."""
        length = min(1.0, 0.95 / max(float((-step / self.share).max()), 1e-12))
        dual_length = min(1.0, 0.95 / max(float((-dual / self.slack_price).max()), 1e-12))
        self.slack_price = self.slack_price + dual_length * dual
        promised = float(slope @ step)
        for _ in range(HALVINGS):
            share = self.share + length * step
            share /= np.bincount(self.source, share)[self.source]
            if self._look(share).value - tau * float(np.log(share).sum()) <= value + 1e-4 * length * promised:
                self.share = share
                return
            length /= 2


@dataclass(frozen=True)
class _Look:
    """The augmented objective at some shares: value, price of load by class, its bend, and the limits' prices."""

    value: float
    of_class: Array
    bends: Array
    capacity_price: Array
    limit_price: Array
    excess: float
