"""Shared routes as one convex program over the arcs of all layered graphs: cvxpy and Clarabel.

G(σ) = σ + κ σ² / (1 − σ) = σ + κ (1 / (1 − σ) − 1 − σ), so that one vector of reciprocals holds all congestion. The arc
flows of the optimum are taken apart into routes. Smaller instances than column generation, every goal.
"""

from __future__ import annotations

import dataclasses
import warnings
from dataclasses import dataclass
from typing import Any

import cvxpy
import numpy as np
from scipy import sparse

from planner.errors import SolveError
from planner.solvers.core.infeasibility import explain_infeasibility
from planner.solvers.core.problem import Array, Choice, Choices, Integers, Problem, normalised
from planner.solvers.core.resource_prices import Prices
from planner.solvers.core.search_state import Options, Outcome, Search
from planner.solvers.methods.memory import solve_with_memory
from planner.solvers.routes.arcs import Arc, move_arcs, place_arcs
from planner.solvers.routes.greedy import class_prices
from planner.solvers.routes.pricing import cheapest_route, proven_bound, unroutable

cp: Any = cvxpy
"""Its own types leave out most of what it offers."""

TOLERANCES = {"tol_gap_abs": 1e-10, "tol_gap_rel": 1e-10, "tol_feas": 1e-10}
"""Tight, because the bound is off in first order by what the flows are off."""
LEAST_SHARES = (0.02, 1e-3, 1e-6)
INFEASIBLE = {cp.INFEASIBLE, cp.INFEASIBLE_INACCURATE}
ANSWERED = {cp.OPTIMAL, cp.OPTIMAL_INACCURATE, cp.USER_LIMIT}
"""Statuses with which there may be shares: their bound and their incumbents are checked, so that none need be exact."""


def solve(problem: Problem, options: Options) -> Outcome:
    """Minimise the surrogate objective over shares of routes.

    Raises
    ------
    SolveError
        ``max_visits`` is set: shares of arcs do not know how often a route visits.
    """
    if problem.max_visits is not None:
        raise SolveError("shared routes cannot keep max_visits", where="method convex", expected="colgen")
    return solve_with_memory(problem, options, _solve)


@dataclass(frozen=True)
class _Flow:
    """Arcs of one source and variant; a stay has no cost and is an arc from a worker to itself without seconds."""

    source: int
    variant: int
    places: list[Arc]
    moves: list[Arc]


def _solve(problem: Problem, options: Options) -> Outcome:
    search = Search(problem, options)
    if unroutable(problem):
        return Outcome("infeasible", blame=explain_infeasibility(problem, dict))
    flows = [
        _Flow(source, variant, list(place_arcs(problem, source, variant)), _moves(problem, source, variant))
        for source, demand in enumerate(problem.demands)
        for variant in demand.variants
    ]
    arcs = [(flow, arc) for flow in flows for arc in (*flow.places, *flow.moves)]
    program = _ConvexProgram(problem, arcs)
    program.limits["flow"] = _conservation(problem, flows, program.x)
    solved = cp.Problem(cp.Minimize(program.objective), list(program.limits.values()))
    if _status(solved, search) in INFEASIBLE:
        from planner.solvers.methods.mip.elastic import relaxations

        return Outcome(
            "infeasible", blame=explain_infeasibility(problem, lambda: relaxations(problem, options, shared=True))
        )
    if program.x.value is None:
        return search.outcome()
    prices = program.prices()
    # By dynamic programming, whatever the solver's errors.
    search.raise_bound(proven_bound(problem, prices, _cheapest(problem, prices)))
    for least_share in LEAST_SHARES:
        search.offer(_choices(problem, flows, np.asarray(program.x.value), least_share))
    return dataclasses.replace(search.outcome(), prices=prices)


def _status(solved: Any, search: Search) -> Any:
    """Solve, and give the status if it is an answer.

    Raises
    ------
    SolveError
        It is none.
    """
    with warnings.catch_warnings():
        # "May be inaccurate": the bound tells by how much, whatever the solver reached.
        warnings.simplefilter("ignore", UserWarning)
        try:
            solved.solve(solver=cp.CLARABEL, time_limit=search.left_s, max_threads=search.options.threads, **TOLERANCES)
        except cp.SolverError as error:
            raise SolveError(f"Clarabel has failed: {error}", where="method convex") from error
    if solved.status not in INFEASIBLE | ANSWERED:
        expected = ", ".join(sorted(INFEASIBLE | ANSWERED))
        raise SolveError(
            "Clarabel has not solved the program", where="method convex", value=solved.status, expected=expected
        )
    return solved.status


