"""Shared routes as one convex program over the arcs of all layered graphs, solved by cvxpy and Clarabel.

G(σ) = σ + κ σ² / (1 − σ) = σ + κ (1 / (1 − σ) − 1 − σ), so one vector of reciprocals expresses all congestion. The
optimal arc flows are decomposed into routes. It solves every goal, on smaller instances than column generation.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import cvxpy
import numpy as np
from scipy import sparse

from planner.errors import SolveError
from planner.solvers.core.deadline import Deadline, Expired, call_until
from planner.solvers.core.equations import Equation
from planner.solvers.core.problem import Array, Choice, Choices, Integers, Problem, normalised
from planner.solvers.core.resource_prices import Prices, marginal_prices
from planner.solvers.core.scale import HOPELESS, MOST, Scale, ratio
from planner.solvers.core.search_state import Options, Outcome, Search
from planner.solvers.methods.explanation import infeasible, least_relaxations, unroutable_outcome
from planner.solvers.methods.memory import solve_with_memory
from planner.solvers.routes.arcs import Arc, move_arcs, node_arcs
from planner.solvers.routes.greedy import greedy_rounds
from planner.solvers.routes.pricing import cheapest_routes, proven_bound, unroutable
from planner.solvers.routes.widest_path import widest_path

cp: Any = cvxpy
"""Untyped, because its type hints cover only a part of its API."""

TOLERANCES = {"tol_gap_abs": 1e-10, "tol_gap_rel": 1e-10, "tol_feas": 1e-10}
"""Tight, because the error of the bound is of first order in the error of the flows."""
IDLE = 1e-5
"""Below this utilisation nothing waits: G(σ) is σ, apart from a relative error as small."""
GREEDY_ROUNDS = 2
"""Rounds of the routes from which the program's units are taken."""
MIN_SHARES = (0.02, 1e-3, 1e-6)
"""Minimum shares of the routes of incumbents, tried in turn: plans with few routes are easier to run."""
CAP_MARGIN = 1e-5
"""Relative amount by which caps are tightened for the goal ``energy``: what is lost with small shares must fit, too."""
LIMITS: Final[Mapping[str, Equation]] = {
    "flow": Equation(
        "One unit of flow per source begins at the first blocks; at each node after a block as much flows out as in.",
        r"\sum_{o,d} f_{s,(o0d)} = 1 \quad \forall s, \qquad "
        r"\sum_{a \in \mathrm{in}(i)} f_{sa} = \sum_{a \in \mathrm{out}(i)} f_{sa} \quad \forall s, i",
    ),
    "capacity": Equation(
        "No resource is busier than its cap; for the goals delay and energy.",
        r"\sum_{s,a} \lambda_s t_{ar} f_{sa} \le c_r \quad \forall r",
    ),
    "bottleneck": Equation(
        "The largest relative utilisation; for the goals throughput and makespan.",
        r"\sum_{s,a} \lambda_s t_{ar} f_{sa} \le q_r B \quad \forall r",
    ),
    "longest": Equation("The longest delay without waiting.", r"\sum_{a} u_a f_{sa} \le U \quad \forall s"),
    "deadline": Equation(
        "Work and transfers without waiting keep the largest mean delay; waiting is evaluated on each plan.",
        r"\sum_{a} u_a f_{sa} \le T_s \quad \forall s: T_s < \infty",
    ),
    "accuracy": Equation(
        "The minimum accuracy is reached.",
        r"\sum_{o,d} A_o f_{s,(o0d)} \ge A_s \quad \forall s: A_s > 0",
    ),
    "memory": Equation(
        "Blocks that are resident in part keep within the room for weights of each worker.",
        r"\sum_{s,a} H_{ad} f_{sa} \le 1 \quad \forall d",
    ),
}
"""The constraints of the program, by name."""
OBJECTIVES: Final[Mapping[str, Equation]] = {
    "delay": Equation(
        "Congestion by one reciprocal per class and resource, latency and lost accuracy.",
        r"\min \sum_{k,r} w_k \Big( (1 - \kappa) \sigma_{kr} "
        r"+ \kappa \Big( \frac{1}{1 - \sigma_{kr}} - 1 \Big) \Big) + \sum_{s,a} p_s \lambda_s \tau_a f_{sa} "
        r"+ \sum_{s,o,d} p_s \lambda_s \omega (1 - A_o) f_{s,(o0d)}",
    ),
    "throughput": Equation("The bottleneck.", r"\min B"),
    "makespan": Equation("The work of the busiest resource and the longest delay without waiting.", r"\min B + U"),
    "energy": Equation("The average power of the workers.", r"\min P_0 + \sum_{s,a,r} P_r \lambda_s t_{ar} f_{sa}"),
}
INFEASIBLE = {cp.INFEASIBLE, cp.INFEASIBLE_INACCURATE}
ANSWERED = {cp.OPTIMAL, cp.OPTIMAL_INACCURATE, cp.USER_LIMIT}
"""Statuses with a solution, which may be inexact: its bound and its incumbents are verified separately."""


