"""Solving in a process of its own, while this one runs a plan.

Solvers use much processor time and change state of the whole process: file descriptors, signals, number of threads.
"""

from __future__ import annotations

from typing import Final

from planner.errors import Fault, PlannerError, SolveError
from planner.solvers.core.solution import Solution
from planner.solvers.replan.solver_process import FailedError, SolverProcess, solver_process
from planner.solvers.replan.worker import Request, SolveAnswer, SolveTask

_PATIENCE_S: Final = 60.0
"""Time beyond its time limit, including the start of the process, after which a search counts as hung."""


def solve_apart(task: SolveTask) -> Solution:
    """Solve a task in a process of its own.

    Raises
    ------
    PlannerError
        As for :func:`planner.solvers.solve.solve`.
    SolveError
        The process ended, or took much longer than the time limit.
    """
    process = solver_process()
    answer = _ask(process, task)
    process.release()
    if answer.faults:
        raise PlannerError([Fault(each.what, each.where, each.value, each.expected) for each in answer.faults])
    if answer.trace:
        raise SolveError("the solver failed", where="solver", value=answer.trace.strip()[-500:])
    return Solution(answer.status, answer.plan, answer.reasons)


def _ask(process: SolverProcess, task: SolveTask) -> SolveAnswer:
    """Return the answer; where there is none, end the process."""
    try:
        line = process.ask(Request(solve=task), patience_s=task.time_limit_s + _PATIENCE_S)
        return SolveAnswer.model_validate_json(line)
    except FailedError as error:
        process.close()
        raise SolveError(str(error), where="solver") from None
    except BaseException:  # such as Ctrl-C
        process.close()
        raise
