"""Solving in a process of its own, while this one runs a plan.

Solvers use much processor time and change state of the whole process: file descriptors, signals, number of threads.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from typing import Final

from pydantic import ValidationError

from planner.base import FrozenModel
from planner.errors import Fault, PlannerError, SolveError
from planner.plan.types import PlanSpec, Status
from planner.scenario.instance import Instance
from planner.solvers.core.solution import Solution
from planner.solvers.solve import Routes, solve

_COMMAND: Final = (sys.executable, "-m", "planner.solvers.replan.apart")

_PATIENCE_S: Final = 60.0
"""Time beyond its time limit, including the start of the process, after which a search counts as hung."""


class _Fault(FrozenModel):
    what: str
    where: str | None
    value: str | None
    expected: str | None


class SolveTask(FrozenModel):
    """What to solve; the options are those of :func:`planner.solvers.solve.solve`."""

    instance: Instance
    start: PlanSpec | None = None
    method: str = "auto"
    routes: Routes | None = None
    time_limit_s: float = 60.0
    gap: float = 1e-4


class _Answer(FrozenModel):
    status: Status = "no_solution"
    plan: PlanSpec | None = None
    reasons: tuple[str, ...] = ()
    faults: tuple[_Fault, ...] = ()


def solve_apart(task: SolveTask) -> Solution:
    """Solve a task in a process of its own.

    Raises
    ------
    PlannerError
        As for :func:`planner.solvers.solve.solve`.
    SolveError
        The process ended, or took much longer than the time limit.
    """
    request = task.model_dump_json().encode()
    try:
        # In a new session it receives no Ctrl-C from the terminal; `run` kills it when this process is interrupted.
        done = subprocess.run(
            _COMMAND,
            input=request,
            capture_output=True,
            timeout=task.time_limit_s + _PATIENCE_S,
            start_new_session=True,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise SolveError(
            "the solver gave no answer in time", where="solver", value=f"{task.time_limit_s:g} s"
        ) from None
    try:
        answer = _Answer.model_validate_json(done.stdout)
    except ValidationError:
        words = done.stderr.decode(errors="replace").strip()[-500:]
        raise SolveError(f"the solver's process ended ({done.returncode})", where="solver", value=words) from None
    if answer.faults:
        raise PlannerError([Fault(each.what, each.where, each.value, each.expected) for each in answer.faults])
    return Solution(answer.status, answer.plan, answer.reasons)


def _answer(request: bytes) -> _Answer:
    task = SolveTask.model_validate_json(request)
    try:
        solution = solve(
            task.instance,
            method=task.method,
            routes=task.routes,
            time_limit_s=task.time_limit_s,
            gap=task.gap,
            start=task.start,
        )
    except PlannerError as error:
        found = [
            _Fault(
                what=each.what,
                where=each.where,
                value=None if each.value is None else str(each.value),
                expected=each.expected,
            )
            for each in error.faults
        ]
        return _Answer(faults=tuple(found))
    return _Answer(status=solution.status, plan=solution.plan, reasons=solution.reasons)


def main() -> None:
    """Answer the task on standard input."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what solver libraries print
    logging.basicConfig()
    answers.write(_answer(sys.stdin.buffer.read()).model_dump_json().encode())
    answers.close()
    os._exit(0)  # a library may keep threads


if __name__ == "__main__":
    main()