def solve(problem: Problem, options: Options) -> Outcome:
    """Minimise the surrogate objective over shares of routes.

    Raises
    ------
    SolveError
        ``max_visits`` is set: arc flows do not determine how often a route visits a worker.
    """
    if problem.max_visits is not None:
        raise SolveError("this method cannot limit visits: max_visits is set", where="method convex", expected="colgen")
    return solve_with_memory(problem, options, _solve)


@dataclass(frozen=True)
class _Flow:
    """Arcs of one source and variant; staying on a worker is a move from the worker to itself at no cost."""

    source: int
    variant: int
    nodes: list[Arc]
    moves: list[Arc]


def _solve(problem: Problem, options: Options) -> Outcome:
    search = Search(problem, options)
    try:
        return _minimise(search)
    except Expired:
        return search.outcome()


def _minimise(search: Search) -> Outcome:
    problem, options = search.problem, search.options
    if unroutable(problem):
        return unroutable_outcome(problem)
    until = options.deadline
    first = greedy_rounds(problem, GREEDY_ROUNDS, deadline=until)
    for choices in first:
        search.offer(choices)
    flows = [
        _Flow(
            source,
            variant,
            list(until.watch(node_arcs(problem, source, variant))),
            list(until.watch(_moves(problem, source, variant))),
        )
        for source, demand in enumerate(problem.demands)
        for variant in demand.variants
    ]
    arcs = [(flow, arc) for flow in flows for arc in (*flow.nodes, *flow.moves)]
    scale = Scale.of(problem, min(first, key=problem.objective))
    program = _ConvexProgram(problem, arcs, scale, until)
    program.limits["flow"] = _conservation(problem, flows, program.x)
    solved = cp.Problem(cp.Minimize(program.objective), list(program.limits.values()))
    try:
        status = _status(solved, search)
    except SolveError:
        # The limits may be too far out of reach for Clarabel; the linear program of limits is more robust.
        if least_relaxations(problem, options, shared=True):
            return infeasible(problem, options, shared=True)
        raise
    if status in INFEASIBLE and problem.room_parts:  # the caller, who relaxed memory, looks for the reasons
        return Outcome("infeasible")
    if status in INFEASIBLE:
        return infeasible(problem, options, shared=True)
    if program.x.value is None:
        return search.outcome()
    prices = program.prices()
    # The bound is computed by shortest paths, so it is valid whatever the solver's numerical errors.
    search.raise_bound(proven_bound(problem, prices, _cheapest(problem, prices)))
    for min_share in MIN_SHARES:
        search.offer(_choices(problem, flows, np.asarray(program.x.value), min_share))
    return dataclasses.replace(search.outcome(), prices=prices)


def _status(solved: Any, search: Search) -> Any:
    """Solve, and return the status.

    Raises
    ------
    SolveError
        Clarabel failed or ended with a status that is no result.
    Expired
        It did not end in time: cvxpy does not look at the time, and Clarabel does so only between steps.
    """
    options = search.options
    solve = partial(
        solved.solve, solver=cp.CLARABEL, time_limit=search.left_s, max_threads=options.threads, **TOLERANCES
    )
    with warnings.catch_warnings():
        # "Solution may be inaccurate": the lower bound shows by how much.
        warnings.simplefilter("ignore", UserWarning)
        try:
            call_until(options.deadline, solve, abandon=lambda: None)
        except cp.SolverError as error:
            raise SolveError(f"Clarabel has failed: {error}", where="method convex") from error
    if solved.status not in INFEASIBLE | ANSWERED:
        expected = ", ".join(sorted(INFEASIBLE | ANSWERED))
        raise SolveError(
            "Clarabel has not solved the program", where="method convex", value=solved.status, expected=expected
        )
    return solved.status


