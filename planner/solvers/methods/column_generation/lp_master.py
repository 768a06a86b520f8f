"""The master of column generation for the goals ``throughput`` and ``makespan``: a linear program over known routes.

It minimises the largest utilisation, for ``makespan`` plus the longest unloaded delay. As long as no known routes keep
all deadlines and least accuracies it minimises by how much these are missed instead, each as a part of its limit.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from planner.errors import SolveError
from planner.solvers.core.highs import INFINITY, Program
from planner.solvers.core.problem import Array, Choice, Choices, Problem, normalised
from planner.solvers.core.resource_prices import Prices

MISSED = 1e-9
"""Limits missed by no more, as a part of the limit, are kept."""

Row = tuple[str, int]
"""What a row is about: ``share``, ``delay``, ``late_s`` and ``inaccuracy`` of a source, ``load`` of a resource."""


class BottleneckMaster:
    """Shares of routes, kept between rounds."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.columns: list[tuple[int, Choice]] = []
        self.known: set[tuple[int, Choice]] = set()
        self.rows: dict[Row, int] = {}
        self.slacks: dict[Row, int] = {}
        self.limits_kept = False
        self.program = Program()
        self.largest, self.longest = self.program.add_column(), self.program.add_column()
        for source, demand in enumerate(problem.demands):
            self._row("share", source, 1.0, 1.0)
            self._row("delay", source, -INFINITY, 0.0, {self.longest: -1.0})
            if np.isfinite(demand.deadline_s):
                self.slacks["late_s", source] = slack = self.program.add_column()
                self._row("late_s", source, -INFINITY, demand.deadline_s, {slack: -demand.deadline_s})
            if demand.min_accuracy > 0:
                self.slacks["inaccuracy", source] = slack = self.program.add_column()
                self._row("inaccuracy", source, demand.min_accuracy, INFINITY, {slack: demand.min_accuracy})
        self.routes_from = self.program.columns

    def _row(self, what: str, number: int, lower: float, upper: float, entries: dict[int, float] | None = None) -> None:
        self.rows[what, number] = self.program.add_row(lower, upper, entries or {})

    def add(self, routes: Iterable[tuple[int, Choice]]) -> None:
        """Take the routes that are new."""
        for source, choice in dict.fromkeys(routes):
            if (source, choice) in self.known:
                continue
            self.known.add((source, choice))
            self.columns.append((source, choice))
            cost = self.problem.cost(source, choice)
            entries: dict[Row, float] = {("share", source): 1.0}
            entries["delay", source] = entries["late_s", source] = cost.unloaded_s
            entries["inaccuracy", source] = self.problem.variants[choice.variant].accuracy
            load = self.problem.demands[source].volume * cost.seconds
            for resource, seconds in zip(cost.resources.tolist(), load.tolist(), strict=True):
                entries["load", resource] = seconds
                if ("load", resource) not in self.rows:
                    self._row("load", resource, -INFINITY, 0.0, {self.largest: -1.0})
            own = {self.rows[row]: value for row, value in entries.items() if row in self.rows}
            self.program.add_column(entries=own)

    def drop(self, _: float) -> None:
        """Keep all routes: a linear program does not mind many."""

    def solve(self, _: float) -> None:
        """Find the best shares, or those that miss the limits least."""
        if not self.limits_kept:
            self.limits_kept = self._run(missed=1.0) <= MISSED
        if self.limits_kept:
            self._run(missed=0.0)

    def _run(self, *, missed: float) -> float:
        """Minimise the goal, or with ``missed`` 1 the limits missed, and give what is reached."""
        self.program.set_cost(self.largest, 1.0 - missed)
        self.program.set_cost(self.longest, (1.0 - missed) * (self.problem.goal == "makespan"))
        for slack in self.slacks.values():
            self.program.set_cost(slack, missed)
            self.program.set_upper(slack, INFINITY if missed else MISSED)
        answer = self.program.run()
        if answer.values is None or answer.duals is None:
            raise SolveError("the linear program of shares has no solution", where="method colgen", value=answer.end)
        self.value: Array = np.maximum(answer.values, 0.0)
        self.dual: Array = np.abs(answer.duals)
        return answer.objective

    def prices(self) -> Prices:
        """Give what resources and limits cost at the present shares; while limits are missed, what these alone cost."""
        sources, levels = len(self.problem.demands), len(self.problem.classes.weight)
        of_resource = self._duals("load", len(self.problem.resources))
        late = self._duals("delay", sources)
        if self.limits_kept:
            of_resource = of_resource / max(float(of_resource.sum()), 1e-12)
            late = late / max(float(late.sum()), 1e-12) * (self.problem.goal == "makespan")
        return Prices(
            of_class=np.repeat(of_resource[None, :], levels, axis=0),
            latency=np.zeros(sources),
            second=self._duals("late_s", sources) + late,
            accuracy=self._duals("inaccuracy", sources),
            late=late,
        )

    hard_prices = prices

    def _duals(self, what: str, count: int) -> Array:
        duals = np.zeros(count)
        for (kind, number), row in self.rows.items():
            if kind == what:
                duals[number] = self.dual[row]
        return duals

    def choices(self, least_share: float) -> Choices:
        """Give the routes that have at least a share; the shares of each source add up to 1."""
        own: list[list[Choice]] = [[] for _ in self.problem.demands]
        for (source, choice), share in zip(self.columns, self.value[self.routes_from :].tolist(), strict=True):
            if share >= least_share:
                own[source].append(Choice(choice.variant, choice.workers, share))
        return tuple(normalised(found) for found in own)
