"""The process that solves again while a run goes on: lines of JSON in, lines of JSON out.

The first line is a :class:`Task`, each one after it a :class:`~planner.plan.replan.Situation`; each of those is
answered by a :class:`Found`. The process ends when its standard input does, as when its parent is killed. Whatever a
solver library prints goes to the standard error.
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


class Task(FrozenModel):
    """What is solved again, each time for so long at most."""

    instance: Instance
    plan: PlanSpec
    time_limit_s: float


class Found(FrozenModel):
    """A plan, or None where there is none; ``failure`` says why the solver failed, ``trace`` where if unforeseen."""

    plan: PlanSpec | None = None
    failure: str = ""
    trace: str = ""


def as_line(record: FrozenModel) -> bytes:
    """Give a message as it is sent."""
    return record.model_dump_json().encode() + b"\n"


def main() -> None:
    """Serve until the standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this process
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    logging.basicConfig()
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_serve_or_end, args=(lines, answers), name="solve", daemon=True).start()
    for line in sys.stdin.buffer:
        lines.put(line)
    os._exit(0)  # even from the middle of a search


def _serve_or_end(lines: queue.SimpleQueue[bytes], answers: BinaryIO) -> None:
    """Serve; a parent that cannot be understood or answered is told by the end of this process."""
    try:
        _serve(lines, answers)
    except Exception:  # noqa: BLE001 - whatever it is
        _LOG.exception("nothing can be solved")
    os._exit(1)


def _serve(lines: queue.SimpleQueue[bytes], answers: BinaryIO) -> None:
    try:
        warm_up()
    except ImportError:
        _LOG.exception("the solver's library cannot be loaded")  # and each search will say so
    task = Task.model_validate_json(lines.get())
    while True:
        answers.write(as_line(_found(task, Situation.model_validate_json(lines.get()))))


def _found(task: Task, situation: Situation) -> Found:
    try:
        return Found(plan=solve_again(task.instance, task.plan, situation, task.time_limit_s))
    except PlannerError as error:
        return Found(failure=str(error))
    except Exception as error:  # noqa: BLE001 - the next situation may be one that it can solve
        return Found(failure=f"{type(error).__name__}: {error}", trace=traceback.format_exc())


if __name__ == "__main__":
    main()
