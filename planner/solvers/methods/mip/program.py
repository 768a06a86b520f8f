"""Pyomo models as programs of HiGHS, whose values come back into the variables.

Pyomo's own way to HiGHS is not taken: while it solves it redirects the file descriptors of the process, under the feet
of all its threads, and it gives a solver's errors out as searches that found nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyomo.environ as pyo
from pyomo.repn import generate_standard_repn

from planner.solvers.core.highs import INFINITY, Program, ProgramResult
from planner.solvers.core.problem import Array


class ModelProgram:
    """The program of a Pyomo model; ``objectives`` are the costs of its active objectives [columns], in their order.

    The first objective is minimised until :meth:`minimise` says otherwise.

    Raises
    ------
    SolveError
        HiGHS refuses the model or an option.
    """

    def __init__(
        self,
        model: Any,
        *,
        threads: int = 1,
        stop: threading.Event | None = None,
        settings: Mapping[str, object] | None = None,
    ) -> None:
        self._variables: list[Any] = list(model.component_data_objects(pyo.Var))
        self._column = {id(variable): column for column, variable in enumerate(self._variables)}
        self._program = Program(threads=threads, stop=stop, settings=settings)
        bounds = [variable.bounds for variable in self._variables]
        self._program.add_columns(
            np.array([-INFINITY if lower is None else lower for lower, _ in bounds]),
            np.array([INFINITY if upper is None else upper for _, upper in bounds]),
            integer=np.array(self._integer(), dtype=np.intp),
        )
        self._add_rows(list(model.component_data_objects(pyo.Constraint, active=True)))
        objectives = [self._linear(own.expr) for own in model.component_data_objects(pyo.Objective, active=True)]
        self._offsets = [offset for _, _, offset in objectives]
        self.objectives: Array = np.zeros((len(objectives), len(self._variables)))
        for costs, (columns, factors, _) in zip(self.objectives, objectives, strict=True):
            costs[columns] = factors
        self.minimise(0)

    def _add_rows(self, constraints: list[Any]) -> None:
        rows = [self._linear(constraint.body) for constraint in constraints]
        offsets = np.array([offset for _, _, offset in rows])
        self._program.add_rows(
            np.array([-INFINITY if own.lb is None else own.lb for own in constraints]) - offsets,
            np.array([INFINITY if own.ub is None else own.ub for own in constraints]) - offsets,
            np.cumsum([0, *(len(columns) for columns, _, _ in rows)])[:-1],
            np.array([column for columns, _, _ in rows for column in columns], dtype=np.intp),
            np.array([factor for _, factors, _ in rows for factor in factors], dtype=float),
        )

    def _linear(self, expression: Any) -> tuple[list[int], list[float], float]:
        """Give an expression as columns, their factors, and a constant."""
        read = generate_standard_repn(expression, quadratic=False)
        if read.nonlinear_expr is not None:
            raise TypeError(f"not linear: {expression}")
        return [self._column[id(variable)] for variable in read.linear_vars], list(read.linear_coefs), read.constant

    def _integer(self) -> list[int]:
        return [column for column, variable in enumerate(self._variables) if not variable.is_continuous()]

    def minimise(self, objective: int) -> None:
        """Let the next run minimise another of the model's objectives."""
        self._program.set_costs(self.objectives[objective], self._offsets[objective])

    def keep(self, objective: int, most: float) -> None:
        """Let no further solution cost more by one of the model's objectives."""
        used = np.flatnonzero(self.objectives[objective])
        entries = dict(zip(used.tolist(), self.objectives[objective, used].tolist(), strict=True))
        self._program.add_row(-INFINITY, most - self._offsets[objective], entries)

    def add_at_least(self, terms: Iterable[tuple[Any, float]], least: float) -> None:
        """Add a row: the sum of variables, each times its factor, is at least so much."""
        self._program.add_row(least, INFINITY, {self._column[id(variable)]: factor for variable, factor in terms})

    def start_from_values(self) -> None:
        """Let the next run start from the values that the integer variables have."""
        values = {column: self._variables[column].value for column in self._integer()}
        self._program.start_from({column: own for column, own in values.items() if own is not None})

    def run(self, time_limit_s: float) -> ProgramResult:
        """Find the best solution, and give the variables its values if there is one."""
        answer = self._program.run(time_limit_s)
        if answer.values is not None:
            for variable, own in zip(self._variables, answer.values.tolist(), strict=True):
                variable.set_value(own, skip_validation=True)
        return answer
