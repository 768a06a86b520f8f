"""Linear and mixed-integer programs solved by HiGHS: silent, thread-safe, and with every status checked.

HiGHS fixes its number of threads when a thread of the process first runs a model, and refuses later models with another
number. So each run uses a new thread and shuts down HiGHS's own threads afterwards: neither earlier nor concurrent runs
affect it. Within its presolve and root node, HiGHS may look at neither its time limit nor its callbacks for many
seconds; then the run is left behind, with the best solution that it has reported.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import highspy
import numpy as np

from planner.errors import SolveError
from planner.solvers.core.deadline import Deadline, Expired, call_until
from planner.solvers.core.problem import Array, Integers

INFINITY: Final = highspy.kHighsInf
LEAST_S: Final = 0.01
"""Shortest time limit of a run, in seconds: after a shorter one HiGHS returns nothing, not even a trivial solution."""

End = Literal["optimal", "infeasible", "stopped"]
"""How a run ended: ``stopped`` by its limit on time or nodes, or from outside."""

# Any other status is an error: the model was not solved, or it hit a limit that was never set. "Unbounded or
# infeasible" means infeasible, since all programs here are bounded from below.
END_OF_STATUS: Final[Mapping[str, End]] = {
    "kOptimal": "optimal",
    "kInfeasible": "infeasible",
    "kUnboundedOrInfeasible": "infeasible",
    "kTimeLimit": "stopped",
    "kInterrupt": "stopped",
}


NODE_LIMIT: Final = "mip_max_nodes"
END_BY_NODES: Final[Mapping[str, End]] = {"kSolutionLimit": "stopped"}
"""The further status of programs with a limit on nodes."""


@dataclass(frozen=True)
class ProgramResult:
    """Result of a run.

    ``objective``, ``values`` [columns] and, for a linear program, ``duals`` [rows] belong to the best solution. Without
    a solution they are None, and the objective is infinite. ``bound`` is a lower bound on the objective.
    """

    end: End
    objective: float = float("inf")
    bound: float = -float("inf")
    values: Array | None = None
    duals: Array | None = None


_Highs: Any = highspy.Highs
"""Untyped, because its stubs differ from version to version."""


class SilentHighs(_Highs):  # type: ignore[misc]  # a subclass of Any
    """HiGHS that prints nothing.

    Its constructor enables callbacks as its last step, which prints a banner to the process's standard output unless
    output is switched off before.
    """

    def enableCallbacks(self) -> None:  # noqa: N802  # HiGHS's name
        """Switch output off first."""
        self.setOptionValue("output_flag", False)  # noqa: FBT003  # HiGHS's signature
        super().enableCallbacks()


class Program:
    """A linear or mixed-integer program to minimise, which can be extended between runs.

    Parameters
    ----------
    threads
        Maximum number of threads of a run.
    deadline
        Ends a run, with its best solution so far.
    settings
        HiGHS options by name.

    Raises
    ------
    SolveError
        HiGHS rejects an option, a row, a column or the program.
    """

    def __init__(
        self, *, threads: int = 1, deadline: Deadline | None = None, settings: Mapping[str, object] | None = None
    ) -> None:
        self._highs = SilentHighs()
        self._deadline = deadline or Deadline()
        self._abandoned = threading.Event()
        self._has_integers = False
        self._ends = {**END_OF_STATUS, **(END_BY_NODES if NODE_LIMIT in (settings or {}) else {})}
        self._reported = ProgramResult("stopped")
        self._set_options({"threads": threads, "mip_abs_gap": 0.0, **(settings or {})})
        for callback in (self._highs.cbSimplexInterrupt, self._highs.cbIpmInterrupt, self._highs.cbMipInterrupt):
            callback.subscribe(self._interrupt)
        self._highs.cbMipInterrupt.subscribe(self._report_bound)
        self._highs.cbMipImprovingSolution.subscribe(self._report_solution)

    def _interrupt(self, event: Any) -> None:
        if (self._abandoned.is_set() or self._deadline.stop.is_set()) and event.data_in is not None:
            event.data_in.user_interrupt = True

    def _report_bound(self, event: Any) -> None:
        self._reported = dataclasses.replace(self._reported, bound=float(event.data_out.mip_dual_bound))

    def _report_solution(self, event: Any) -> None:
        found = event.data_out
        self._reported = dataclasses.replace(
            self._reported, objective=float(found.objective_function_value), values=np.array(found.mip_solution)
        )

    @property
    def columns(self) -> int:
        """Number of columns."""
        return int(self._highs.getNumCol())

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self._highs.getNumRow())

    def add_column(self, *, upper: float = INFINITY, entries: Mapping[int, float] | None = None) -> int:
        """Add a column from 0 to ``upper`` with cost 0 and entries by row; return its index."""
        rows = entries or {}
        added = self._highs.addCol(0.0, 0.0, upper, len(rows), _indices(rows), _values(rows))
        self._check(added, "a column", rows)
        return self.columns - 1

    def add_row(self, lower: float, upper: float, entries: Mapping[int, float]) -> int:
        """Add a row between two bounds, with entries by column; return its index."""
        added = self._highs.addRow(lower, upper, len(entries), _indices(entries), _values(entries))
        self._check(added, "a row", entries)
        return self.rows - 1

    def add_columns(self, lower: Array, upper: Array, *, integer: Integers | None = None) -> None:
        """Add columns with cost 0; ``integer`` holds the indices of integer ones, counted from the first new column."""
        first = self.columns
        self._check(self._highs.addVars(len(lower), lower, upper), "columns")
        if integer is not None and len(integer):
            self._has_integers = True
            kinds = np.full(len(integer), int(highspy.HighsVarType.kInteger), dtype=np.uint8)
            indices = (first + integer).astype(np.int32)
            self._check(self._highs.changeColsIntegrality(len(indices), indices, kinds), "integer columns")

    def add_rows(self, lower: Array, upper: Array, starts: Integers, columns: Integers, entries: Array) -> None:
        """Add rows in compressed sparse row form: row i has the entries from ``starts[i]`` to ``starts[i + 1]``."""
        indices = starts.astype(np.int32), columns.astype(np.int32)
        self._check(self._highs.addRows(len(lower), lower, upper, len(entries), *indices, entries), "rows")

    def set_cost(self, column: int, cost: float) -> None:
        """Change the cost of a column."""
        self._check(self._highs.changeColCost(column, cost), f"the cost of column {column}", cost)

    def set_costs(self, costs: Array, offset: float = 0.0) -> None:
        """Change the costs of all columns."""
        indices = np.arange(self.columns, dtype=np.int32)
        self._check(self._highs.changeColsCost(len(indices), indices, costs), "costs")
        self._check(self._highs.changeObjectiveOffset(offset), "the offset", offset)

    def set_upper(self, column: int, upper: float) -> None:
        """Change the upper bound of a column; its lower bound is 0."""
        self._check(self._highs.changeColBounds(column, 0.0, upper), f"the bound of column {column}", upper)

    def start_from(self, values: Mapping[int, float]) -> None:
        """Warm-start the next run from the values of some columns, which HiGHS completes to a solution if it can."""
        self._check(self._highs.setSolution(len(values), _indices(values), _values(values)), "a warm start")

    def run(self, time_limit_s: float = INFINITY) -> ProgramResult:
        """Minimise the program, until the deadline or for ``time_limit_s``.

        A run that does not end in time is left behind, and all later runs of the program are ``stopped`` at once.
        """
        if self._abandoned.is_set():
            return ProgramResult("stopped")
        highs, deadline = self._highs, self._deadline.within(time_limit_s)
        # Against the limit of a linear program, but not of one with integers, HiGHS counts the earlier runs, too.
        earlier_s = 0.0 if self._has_integers else highs.getRunTime()
        limit_s = earlier_s + max(deadline.left_s, LEAST_S)
        self._check(highs.setOptionValue("time_limit", limit_s), "option time_limit", limit_s)
        self._reported = ProgramResult("stopped")
        try:
            done = call_until(deadline, self._run, self._abandoned.set)
            if self._failed(done):
                # From a start, HiGHS may find its own optimum infeasible, by its tolerance and a rounding error.
                highs.clearSolver()
                done = call_until(deadline, self._run, self._abandoned.set)
        except Expired:
            return self._reported
        status = highs.getModelStatus()
        if self._failed(done):
            raise SolveError(
                "HiGHS has not solved the program",
                where=self._version,
                value=f"{highs.modelStatusToString(status)} ({done.name})",
                expected=", ".join(self._ends),
            )
        return self._result(self._ends[status.name])

    def _failed(self, done: Any) -> bool:
        return done == highspy.HighsStatus.kError or self._highs.getModelStatus().name not in self._ends

    def _set_options(self, options: Mapping[str, object]) -> None:
        for name, value in options.items():
            self._check(self._highs.setOptionValue(name, value), f"option {name}", value)

    def _run(self) -> Any:
        try:
            return self._highs.run()
        finally:
            _Highs.resetGlobalScheduler(True)  # noqa: FBT003  # HiGHS's signature; waits for its threads to end

    def _result(self, end: End) -> ProgramResult:
        info, solution = self._highs.getInfo(), self._highs.getSolution()
        mixed = info.mip_node_count >= 0
        solved = end == "optimal" or (end == "stopped" and mixed and solution.value_valid)
        if not solved:
            return ProgramResult(end, bound=info.mip_dual_bound if mixed else -float("inf"))
        objective = info.objective_function_value
        return ProgramResult(
            end,
            objective,
            info.mip_dual_bound if mixed else objective,
            np.array(solution.col_value),
            np.array(solution.row_dual) if solution.dual_valid else None,
        )

    def _check(self, status: Any, what: str, value: object = None) -> None:
        if status == highspy.HighsStatus.kError:
            raise SolveError(f"HiGHS rejects {what}", where=self._version, value=value)

    @property
    def _version(self) -> str:
        return f"HiGHS {self._highs.version()}"


def _indices(entries: Mapping[int, float]) -> Any:
    return np.fromiter(entries.keys(), dtype=np.int32, count=len(entries))


def _values(entries: Mapping[int, float]) -> Any:
    return np.fromiter(entries.values(), dtype=np.float64, count=len(entries))
