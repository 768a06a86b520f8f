"""The process that solves for another one: lines of JSON in, lines of JSON out.

A line is a :class:`Request`. A :class:`ReplanTask` is not answered; each :class:`~planner.plan.replan.Situation` that
follows is, by a :class:`ReplanResult`. A :class:`SolveTask` is answered by a :class:`SolveAnswer`. The process ends
when its standard input ends, also if its parent is killed, and when it has had nothing to do for a while after it was
released. Output of solver libraries is redirected to standard error.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import sys
import threading
import traceback
from typing import BinaryIO, Final

from planner.base import FrozenModel
from planner.errors import PlannerError
from planner.plan.replan import Situation
from planner.plan.types import PlanSpec, Status
from planner.scenario.instance import Instance
from planner.solvers.replan.replanner import solve_again, warm_up
from planner.solvers.solve import Routes, solve

_LOG = logging.getLogger(__name__)

IDLE_S: Final = 60.0
"""How long a process that was released waits for something to do."""


class ReplanTask(FrozenModel):
    """The instance and the plan for all workers, and the time limit of each search."""

    instance: Instance
    plan: PlanSpec
    time_limit_s: float


class SolveTask(FrozenModel):
    """What to solve; the options are those of :func:`planner.solvers.solve.solve`."""

    instance: Instance
    start: PlanSpec | None = None
    method: str = "auto"
    routes: Routes | None = None
    time_limit_s: float = 60.0
    gap: float = 1e-4


class Request(FrozenModel):
    """One of these; none of them if the process is released."""

    replan: ReplanTask | None = None
    situation: Situation | None = None
    solve: SolveTask | None = None


class ReplanResult(FrozenModel):
    """Result for a situation.

    Parameters
    ----------
    plan
        None if there is no plan or the solver failed.
    failure
        Why the solver failed; empty if it did not.
    trace
        Traceback of an unexpected failure.
    """

    plan: PlanSpec | None = None
    failure: str = ""
    trace: str = ""


class FaultText(FrozenModel):
    """A :class:`~planner.errors.Fault`; any value is text."""

    what: str
    where: str | None
    value: str | None
    expected: str | None


class SolveAnswer(FrozenModel):
    """A :class:`~planner.solvers.core.solution.Solution`, or why there is none."""

    status: Status = "no_solution"
    plan: PlanSpec | None = None
    reasons: tuple[str, ...] = ()
    faults: tuple[FaultText, ...] = ()
    trace: str = ""


def as_line(record: FrozenModel) -> bytes:
    """Return the line of JSON of a message."""
    return record.model_dump_json().encode() + b"\n"


RELEASE: Final = as_line(Request())


def main() -> None:
    """Answer requests until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C and ends this process
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    logging.basicConfig()
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_serve_or_end, args=(lines, answers), name="solve", daemon=True).start()
    for line in sys.stdin.buffer:
        lines.put(line)
    os._exit(0)  # even during a search


def _serve_or_end(lines: queue.SimpleQueue[bytes], answers: BinaryIO) -> None:
    """Answer requests; end the process if a request cannot be read or answered, which the parent notices."""
    try:
        _serve(lines, answers)
    except queue.Empty:
        os._exit(0)
    except Exception:  # noqa: BLE001 - whatever it is, the process is of no more use
        _LOG.exception("the request cannot be read or answered")
    os._exit(1)


def _serve(lines: queue.SimpleQueue[bytes], answers: BinaryIO) -> None:
    try:
        warm_up()
    except ImportError:
        _LOG.exception("the solver library cannot be imported")  # each search will fail and report it
    task, patience_s = None, None
    while True:
        request = Request.model_validate_json(lines.get(timeout=patience_s))
        task = request.replan or task
        patience_s = None
        if request.situation is not None and task is not None:
            answers.write(as_line(_plan_again(task, request.situation)))
        elif request.solve is not None:
            answers.write(as_line(_solve(request.solve)))
        elif request.replan is None:
            task, patience_s = None, IDLE_S


def _plan_again(task: ReplanTask, situation: Situation) -> ReplanResult:
    try:
        return ReplanResult(plan=solve_again(task.instance, task.plan, situation, task.time_limit_s))
    except PlannerError as error:
        return ReplanResult(failure=str(error))
    except Exception as error:  # noqa: BLE001 - the next situation may be solvable
        return ReplanResult(failure=f"{type(error).__name__}: {error}", trace=traceback.format_exc())


def _solve(task: SolveTask) -> SolveAnswer:
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
            FaultText(
                what=each.what,
                where=each.where,
                value=None if each.value is None else str(each.value),
                expected=each.expected,
            )
            for each in error.faults
        ]
        return SolveAnswer(faults=tuple(found))
    except Exception:  # noqa: BLE001 - told to who asked
        return SolveAnswer(trace=traceback.format_exc())
    return SolveAnswer(status=solution.status, plan=solution.plan, reasons=solution.reasons)


if __name__ == "__main__":
    main()
