"""The process that re-plans during a run: lines of JSON in, lines of JSON out.

The first line is a :class:`ReplanTask`, each further one a :class:`~planner.plan.replan.Situation`, which is answered
by a :class:`ReplanResult`. The process ends when its standard input ends, also if its parent is killed. Output of
solver libraries is redirected to standard error.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import sys
import threading
import traceback
from typing import BinaryIO

from planner.base import FrozenModel
from planner.errors import PlannerError
from planner.plan.replan import Situation
from planner.plan.types import PlanSpec
from planner.scenario.instance import Instance
from planner.solvers.replan.replanner import solve_again, warm_up

_LOG = logging.getLogger(__name__)


class ReplanTask(FrozenModel):
    """The instance and the plan for all workers, and the time limit of each search."""

    instance: Instance
    plan: PlanSpec
    time_limit_s: float


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


def as_line(record: FrozenModel) -> bytes:
    """Return the line of JSON of a message."""
    return record.model_dump_json().encode() + b"\n"


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
    except Exception:  # noqa: BLE001 - whatever it is, the process is of no more use
        _LOG.exception("the request cannot be read or answered")
    os._exit(1)


def _serve(lines: queue.SimpleQueue[bytes], answers: BinaryIO) -> None:
    try:
        warm_up()
    except ImportError:
        _LOG.exception("the solver library cannot be imported")  # each search will fail and report it
    task = ReplanTask.model_validate_json(lines.get())
    while True:
        answers.write(as_line(_solve(task, Situation.model_validate_json(lines.get()))))


def _solve(task: ReplanTask, situation: Situation) -> ReplanResult:
    try:
        return ReplanResult(plan=solve_again(task.instance, task.plan, situation, task.time_limit_s))
    except PlannerError as error:
        return ReplanResult(failure=str(error))
    except Exception as error:  # noqa: BLE001 - the next situation may be solvable
        return ReplanResult(failure=f"{type(error).__name__}: {error}", trace=traceback.format_exc())


if __name__ == "__main__":
    main()
