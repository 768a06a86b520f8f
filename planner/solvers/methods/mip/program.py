"""Pyomo models solved by HiGHS, with the solution written back to the variables.

Pyomo's own HiGHS interface is not used: it redirects the file descriptors of the whole process while it solves, which
affects all threads, and it reports solver errors as searches without a solution.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyomo.environ as pyo
from pyomo.repn import generate_standard_repn

from planner.solvers.core.deadline import Deadline
from planner.solvers.core.highs import INFINITY, Program, ProgramResult
from planner.solvers.core.problem import Array


class ModelProgram:
    """The program of a Pyomo model; ``objectives`` [objectives, columns] are the costs of its active objectives.

    The first objective is minimised until :meth:`minimise` selects another.

    Parameters
    ----------
    threads
        Maximum number of threads of a run.
    deadline
        Ends the construction, and a run with its best solution so far.
    built_by
        Ends the construction earlier.
    settings
        HiGHS options by name.

    Raises
    ------
    SolveError
        HiGHS rejects the model or an option.
    Expired
        The deadline passed during the construction.
    """

    def __init__(
        self,
        model: Any,
        *,
        threads: int = 1,
        deadline: Deadline | None = None,
        built_by: Deadline | None = None,
        settings: Mapping[str, object] | None = None,
    ) -> None:
        self._variables: list[Any] = list(model.component_data_objects(pyo.Var))
        self._column = {id(variable): column for column, variable in enumerate(self._variables)}
        deadline = deadline or Deadline()
        self._deadline = built_by or deadline
        self._program = Program(threads=threads, deadline=deadline, settings=settings)
        bounds = [variable.bounds for variable in self._variables]
        self._program.add_columns(
            np.array([-INFINITY if lower is None else lower for lower, _ in bounds]),
            np.array([INFINITY if upper is None else upper for _, upper in bounds]),
            integer=np.array(self._integer(), dtype=np.intp),
        )
        self._add_rows(list(model.component_data_objects(pyo.Constraint, active=True)))
        active = model.component_data_objects(pyo.Objective, active=True)
        objectives = [self._linear(objective.expr) for objective in active]
        self._offsets = [offset for _, _, offset in objectives]
        self.objectives: Array = np.zeros((len(objectives), len(self._variables)))
        for costs, (columns, factors, _) in zip(self.objectives, objectives, strict=True):
            costs[columns] = factors
        self._deadline = deadline
        self.minimise(0)

    def _add_rows(self, constraints: list[Any]) -> None:
        rows = [self._linear(constraint.body) for constraint in constraints]
        offsets = np.array([offset for _, _, offset in rows])
        self._program.add_rows(
            np.array([-INFINITY if constraint.lb is None else constraint.lb for constraint in constraints]) - offsets,
            np.array([INFINITY if constraint.ub is None else constraint.ub for constraint in constraints]) - offsets,
            np.cumsum([0, *(len(columns) for columns, _, _ in rows)])[:-1],
            np.array([column for columns, _, _ in rows for column in columns], dtype=np.intp),
            np.array([factor for _, factors, _ in rows for factor in factors], dtype=float),
        )

    def _linear(self, expression: Any) -> tuple[list[int], list[float], float]:
        """Return an expression as columns, their factors, and a constant."""
        self._deadline.check()
        linear = generate_standard_repn(expression, quadratic=False)
        if linear.nonlinear_expr is not None:
            raise TypeError(f"not linear: {expression}")
        columns = [self._column[id(variable)] for variable in linear.linear_vars]
        return columns, list(linear.linear_coefs), linear.constant

    def _integer(self) -> list[int]:
        return [column for column, variable in enumerate(self._variables) if not variable.is_continuous()]

    def minimise(self, objective: int) -> None:
        """Select the objective, by index, that the next runs minimise."""
        self._program.set_costs(self.objectives[objective], self._offsets[objective])

    def limit(self, objective: int, most: float) -> None:
        """Add a row that limits one of the model's objectives to ``most``."""
        used = np.flatnonzero(self.objectives[objective])
        entries = dict(zip(used.tolist(), self.objectives[objective, used].tolist(), strict=True))
        self._program.add_row(-INFINITY, most - self._offsets[objective], entries)

    def add_at_least(self, terms: Iterable[tuple[Any, float]], least: float) -> None:
        """Add a row: the sum of variables, each times its factor, is at least ``least``."""
        self._program.add_row(least, INFINITY, {self._column[id(variable)]: factor for variable, factor in terms})

    def start_from_values(self) -> None:
        """Warm-start the next run from the present values of the integer variables."""
        values = {column: self._variables[column].value for column in self._integer()}
        self._program.start_from({column: value for column, value in values.items() if value is not None})

    def run(self, time_limit_s: float = INFINITY) -> ProgramResult:
        """Minimise the objective, and set the variables to the solution if there is one."""
        result = self._program.run(time_limit_s)
        if result.values is not None:
            for variable, value in zip(self._variables, result.values.tolist(), strict=True):
                variable.set_value(value, skip_validation=True)
        return result