def _moves(problem: Problem, source: int, variant: int) -> list[Arc]:
    """Return the moves of a source and variant, including those from a worker to itself."""
    runs = problem.runs(source, variant)
    stays = [
        Arc(block, worker, worker, (), 0.0)
        for block in range(1, len(runs))
        for worker in np.flatnonzero(runs[block - 1] & runs[block]).tolist()
    ]
    return [*stays, *move_arcs(problem, source, variant)]


class _ConvexProgram:
    """The convex program without flow conservation; ``limits`` holds its constraints by name, for their prices."""

    def __init__(self, problem: Problem, arcs: list[tuple[_Flow, Arc]], scale: Scale, deadline: Deadline) -> None:
        self.problem, self.scale = problem, scale
        self.x = cp.Variable(len(arcs), nonneg=True)
        self.limits: dict[str, Any] = {}
        levels, resources = len(problem.classes.weight), len(problem.resources)
        idle = problem.goal == "delay" and scale.load < IDLE
        units = Scale(most=HOPELESS) if problem.goal == "delay" and not idle else scale
        self.load_unit = units.load
        nested = _nested_loads(problem, deadline.watch(arcs), units, len(arcs))
        self.load = [nested[level * resources : (level + 1) * resources] for level in range(levels)]
        total = self.load[-1] @ self.x
        if problem.goal == "delay":
            used = np.flatnonzero(np.diff(nested.indptr))
            sigma = nested[used] @ self.x
            weight = problem.classes.weight[used // resources]
            fixed = np.array([scale.costs(_fixed_cost(problem, flow, arc)) for flow, arc in deadline.watch(arcs)])
            queued = (1 - problem.kappa) * sigma + problem.kappa * (cp.inv_pos(1 - sigma) - 1) if not idle else sigma
            self.objective = (weight * units.load / scale.objective) @ queued + fixed @ self.x
            self.limits["capacity"] = total <= problem.caps / units.load
        elif problem.goal == "energy":
            self.objective = (problem.idle_w + units.load * (problem.watts @ total)) / scale.objective
            self.limits["capacity"] = total <= problem.caps * ((1 - CAP_MARGIN) / units.load)
        else:
            largest = cp.Variable()
            self.objective = largest
            self.limits["bottleneck"] = total <= problem.usable * largest
        if problem.goal == "makespan":
            longest = cp.Variable()
            self.objective = largest + longest
            unloaded = _by_source(problem, arcs, [scale.costs(arc.unloaded_s) for _, arc in arcs])
            self.limits["longest"] = unloaded @ self.x <= longest
        self._limit_sources(arcs)

    def _limit_sources(self, arcs: list[tuple[_Flow, Arc]]) -> None:
        """Add deadlines, which count work and transfers without waiting, and minimum accuracies."""
        demands = self.problem.demands
        self.timed = [source for source, demand in enumerate(demands) if np.isfinite(demand.deadline_s)]
        if self.timed:
            late = [ratio(arc.unloaded_s, demands[flow.source].deadline_s, MOST) for flow, arc in arcs]
            self.limits["deadline"] = _by_source(self.problem, arcs, late)[self.timed] @ self.x <= 1
        self.accurate = [source for source, demand in enumerate(demands) if demand.min_accuracy > 0]
        if self.accurate:
            values = [
                self.problem.variants[flow.variant].accuracy if _is_first(flow, arc) else 0.0 for flow, arc in arcs
            ]
            minimum = np.array([demands[source].min_accuracy for source in self.accurate])
            self.limits["accuracy"] = _by_source(self.problem, arcs, values)[self.accurate] @ self.x >= minimum
        if self.problem.room_parts:
            self.limits["memory"] = _room_used(self.problem, arcs) @ self.x <= 1

    def prices(self) -> Prices:
        """Return the shadow prices at the optimum."""
        prices = self._prices()
        everyone = np.arange(len(self.problem.workers))
        return dataclasses.replace(prices, memory=self.scale.objective * self._price("memory", everyone, len(everyone)))

    def _prices(self) -> Prices:
        """Return the shadow prices of all limits but memory."""
        problem = self.problem
        sources = len(problem.demands)
        everything = np.arange(len(problem.resources))
        capacity = self._price("capacity", everything, len(everything))
        worth = self.scale.objective
        second = worth * self._price("deadline", np.array(self.timed, dtype=np.intp), sources)
        second /= np.array([demand.deadline_s for demand in problem.demands])
        accuracy = worth * self._price("accuracy", np.array(self.accurate, dtype=np.intp), sources)
        if problem.goal == "delay":
            capacity = worth / self.load_unit * capacity
            sigma = np.array([load @ self.x.value for load in self.load]) * self.load_unit
            of_class = marginal_prices(problem, sigma) + capacity
            return dataclasses.replace(Prices.of_delay(problem, of_class), second=second, accuracy=accuracy)
        if problem.goal == "energy":
            capacity = worth / self.load_unit * capacity
            of_class = np.repeat((problem.watts + capacity)[None, :], len(self.load), axis=0)
            return Prices(of_class, np.zeros(sources), second, accuracy)
        busiest = self._price("bottleneck", everything, len(everything))
        capacity = busiest / max(float(busiest @ problem.usable), 1e-12)
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
    return np.array([price for price, _ in cheapest_routes(problem, prices)])


def _nested_loads(problem: Problem, arcs: Iterable[tuple[_Flow, Arc]], scale: Scale, count: int) -> Any:
    """Return the utilisation of each resource by the classes 1..k per unit of each arc's flow; shape [K · R, arcs]."""
    levels, resources = len(problem.classes.weight), len(problem.resources)
    entries = [
        (int(problem.classes.of_source[flow.source]) * resources + resource, column, scale.loads(load))
        for column, (flow, arc) in enumerate(arcs)
        for resource, load in ((r, s * problem.demands[flow.source].volume) for r, s in arc.seconds)
    ]
    rows, columns, values = (np.array(part) for part in zip(*entries, strict=True))
    load = sparse.csr_array((values, (rows, columns)), shape=(levels * resources, count))
    nest = sparse.kron(sparse.csr_array(np.tril(np.ones((levels, levels)))), sparse.eye_array(resources))
    return (nest @ load).tocsr()


def _is_first(flow: _Flow, arc: Arc) -> bool:
    return arc.block == 0 and arc in flow.nodes


def _fixed_cost(problem: Problem, flow: _Flow, arc: Arc) -> float:
    demand = problem.demands[flow.source]
    lost_s = problem.loss_s * (1 - problem.variants[flow.variant].accuracy) if _is_first(flow, arc) else 0.0
    return demand.priority * demand.volume * (arc.latency_s + lost_s)


def _by_source(problem: Problem, arcs: list[tuple[_Flow, Arc]], values: list[float]) -> Any:
    rows = [flow.source for flow, _ in arcs]
    return sparse.csr_array((values, (rows, range(len(arcs)))), shape=(len(problem.demands), len(arcs)))


def _room_used(problem: Problem, arcs: list[tuple[_Flow, Arc]]) -> Any:
    """Return the part of each worker's room for weights per unit of each arc's flow; shape [D, arcs]."""
    used = np.zeros(len(arcs))
    for column, (flow, arc) in enumerate(arcs):
        if arc.seconds and arc.sender == arc.worker:  # a block, neither a move nor staying
            used[column] = problem.room_parts[problem.variants[flow.variant].model][arc.block, arc.worker]
    rows = [arc.worker for _, arc in arcs]
    return sparse.csr_array((used, (rows, range(len(arcs)))), shape=(len(problem.workers), len(arcs)))


def _conservation(problem: Problem, flows: list[_Flow], x: Any) -> Any:
    """Return the constraint of flow conservation: one unit per source, and inflow equals outflow at each node."""
    entries: list[tuple[int, int, float]] = []
    row, column = len(problem.demands), 0
    for flow in flows:
        enter: dict[tuple[int, int], int] = {}
        leave: dict[tuple[int, int], int] = {}
        for arc in flow.nodes:
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


def _choices(problem: Problem, flows: list[_Flow], x: Array, min_share: float) -> Choices:
    """Return routes whose shares add up to the flows ``x`` [arcs], the widest first, without too small shares."""
    by_source: list[list[Choice]] = [[] for _ in problem.demands]
    column = 0
    for flow in flows:
        length, count = len(problem.variants[flow.variant]), len(problem.workers)
        first, flowing = np.zeros(count), np.zeros((length, count, count))
        for arc in flow.nodes:
            if arc.block == 0:
                first[arc.worker] = x[column]
            column += 1
        for arc in flow.moves:
            flowing[arc.block, arc.sender, arc.worker] = x[column]
            column += 1
        for _ in range(len(flow.nodes)):
            share, workers = widest_path(first, flowing)
            if share < min_share:
                break
            by_source[flow.source].append(Choice(flow.variant, workers, share))
            first[workers[0]] -= share
            flowing[np.arange(1, length), workers[:-1], workers[1:]] -= share
    return tuple(normalised(routes) for routes in by_source)