def _moves(problem: Problem, source: int, variant: int) -> list[Arc]:
    runs = problem.runs(source, variant)
    stays = [
        Arc(block, worker, worker, (), 0.0)
        for block in range(1, len(runs))
        for worker in np.flatnonzero(runs[block - 1] & runs[block]).tolist()
    ]
    return [*stays, *move_arcs(problem, source, variant)]


class _ConvexProgram:
    """The convex program less the conservation of flow; limits by name, for their prices."""

    def __init__(self, problem: Problem, arcs: list[tuple[_Flow, Arc]]) -> None:
        self.problem = problem
        self.x = cp.Variable(len(arcs), nonneg=True)
        self.limits: dict[str, Any] = {}
        levels, resources = len(problem.classes.weight), len(problem.resources)
        nested = _nested_loads(problem, arcs)
        self.load = [nested[level * resources : (level + 1) * resources] for level in range(levels)]
        unloaded = _by_source(problem, arcs, [arc.unloaded_s for _, arc in arcs])
        total = self.load[-1] @ self.x
        if problem.goal == "delay":
            used = np.flatnonzero(np.diff(nested.indptr))
            sigma = nested[used] @ self.x
            weight = problem.classes.weight[used // resources]
            fixed = np.array([_fixed_cost(problem, flow, arc) for flow, arc in arcs])
            number = (1 - problem.kappa) * sigma + problem.kappa * (cp.inv_pos(1 - sigma) - 1)
            self.objective = weight @ number + fixed @ self.x
            self.limits["capacity"] = total <= problem.cap
        else:
            largest = cp.Variable()
            self.objective = largest
            self.limits["capacity"] = total <= largest
        if problem.goal == "makespan":
            longest = cp.Variable()
            self.objective = largest + longest
            self.limits["longest"] = unloaded @ self.x <= longest
        self._promise(arcs, unloaded)

    def _promise(self, arcs: list[tuple[_Flow, Arc]], unloaded: Any) -> None:
        """Deadlines, as far as pure work and transfers go, and least accuracies."""
        demands = self.problem.demands
        self.timed = [source for source, demand in enumerate(demands) if np.isfinite(demand.deadline_s)]
        if self.timed:
            deadline_s = np.array([demands[source].deadline_s for source in self.timed])
            self.limits["deadline"] = unloaded[self.timed] @ self.x <= deadline_s
        self.exact = [source for source, demand in enumerate(demands) if demand.min_accuracy > 0]
        if self.exact:
            values = [self.problem.variants[flow.variant].accuracy if _begins(flow, arc) else 0.0 for flow, arc in arcs]
            due = np.array([demands[source].min_accuracy for source in self.exact])
            self.limits["accuracy"] = _by_source(self.problem, arcs, values)[self.exact] @ self.x >= due

    def prices(self) -> Prices:
        """Give the prices of the optimum."""
        problem = self.problem
        sources = len(problem.demands)
        capacity = self._price("capacity", np.arange(len(problem.resources)), len(problem.resources))
        second = self._price("deadline", np.array(self.timed, dtype=np.intp), sources)
        accuracy = self._price("accuracy", np.array(self.exact, dtype=np.intp), sources)
        if problem.goal == "delay":
            of_class = class_prices(problem, np.array([load @ self.x.value for load in self.load])) + capacity
            return dataclasses.replace(Prices.of_delay(problem, of_class), second=second, accuracy=accuracy)
        capacity = capacity / max(float(capacity.sum()), 1e-12)
        of_class = np.repeat(capacity[None, :], len(self.load), axis=0)
        late = self._price("longest", np.arange(sources), sources)
        late = late / max(float(late.sum()), 1e-12)
        return Prices(of_class, np.zeros(sources), second + late, accuracy, late)

    def _price(self, limit: str, members: Integers, count: int) -> Array:
        price = np.zeros(count)
        if limit in self.limits:
            price[members] = np.maximum(self.limits[limit].dual_value, 0.0)
        return price


def _cheapest(problem: Problem, prices: Prices) -> Array:
    return np.array([cheapest_route(problem, source, prices)[0] for source in range(len(problem.demands))])


def _nested_loads(problem: Problem, arcs: list[tuple[_Flow, Arc]]) -> Any:
    """Utilisation of each resource by the classes 1..k, per unit of each arc's flow; shape [K · R, arcs]."""
    levels, resources = len(problem.classes.weight), len(problem.resources)
    entries = [
        (int(problem.classes.of_source[flow.source]) * resources + resource, column, seconds)
        for column, (flow, arc) in enumerate(arcs)
        for resource, seconds in ((r, s * problem.demands[flow.source].volume) for r, s in arc.seconds)
    ]
    rows, columns, values = (np.array(part) for part in zip(*entries, strict=True))
    load = sparse.csr_array((values, (rows, columns)), shape=(levels * resources, len(arcs)))
    nest = sparse.kron(sparse.csr_array(np.tril(np.ones((levels, levels)))), sparse.eye_array(resources))
    return (nest @ load).tocsr()


def _begins(flow: _Flow, arc: Arc) -> bool:
    return arc.block == 0 and arc in flow.places


def _fixed_cost(problem: Problem, flow: _Flow, arc: Arc) -> float:
    demand = problem.demands[flow.source]
    lost_s = problem.loss_s * (1 - problem.variants[flow.variant].accuracy) if _begins(flow, arc) else 0.0
    return demand.priority * demand.volume * (arc.latency_s + lost_s)


def _by_source(problem: Problem, arcs: list[tuple[_Flow, Arc]], values: list[float]) -> Any:
    rows = [flow.source for flow, _ in arcs]
    return sparse.csr_array((values, (rows, range(len(arcs)))), shape=(len(problem.demands), len(arcs)))


def _conservation(problem: Problem, flows: list[_Flow], x: Any) -> Any:
    """One unit of each source begins, and what a block gets goes on to the next."""
    entries: list[tuple[int, int, float]] = []
    row, column = len(problem.demands), 0
    for flow in flows:
        enter: dict[tuple[int, int], int] = {}
        leave: dict[tuple[int, int], int] = {}
        for arc in flow.places:
            key = (arc.block, arc.worker)
            if arc.block == 0:
                entries.append((flow.source, column, 1.0))
            else:
                enter[key] = row
                entries.append((row, column, -1.0))
                row += 1
            if arc.block < len(problem.variants[flow.variant]) - 1:
                leave[key] = row
                entries.append((row, column, -1.0))
                row += 1
            column += 1
        for arc in flow.moves:
            entries.append((enter[arc.block, arc.worker], column, 1.0))
            entries.append((leave[arc.block - 1, arc.sender], column, 1.0))
            column += 1
    rows, columns, values = zip(*entries, strict=True)
    matrix = sparse.csr_array((values, (rows, columns)), shape=(row, column))
    right = np.zeros(row)
    right[: len(problem.demands)] = 1.0
    return matrix @ x == right


def _choices(problem: Problem, flows: list[_Flow], x: Array, least_share: float) -> Choices:
    """Take the flows apart into routes, the widest first, and leave out what has too small a share."""
    own: list[list[Choice]] = [[] for _ in problem.demands]
    column = 0
    for flow in flows:
        length, count = len(problem.variants[flow.variant]), len(problem.workers)
        first, flowing = np.zeros(count), np.zeros((length, count, count))
        for arc in flow.places:
            if arc.block == 0:
                first[arc.worker] = x[column]
            column += 1
        for arc in flow.moves:
            flowing[arc.block, arc.sender, arc.worker] = x[column]
            column += 1
        for _ in range(len(flow.places)):
            share, workers = _widest(first, flowing)
            if share < least_share:
                break
            own[flow.source].append(Choice(flow.variant, workers, share))
            first[workers[0]] -= share
            flowing[np.arange(1, length), workers[:-1], workers[1:]] -= share
    return tuple(normalised(found) for found in own)


def _widest(first: Array, flowing: Array) -> tuple[float, tuple[int, ...]]:
    """Give the route with the largest share: like a shortest path, with the least flow on the way as its length."""
    width = first
    came = []
    for flow in flowing[1:]:
        through = np.minimum(width[:, None], flow)
        came.append(through.argmax(axis=0))
        width = through.max(axis=0)
    workers = [int(width.argmax())]
    for back in reversed(came):
        workers.append(int(back[workers[-1]]))
    return float(width.max()), tuple(reversed(workers))
