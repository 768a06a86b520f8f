"""HiGHS, owned by one module: silent, with the threads of the model at hand, and with every status accounted for.

HiGHS fixes its number of threads when a thread of the process first runs a model, and refuses later models with another
number. So each run has a thread of its own, and ends HiGHS's threads with it: whatever ran before, or runs at the same
time, has no say.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Literal

import highspy
import numpy as np

from planner.errors import SolveError
from planner.solvers.core.problem import Array, Integers

INFINITY: Final = highspy.kHighsInf

End = Literal["optimal", "infeasible", "stopped"]
"""How a run ended: ``stopped`` by its time limit or from outside."""

# Any other status is an error: the model was not solved, or a limit was met that nobody has set. What no solution keeps
# may also be reported as unbounded or infeasible; programs here are all bounded from below.
ENDS: Final[Mapping[str, End]] = {
    "kOptimal": "optimal",
    "kInfeasible": "infeasible",
    "kUnboundedOrInfeasible": "infeasible",
    "kTimeLimit": "stopped",
    "kInterrupt": "stopped",
}


@dataclass(frozen=True)
class ProgramResult:
    """What a run found.

    ``objective``, ``values`` [columns] and, for a linear program, ``duals`` [rows] belong to the best solution; where
    none was found they are None, and the objective is infinite. No solution has an objective below ``bound``.
    """

    end: End
    objective: float = float("inf")
    bound: float = -float("inf")
    values: Array | None = None
    duals: Array | None = None


_Highs: Any = highspy.Highs
"""Its types differ from version to version."""


class _SilentHighs(_Highs):  # type: ignore[misc]  # a subclass of Any
    """HiGHS that prints nothing.

    Its constructor enables callbacks as its last step, which prints a banner to the process's standard output unless
    output has been switched off by then.
    """

    def enableCallbacks(self) -> None:  # noqa: N802  # HiGHS's name
        """Switch output off first."""
        self.setOptionValue("output_flag", False)  # noqa: FBT003  # HiGHS's signature
        super().enableCallbacks()


class Program:
    """A linear program to minimise, some of whose columns may be integer; kept between runs, and added to.

    Parameters
    ----------
    threads
        How many threads a run may use.
    stop
        Ends a run from outside, with the best that it has found.
    settings
        HiGHS's options by name.

    Raises
    ------
    SolveError
        HiGHS refuses an option, a row, a column or the program.
    """

    def __init__(
        self, *, threads: int = 1, stop: threading.Event | None = None, settings: Mapping[str, object] | None = None
    ) -> None:
        self._highs = _SilentHighs()
        self._stop = stop
        self._abandoned = threading.Event()
        for name, value in {"threads": threads, **(settings or {})}.items():
            self._check(self._highs.setOptionValue(name, value), f"option {name}", value)
        for callback in (self._highs.cbSimplexInterrupt, self._highs.cbIpmInterrupt, self._highs.cbMipInterrupt):
            callback.subscribe(self._interrupt)

    def _interrupt(self, event: Any) -> None:
        wanted = self._abandoned.is_set() or (self._stop is not None and self._stop.is_set())
        if wanted and event.data_in is not None:
            event.data_in.user_interrupt = True

    @property
    def columns(self) -> int:
        """Number of columns."""
        return int(self._highs.getNumCol())

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self._highs.getNumRow())

    def add_column(self, *, upper: float = INFINITY, entries: Mapping[int, float] | None = None) -> int:
        """Add a column from 0 to ``upper`` that costs nothing, with entries by row; give its number."""
        rows = entries or {}
        added = self._highs.addCol(0.0, 0.0, upper, len(rows), _numbers(rows), _values(rows))
        self._check(added, "a column", rows)
        return self.columns - 1

    def add_row(self, lower: float, upper: float, entries: Mapping[int, float]) -> int:
        """Add a row between two bounds, with entries by column; give its number."""
        added = self._highs.addRow(lower, upper, len(entries), _numbers(entries), _values(entries))
        self._check(added, "a row", entries)
        return self.rows - 1

    def add_columns(self, lower: Array, upper: Array, *, integer: Integers | None = None) -> None:
        """Add columns that cost nothing; those numbered in ``integer``, counted from the first of them, are integer."""
        first = self.columns
        self._check(self._highs.addVars(len(lower), lower, upper), "columns")
        if integer is not None and len(integer):
            kinds = np.full(len(integer), int(highspy.HighsVarType.kInteger), dtype=np.uint8)
            numbers = (first + integer).astype(np.int32)
            self._check(self._highs.changeColsIntegrality(len(numbers), numbers, kinds), "integer columns")

    def add_rows(self, lower: Array, upper: Array, starts: Integers, columns: Integers, entries: Array) -> None:
        """Add rows; entries and their columns stand row by row, each row's from its number in ``starts`` on."""
        numbers = starts.astype(np.int32), columns.astype(np.int32)
        self._check(self._highs.addRows(len(lower), lower, upper, len(entries), *numbers, entries), "rows")

    def set_cost(self, column: int, cost: float) -> None:
        """Give a column another cost."""
        self._check(self._highs.changeColCost(column, cost), f"the cost of column {column}", cost)

    def set_costs(self, costs: Array, offset: float = 0.0) -> None:
        """Give all columns other costs."""
        numbers = np.arange(self.columns, dtype=np.int32)
        self._check(self._highs.changeColsCost(len(numbers), numbers, costs), "costs")
        self._check(self._highs.changeObjectiveOffset(offset), "the offset", offset)

    def set_upper(self, column: int, upper: float) -> None:
        """Give a column another upper bound; the lower one is 0."""
        self._check(self._highs.changeColBounds(column, 0.0, upper), f"the bound of column {column}", upper)

    def start_from(self, values: Mapping[int, float]) -> None:
        """Let the next run start from the values of some columns, of which HiGHS makes a solution if it can."""
        self._check(self._highs.setSolution(len(values), _numbers(values), _values(values)), "a start")

    def run(self, time_limit_s: float = INFINITY) -> ProgramResult:
        """Find the best solution; the limit is that of mixed-integer programs, whose clock starts anew each time."""
        highs = self._highs
        self._check(highs.setOptionValue("time_limit", time_limit_s), "option time_limit", time_limit_s)
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="highs") as pool:
            running = pool.submit(self._run)
            try:
                done = running.result()
            except BaseException:
                self._abandoned.set()  # an interrupt must not wait for the whole search
                raise
        status = highs.getModelStatus()
        if done == highspy.HighsStatus.kError or status.name not in ENDS:
            found = f"{highs.modelStatusToString(status)} ({done.name})"
            raise self._error("HiGHS has not solved the program", found, expected=", ".join(ENDS))
        return self._answer(ENDS[status.name])

    def _run(self) -> Any:
        try:
            return self._highs.run()
        finally:
            _Highs.resetGlobalScheduler(True)  # noqa: FBT003  # HiGHS's signature; it waits for its threads

    def _answer(self, end: End) -> ProgramResult:
        info, solution = self._highs.getInfo(), self._highs.getSolution()
        mixed = info.mip_node_count >= 0
        found = end == "optimal" or (end == "stopped" and mixed and solution.value_valid)
        if not found:
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
            raise self._error(f"HiGHS does not take {what}", value)

    def _error(self, what: str, value: object, expected: str | None = None) -> SolveError:
        return SolveError(what, where=f"HiGHS {self._highs.version()}", value=value, expected=expected)


def _numbers(entries: Mapping[int, float]) -> Any:
    return np.fromiter(entries.keys(), dtype=np.int32, count=len(entries))


def _values(entries: Mapping[int, float]) -> Any:
    return np.fromiter(entries.values(), dtype=np.float64, count=len(entries))
