"""The master of column generation: the best shares of known routes, by projected Newton steps.

The objective Σ_k w_k G(σ_k) + fixed costs is smooth, so Newton steps on the shares find its optimum, where a linear
program would need thousands of tangents. Limits (the utilisation cap, deadlines, minimum accuracies) enter through an
augmented Lagrangian; most are slack and never appear. The gradient holds the shadow prices.

References
----------
D. P. Bertsekas and E. M. Gafni, "Projected Newton methods and optimization of multicommodity flows", IEEE Transactions
on Automatic Control 28 (1983).
D. P. Bertsekas, "Constrained Optimization and Lagrange Multiplier Methods" (1982), chapter 2.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import sparse
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from planner.solvers.core.deadline import Deadline
from planner.solvers.core.equations import Equation
from planner.solvers.core.problem import Array, Choice, Choices, Integers, Problem, normalised
from planner.solvers.core.resource_prices import Prices, smooth_congestion
from planner.solvers.core.scale import MOST, Scale
from planner.solvers.methods.column_generation.newton_step import Curved, site_step

CAP_MARGIN = 1e-6
"""Relative amount by which the cap is tightened, so that the final shares satisfy it despite tolerances."""
MAX_NEWTON_STEPS = 40
MAX_HALVINGS = 20
"""Maximum number of step halvings of a line search."""
BARRIER_REDUCTION = 0.2
"""Factor of the barrier parameter from step to step."""
MAX_STIFFENINGS = 6
"""Maximum number of times that the penalty of violated limits is raised."""
MAX_DENSE_COLUMNS = 600
"""Where workers form sites and there are more routes, a Newton step is found by conjugate gradients."""
NEW_SHARE = 0.01
"""Largest share of a new route of a source that has others, and the least one of its first routes."""
NEW_ROOM, MIN_NEW_ROOM = 0.5, 1e-3
"""Parts of what is free of each resource, and at least of its cap, that all new routes together may use at first: from
far beyond the caps many Newton steps lead back."""
MAX_DENSE_ENTRIES = 40_000
"""Loads with up to this number of entries are stored dense: for few routes sparse products are slower."""

PROGRAM: Final[Mapping[str, Equation]] = {
    "objective": Equation(
        "Congestion by the shares of the known routes, latency and lost accuracy.",
        r"\min \sum_{k,r} w_k G(\sigma_{kr}) + \sum_{j} \phi_j \pi_j, \qquad "
        r"\sigma_{kr} = \sum_{s \in S_1 \cup \dots \cup S_k} \sum_{j \in J_s} \lambda_s t_{jr} \pi_j",
    ),
    "shares": Equation(
        "The shares of each source add up to 1.", r"\sum_{j \in J_s} \pi_j = 1, \quad \pi_j \ge 0 \quad \forall s"
    ),
    "capacity": Equation("No resource is busier than its cap.", r"\sigma_{Kr} \le c_r \quad \forall r"),
    "deadline": Equation(
        "Work and transfers without waiting keep the largest mean delay.",
        r"\sum_{j \in J_s} \frac{u_j}{T_s} \pi_j \le 1 \quad \forall s: T_s < \infty",
    ),
    "accuracy": Equation(
        "No more accuracy is lost than may be.",
        r"\sum_{j \in J_s} \frac{1 - A_j}{1 - A_s} \pi_j \le 1 \quad \forall s: A_s > 0",
    ),
    "memory": Equation(
        "Routes keep within the room for weights of each worker, of which each takes a part.",
        r"\sum_{j} H_{jd} \pi_j \le 1 \quad \forall d",
    ),
    "augmented_lagrangian": Equation(
        "What the Newton steps minimise: each limit g ≤ 0 enters with its multiplier μ and a stiffness ρ.",
        r"\sum_{k,r} w_k G(\sigma_{kr}) + \sum_{j} \phi_j \pi_j "
        r"+ \sum_{g} \frac{\max(0, \mu_g + \rho g(\pi))^2 - \mu_g^2}{2 \rho}",
    ),
}
"""The program of the master, by name."""


class NewtonMaster:
    """Shares of routes, extended by new routes every round.

    The limits of a source are its unloaded delay divided by its deadline and its lost accuracy divided by the accuracy
    that may be lost; that of a worker is the part of its room for weights. Each is at most 1. Attributes over columns
    have n rows, in the order in which routes were added.
    """

    def __init__(self, problem: Problem, scale: Scale, deadline: Deadline | None = None) -> None:
        self.deadline = deadline or Deadline()
        self.problem = problem
        demands = problem.demands
        self.columns: list[tuple[int, Choice]] = []
        self.known: set[tuple[int, Choice]] = set()
        self.share = np.zeros(0)
        self.slack_price = np.zeros(0)
        self.fixed = np.zeros(0)
        self.most_fixed = MOST * scale.objective
        self.lateness = np.array([1 / demand.deadline_s for demand in demands])
        self.loss = np.array(
            [1 / max(1 - demand.min_accuracy, 1e-9) if demand.min_accuracy else 0.0 for demand in demands]
        )
        self.rooms = np.ones(len(problem.workers) if problem.room_parts else 0)
        self.limits = np.flatnonzero(np.concatenate([self.lateness, self.loss, self.rooms]) > 0)
        self.limit_use = np.zeros((0, len(self.limits)))
        self.capacity_price = np.zeros(len(problem.resources))
        self.limit_price = np.zeros(len(self.limits))
        self.stiffness = 100 * float(problem.classes.weight.sum())
        self.limit_stiffness = 0.0
        self.excess = np.inf
        self.stiffenings = 0
        self.nested: tuple[sparse.csr_array, Integers, Integers] | None = None
        self._arrange()

    def add(self, routes: Iterable[tuple[int, Choice]]) -> bool:
        """Add the routes that are new; return whether any was new.

        Those of a source without routes keep the proportions of their shares.
        """
        shares = {(source, Choice(choice.variant, choice.workers)): choice.share for source, choice in routes}
        fresh = [route for route in shares if route not in self.known]
        if not fresh:
            return False
        problem = self.problem
        routed = {source for source, _ in self.columns}
        limit_use = np.zeros((len(fresh), 2 * len(problem.demands) + len(self.rooms)))
        share, fixed = np.zeros(len(fresh)), np.zeros(len(fresh))
        part = self._room([route for route in fresh if route[0] in routed])
        for row, (source, choice) in enumerate(fresh):
            cost = problem.cost(source, choice)
            lost = 1 - problem.variants[choice.variant].accuracy
            limit_use[row, source] = min(self.lateness[source] * cost.unloaded_s, MOST)
            limit_use[row, len(problem.demands) + source] = self.loss[source] * lost
            if problem.room_parts:
                limit_use[row, 2 * len(problem.demands) :] = problem.room_used(choice)
            fixed[row] = min(problem.fixed_cost(source, choice, cost.latency_s), self.most_fixed)
            if source not in routed:
                share[row] = max(shares[source, choice], NEW_SHARE)
            else:
                share[row] = NEW_SHARE * part[cost.resources].min()
        price = float(self.slack_price @ self.share) / max(len(self.share), 1) or 1.0
        self.columns += fresh
        self.known.update(fresh)
        self.share = np.append(self.share, share)
        self.slack_price = np.append(self.slack_price, price / share)
        self.fixed = np.append(self.fixed, fixed)
        self.limit_use = np.concatenate([self.limit_use, limit_use[:, self.limits]])
        self._arrange()
        return True

    def _room(self, routes: Iterable[tuple[int, Choice]]) -> Array:
        """Return by what part of :data:`NEW_SHARE` new routes begin, given each resource that they use; shape [R]."""
        problem = self.problem
        free, more = problem.caps.copy(), np.zeros(len(problem.resources))
        free[self.used] -= self.load.T @ self.share
        for source, choice in routes:
            cost = problem.cost(source, choice)
            more[cost.resources] += NEW_SHARE * problem.volume[source] * cost.seconds
        room = np.maximum(NEW_ROOM * free, MIN_NEW_ROOM * problem.caps)
        return np.minimum(1.0, room / np.maximum(more, 1e-300))

    def _arrange(self) -> None:
        """Recompute the arrays that depend on the columns.

        ``load`` [n, U] has a column for each of the U resources ``used``; it is dense or sparse, whichever is faster.
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
        self.used, columns = np.unique(resources, return_inverse=True)
        load = np.minimum(seconds * problem.volume[self.source[rows]], MOST)
        shape = (len(costs), len(self.used))
        if shape[0] * shape[1] > MAX_DENSE_ENTRIES:
            self.load = sparse.csr_array((load, (rows, columns)), shape=shape)
        else:
            self.load = np.zeros(shape)
            self.load[rows, columns] = load
        self.nested = None
        self._rescale()

    def _rescale(self) -> None:
        """Scale the shares of each source to add up to 1."""
        self.share /= np.bincount(self.source, self.share)[self.source]

    def solve(self, tolerance: float) -> None:
        """Improve the shares until the objective is within about ``tolerance`` of the optimum over known routes.

        Then update the multipliers of the limits and, if violations shrink too slowly, raise the penalty.
        """
        self.limit_stiffness = self.limit_stiffness or 100 * abs(self._evaluate(self.share).value)
        least = tolerance / len(self.share) / 2
        for _ in self.deadline.watch(range(MAX_NEWTON_STEPS)):
            tau = max(least, BARRIER_REDUCTION * float(self.share @ self.slack_price) / len(self.share))
            try:
                gap = self._step(tau)
            except LinAlgError:  # numbers too far apart; the present shares are the best that can be told
                break
            if gap <= tolerance:
                break
        point = self._evaluate(self.share)
        self.capacity_price = np.zeros(len(self.problem.resources))
        self.capacity_price[self.used] = point.capacity_price
        self.limit_price = point.limit_price
        if point.excess > CAP_MARGIN / 2 and point.excess > self.excess / 4 and self.stiffenings < MAX_STIFFENINGS:
            self.stiffness *= 5
            self.limit_stiffness *= 5
            self.stiffenings += 1
        self.excess = point.excess

    def prices(self) -> Prices:
        """Return the shadow prices at the present shares."""
        demands = self.problem.demands
        point = self._evaluate(self.share)
        limit_price = np.zeros(2 * len(demands) + len(self.rooms))
        limit_price[self.limits] = point.limit_price
        of_sources, of_rooms = limit_price[: 2 * len(demands)], limit_price[2 * len(demands) :]
        return Prices(
            of_class=self._of_class(point),
            latency=np.array([demand.priority for demand in demands]),
            second=of_sources[: len(demands)] * self.lateness,
            accuracy=of_sources[len(demands) :] * self.loss,
            memory=of_rooms if len(of_rooms) else 0.0,
        )

    def _of_class(self, point: _Point) -> Array:
        """Return the prices of all resources [K, R]; unused ones have the marginal price without load."""
        weight = self.problem.classes.weight
        of_class = np.repeat(np.cumsum(weight[::-1])[::-1, None], len(self.problem.resources), axis=1)
        of_class[:, self.used] = point.of_class
        return of_class

    def hard_prices(self) -> Prices:
        """Return the prices of the limits alone, which can prove that no routes satisfy all of them."""
        prices = self.prices()
        of_class = np.repeat(self.capacity_price[None, :], len(prices.of_class), axis=0)
        return dataclasses.replace(prices, of_class=of_class, latency=np.zeros_like(prices.latency))

    def choices(self, min_share: float) -> Choices:
        """Return the routes with a share of at least ``min_share``; the shares of each source add up to 1."""
        by_source: list[list[Choice]] = [[] for _ in self.problem.demands]
        for (source, choice), share in zip(self.columns, self.share.tolist(), strict=True):
            if share >= min_share:
                by_source[source].append(Choice(choice.variant, choice.workers, share))
        return tuple(normalised(routes) for routes in by_source)

    def drop(self, min_share: float) -> None:
        """Drop the routes with a smaller share, to keep the next rounds fast; they may be generated again."""
        keep = self.share >= min_share
        self.columns = [column for column, kept in zip(self.columns, keep.tolist(), strict=True) if kept]
        self.known = set(self.columns)
        self.share, self.slack_price, self.fixed = self.share[keep], self.slack_price[keep], self.fixed[keep]
        self.limit_use = self.limit_use[keep]
        self._arrange()

    def _evaluate(self, share: Array) -> _Point:
        """Return value and derivatives of the augmented Lagrangian at ``share`` [n]."""
        problem = self.problem
        weight = problem.classes.weight[:, None]
        sigma = np.cumsum((self.load.T @ (self.of_level * share[:, None])).T, axis=0)
        value, slope, curvature = smooth_congestion(sigma, problem.kappa)
        over = sigma[-1] - problem.caps[self.used] * (1 - CAP_MARGIN)
        beyond = share @ self.limit_use - 1
        old_price = self.capacity_price[self.used]
        capacity_price = np.maximum(0.0, old_price + self.stiffness * over)
        limit_price = np.maximum(0.0, self.limit_price + self.limit_stiffness * beyond)
        total = float((weight * value).sum() + self.fixed @ share)
        total += float((capacity_price**2 - old_price**2).sum()) / 2 / self.stiffness
        if self.limit_stiffness:
            total += float((limit_price**2 - self.limit_price**2).sum()) / 2 / self.limit_stiffness
        of_class = np.cumsum((weight * slope)[::-1], axis=0)[::-1] + capacity_price
        curvatures = weight * curvature
        curvatures[-1] += self.stiffness * (capacity_price > 0)
        excess = max(float(over.max(initial=0.0)), float(beyond.max(initial=0.0)), 0.0)
        return _Point(total, of_class, curvatures, capacity_price, limit_price, excess)

    def _step(self, tau: float) -> float:
        """Take a primal-dual Newton step at barrier parameter ``tau``; return the optimality gap before it."""
        point = self._evaluate(self.share)
        slope = self.fixed + self.limit_use @ point.limit_price
        slope += (self.load @ point.of_class.T)[np.arange(len(slope)), self.level]
        groups = len(self.problem.demands)
        cheapest = np.minimum.reduceat(slope[self.by_source], self.begins)
        gap = float(self.share @ (slope - cheapest[self.source]))
        diagonal, descent = self.slack_price / self.share, tau / self.share - slope
        if self.problem.sites is not None and len(slope) > MAX_DENSE_COLUMNS:
            step = site_step(self._curved(point), diagonal, descent, self.source)
        else:
            hessian = self._hessian(point)
            hessian[np.diag_indices(len(slope))] += diagonal
            member = np.zeros((len(slope), groups))
            member[np.arange(len(slope)), self.source] = 1.0
            solved = cho_solve(cho_factor(hessian), np.column_stack([descent, member]))
            unconstrained, of_source = solved[:, 0], solved[:, 1:]
            multiplier = np.linalg.solve(member.T @ of_source, -(member.T @ unconstrained))
            step = unconstrained + of_source @ multiplier
        dual = tau / self.share - self.slack_price * (1 + step / self.share)
        barrier = point.value - tau * float(np.log(self.share).sum())
        self._line_search(step, dual, barrier, slope - tau / self.share, tau)
        return gap

    def _curved(self, point: _Point) -> Curved:
        """Return what the second derivatives over shares consist of: nested loads of resources, and active limits."""
        if self.nested is None:
            self.nested = self._nest()
        nested, levels, used = self.nested
        active = np.flatnonzero(point.limit_price > 0)
        rows = sparse.vstack([nested, sparse.csr_array(self.limit_use[:, active].T)], format="csr")
        curvature = np.append(point.curvatures[levels, used], np.full(len(active), self.limit_stiffness))
        sites = self.problem.sites
        if sites is None:
            return Curved(rows, curvature, np.zeros(len(curvature), dtype=np.intp))
        homes = [demand.home for demand in self.problem.demands]
        near = np.array([*homes, *homes, *range(len(self.rooms))], dtype=np.intp)[self.limits][active]
        site = np.append(sites.of_resource(len(self.problem.resources))[self.used[used]], sites.of_worker[near])
        return Curved(rows, curvature, site)

    def _nest(self) -> tuple[sparse.csr_array, Integers, Integers]:
        """Return the loads [M, n] of the used resources by each class and those above, with class and resource."""
        load = sparse.csc_array(self.load).T.tocsr()
        rows, levels, used = [], [], []
        for level in range(len(self.problem.classes.weight)):
            nested = (load @ sparse.diags_array((self.level <= level).astype(float))).tocsr()
            nested.eliminate_zeros()
            here = np.flatnonzero(np.diff(nested.indptr) > 0)
            rows.append(nested[here])
            levels.append(np.full(len(here), level))
            used.append(here)
        return sparse.vstack(rows, format="csr"), np.concatenate(levels), np.concatenate(used)

    def _hessian(self, point: _Point) -> Array:
        """Return the second derivatives over shares; shape [n, n]."""
        hessian = (self.limit_use * (self.limit_stiffness * (point.limit_price > 0))) @ self.limit_use.T
        # σ_k sums the classes 1..k, so two routes share the curvature of the less important one's class and all below.
        nested = np.cumsum(point.curvatures[::-1], axis=0)[::-1]
        for level, curvature in enumerate(nested):
            rows, above = np.flatnonzero(self.level == level), np.flatnonzero(self.level <= level)
            if not len(rows):
                continue
            crossed = (self.load[rows] * curvature) @ self.load[above].T
            crossed = crossed if isinstance(crossed, np.ndarray) else crossed.toarray()
            hessian[np.ix_(rows, above)] += crossed
            higher = self.level[above] < level
            hessian[np.ix_(above[higher], rows)] += crossed[:, higher].T
        return hessian

    def _line_search(self, step: Array, dual: Array, value: float, slope: Array, tau: float) -> None:
        """Move along a step as far as the shares stay positive and the barrier function decreases enough (Armijo)."""
        length = min(1.0, 0.95 / max(float((-step / self.share).max()), 1e-12))
        dual_length = min(1.0, 0.95 / max(float((-dual / self.slack_price).max()), 1e-12))
        self.slack_price = self.slack_price + dual_length * dual
        decrease = float(slope @ step)
        for _ in range(MAX_HALVINGS):
            share = self.share + length * step
            share /= np.bincount(self.source, share)[self.source]
            if self._evaluate(share).value - tau * float(np.log(share).sum()) <= value + 1e-4 * length * decrease:
                self.share = share
                return
            length /= 2


@dataclass(frozen=True)
class _Point:
    """The augmented Lagrangian at some shares, over the U resources in use.

    Parameters
    ----------
    of_class
        Price of load of each class; shape [K, U].
    curvatures
        Derivatives of these prices by load; shape [K, U].
    capacity_price, limit_price
        Multipliers of the cap [U] and of the sources' limits.
    excess
        Largest violation of a limit.
    """

    value: float
    of_class: Array
    curvatures: Array
    capacity_price: Array
    limit_price: Array
    excess: float
