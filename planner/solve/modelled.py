"""Pyomo models as programs of HiGHS: Pyomo writes the matrices, and values come back into its variables.

Pyomo's own way to HiGHS is not taken: while it solves it redirects the file descriptors of the process, under the feet
of all its threads, and it gives a solver's errors out as searches that found nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from pyomo.core.expr.numvalue import value
from pyomo.repn.plugins.standard_form import LinearStandardFormCompiler

from planner.solve.highs import INFINITY, Answer, Program
from planner.solve.problem import Array


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
        form = LinearStandardFormCompiler().write(model, mixed_form=True)
        self._variables: list[Any] = form.columns
        self._column = {id(variable): column for column, variable in enumerate(form.columns)}
        self._program = Program(threads=threads, stop=stop, settings=settings)
        bounds = [variable.bounds for variable in form.columns]
        self._program.add_columns(
            np.array([-INFINITY if lower is None else value(lower) for lower, _ in bounds]),
            np.array([INFINITY if upper is None else value(upper) for _, upper in bounds]),
            integer=np.array(self._integer(), dtype=np.intp),
        )
        kinds = np.array([kind for _, kind in form.rows])  # 1: at most, 0: equal, -1: at least
        right = np.asarray(form.rhs, dtype=float)
        self._program.add_rows(np.where(kinds > 0, -INFINITY, right), np.where(kinds < 0, INFINITY, right), form.A)
        self._offsets: Array = np.asarray(form.c_offset, dtype=float)
        self.objectives: Array = form.c.toarray()
        self.minimise(0)

    def _integer(self) -> list[int]:
        return [column for column, variable in enumerate(self._variables) if not variable.is_continuous()]

    def minimise(self, objective: int) -> None:
        """Let the next run minimise another of the model's objectives."""
        self._program.set_costs(self.objectives[objective], float(self._offsets[objective]))

    def keep(self, objective: int, most: float) -> None:
        """Let no further solution cost more by one of the model's objectives."""
        used = np.flatnonzero(self.objectives[objective])
        entries = dict(zip(used.tolist(), self.objectives[objective, used].tolist(), strict=True))
        self._program.add_row(-INFINITY, most - float(self._offsets[objective]), entries)

    def add_at_least(self, terms: Iterable[tuple[Any, float]], least: float) -> None:
        """Add a row: the sum of variables, each times its factor, is at least so much."""
        self._program.add_row(least, INFINITY, {self._column[id(variable)]: factor for variable, factor in terms})

    def start_from_values(self) -> None:
        """Let the next run start from the values that the integer variables have."""
        values = {column: self._variables[column].value for column in self._integer()}
        self._program.start_from({column: own for column, own in values.items() if own is not None})

    def run(self, time_limit_s: float) -> Answer:
        """Find the best solution, and give the variables its values if there is one."""
        answer = self._program.run(time_limit_s)
        if answer.values is not None:
            for variable, own in zip(self._variables, answer.values.tolist(), strict=True):
                variable.set_value(own, skip_validation=True)
        return answer
