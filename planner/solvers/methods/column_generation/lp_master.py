"""The master of column generation for all goals but ``delay``: a linear program over known routes.

It minimises the largest utilisation relative to what may be used of a resource, for ``makespan`` plus the longest
unloaded delay; for ``energy`` the power. While the known routes cannot satisfy all deadlines and minimum accuracies,
and for ``energy`` all caps, it minimises the sum of their relative violations instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np

from planner.errors import SolveError
from planner.solvers.core.deadline import Deadline, Expired
from planner.solvers.core.equations import Equation
from planner.solvers.core.highs import INFINITY, Program
from planner.solvers.core.problem import Array, Choice, Choices, Problem, normalised
from planner.solvers.core.resource_prices import Prices
from planner.solvers.core.scale import MOST, Scale, ratio

LIMIT_TOLERANCE = 1e-9
"""Relative violation up to which a limit counts as satisfied."""
CAP_MARGIN = 1e-6
"""Relative amount by which caps are tightened, so that the final shares satisfy them despite tolerances."""

Row = tuple[str, int]
"""Kind and index of a row: ``share``, ``delay``, ``late_s`` and ``inaccuracy`` of a source, ``load`` of a resource, or
``memory`` of a worker."""

ROWS: Final[Mapping[str, Equation]] = {
    "share": Equation("The shares of each source add up to 1.", r"\sum_{j \in J_s} \pi_j = 1 \quad \forall s"),
    "delay": Equation("The longest delay without waiting.", r"\sum_{j \in J_s} u_j \pi_j \le U \quad \forall s"),
    "late_s": Equation(
        "Work and transfers without waiting keep the largest mean delay.",
        r"\sum_{j \in J_s} u_j \pi_j \le T_s (1 + \epsilon^T_s) \quad \forall s: T_s < \infty",
    ),
    "inaccuracy": Equation(
        "The minimum accuracy is reached.",
        r"\sum_{j \in J_s} A_j \pi_j \ge A_s (1 - \epsilon^A_s) \quad \forall s: A_s > 0",
    ),
    "memory": Equation(
        "The room for weights of each worker, of which each route takes a part.",
        r"\sum_{j} H_{jd} \pi_j \le 1 + \epsilon^M_d \quad \forall d",
    ),
    "load": Equation(
        "The largest relative utilisation, or for the goal energy the cap.",
        r"\sum_{j} \lambda_s t_{jr} \pi_j \le q_r B \quad \text{or} \quad "
        r"\sum_{j} \lambda_s t_{jr} \pi_j \le c_r (1 + \epsilon^c_r) \quad \forall r",
    ),
}
"""The kinds of rows, by name."""
OBJECTIVES: Final[Mapping[str, Equation]] = {
    "throughput": Equation("The bottleneck.", r"\min B"),
    "makespan": Equation("The work of the busiest resource and the longest delay without waiting.", r"\min B + U"),
    "energy": Equation(
        "The average power of the workers.", r"\min P_0 + \sum_{j} \Big( \sum_{r} P_r \lambda_s t_{jr} \Big) \pi_j"
    ),
    "violation": Equation(
        "While the known routes violate limits, instead of the goal: the sum of the relative violations.",
        r"\min \sum_{s} (\epsilon^T_s + \epsilon^A_s) + \sum_{r} \epsilon^c_r + \sum_{d} \epsilon^M_d",
    ),
}


class LinearMaster:
    """The linear program, extended by new routes every round; delays are relative to their deadlines.

    Parameters
    ----------
    scale
        Units of loads, of delays and of the objective.
    """

    def __init__(self, problem: Problem, scale: Scale, deadline: Deadline | None = None) -> None:
        self.problem, self.scale = problem, scale
        self.columns: list[tuple[int, Choice]] = []
        self.known: set[tuple[int, Choice]] = set()
        self.rows: dict[Row, int] = {}
        self.slacks: dict[Row, int] = {}
        self.limits_satisfied = False
        self.program = Program(deadline=deadline)
        self.largest, self.longest = self.program.add_column(), self.program.add_column()
        for source, demand in enumerate(problem.demands):
            self._row("share", source, 1.0, 1.0)
            self._row("delay", source, -INFINITY, scale.costs(problem.least_delay_s), {self.longest: -1.0})
            if np.isfinite(demand.deadline_s):
                self.slacks["late_s", source] = slack = self.program.add_column()
                self._row("late_s", source, -INFINITY, 1.0, {slack: -1.0})
            if demand.min_accuracy > 0:
                self.slacks["inaccuracy", source] = slack = self.program.add_column()
                self._row("inaccuracy", source, demand.min_accuracy, INFINITY, {slack: demand.min_accuracy})
        for worker in range(len(problem.workers) if problem.room_parts else 0):
            self.slacks["memory", worker] = slack = self.program.add_column()
            self._row("memory", worker, -INFINITY, 1.0, {slack: -1.0})
        if problem.goal == "energy":
            for resource, cap in enumerate((problem.caps * ((1 - CAP_MARGIN) / scale.load)).tolist()):
                self.slacks["load", resource] = slack = self.program.add_column()
                self._row("load", resource, -INFINITY, cap, {slack: -cap})
        self.routes_from = self.program.columns
        self.route_costs: list[float] = []

    def _row(self, kind: str, index: int, lower: float, upper: float, entries: dict[int, float] | None = None) -> None:
        self.rows[kind, index] = self.program.add_row(lower, upper, entries or {})

    def add(self, routes: Iterable[tuple[int, Choice]]) -> None:
        """Add the routes that are new; their shares do not matter."""
        for source, choice in dict.fromkeys((source, Choice(it.variant, it.workers)) for source, it in routes):
            if (source, choice) in self.known:
                continue
            self.known.add((source, choice))
            self.columns.append((source, choice))
            cost, demand = self.problem.cost(source, choice), self.problem.demands[source]
            entries: dict[Row, float] = {("share", source): 1.0}
            entries["delay", source] = self.scale.costs(cost.unloaded_s)
            entries["late_s", source] = ratio(cost.unloaded_s, demand.deadline_s, MOST)
            entries["inaccuracy", source] = self.problem.variants[choice.variant].accuracy
            if self.problem.room_parts:
                used = enumerate(self.problem.room_used(choice).tolist())
                entries |= {("memory", worker): part for worker, part in used if part > 0}
            load = demand.volume * cost.seconds
            for resource, part in zip(cost.resources.tolist(), load.tolist(), strict=True):
                entries["load", resource] = self.scale.loads(part)
                if ("load", resource) not in self.rows:
                    usable = float(self.problem.usable[resource])
                    self._row("load", resource, -INFINITY, 0.0, {self.largest: -usable})
            self.route_costs.append(self.scale.costs(float(self.problem.watts[cost.resources] @ load)))
            of_rows = {self.rows[row]: value for row, value in entries.items() if row in self.rows}
            self.program.add_column(entries=of_rows)

    def drop(self, _: float) -> None:
        """Do nothing: a linear program stays fast with many routes."""

    def solve(self, _: float) -> None:
        """Find the best shares, or those with the least violations.

        Raises
        ------
        Expired
            The deadline has passed.
        """
        if not self.limits_satisfied:
            self.limits_satisfied = self._run(violation_cost=1.0) <= LIMIT_TOLERANCE
        if self.limits_satisfied:
            self._run(violation_cost=0.0)

    def _run(self, *, violation_cost: float) -> float:
        """Minimise the goal (``violation_cost`` 0) or the violations (1), and return the minimum."""
        costs, goal = np.zeros(self.program.columns), self.problem.goal
        costs[self.largest] = goal != "energy"
        costs[self.longest] = goal == "makespan"
        costs[self.routes_from :] = self.route_costs if goal == "energy" else 0.0
        costs *= 1.0 - violation_cost
        costs[list(self.slacks.values())] = violation_cost
        self.program.set_costs(costs)
        for slack in self.slacks.values():
            self.program.set_upper(slack, INFINITY if violation_cost else LIMIT_TOLERANCE)
        result = self.program.run()
        if result.end == "stopped":
            raise Expired
        if result.values is None or result.duals is None:
            raise SolveError("the linear program of shares has no solution", where="method colgen", value=result.end)
        self.value: Array = np.maximum(result.values, 0.0)
        self.dual: Array = np.abs(result.duals)
        return result.objective

    def prices(self) -> Prices:
        """Return the shadow prices at the present shares; while limits are violated, those of the limits alone."""
        sources, levels = len(self.problem.demands), len(self.problem.classes.weight)
        of_resource = self._duals("load", len(self.problem.resources))
        late = self._duals("delay", sources)
        worth = self.scale.objective if self.limits_satisfied else 1.0
        if self.problem.goal == "energy":
            of_resource = worth / self.scale.load * of_resource + self.problem.watts * self.limits_satisfied
            late = np.zeros(sources)
        elif self.limits_satisfied:
            of_resource = of_resource / max(float(of_resource @ self.problem.usable), 1e-12)
            least = (
                1.0 if self.problem.least_delay_s > 0 else 1e-12
            )  # if the longest counts more than it is, its price is 0
            late = late / max(float(late.sum()), least) * (self.problem.goal == "makespan")
        deadline_s = np.array([demand.deadline_s for demand in self.problem.demands])
        return Prices(
            of_class=np.repeat(of_resource[None, :], levels, axis=0),
            latency=np.zeros(sources),
            second=worth * self._duals("late_s", sources) / deadline_s + late,
            accuracy=worth * self._duals("inaccuracy", sources),
            late=late,
            memory=worth * self._duals("memory", len(self.problem.workers)),
        )

    hard_prices = prices

    def _duals(self, kind: str, count: int) -> Array:
        duals = np.zeros(count)
        for (row_kind, index), row in self.rows.items():
            if row_kind == kind:
                duals[index] = self.dual[row]
        return duals

    def choices(self, min_share: float) -> Choices:
        """Return the routes with a share of at least ``min_share``; the shares of each source add up to 1."""
        by_source: list[list[Choice]] = [[] for _ in self.problem.demands]
        for (source, choice), share in zip(self.columns, self.value[self.routes_from :].tolist(), strict=True):
            if share >= min_share:
                by_source[source].append(Choice(choice.variant, choice.workers, share))
        return tuple(normalised(routes) for routes in by_source)
