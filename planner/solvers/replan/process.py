"""Re-planning in real time by a separate process, see :mod:`planner.solvers.replan.worker`.

Solvers use much processor time and change state of the whole process: file descriptors, signals, number of threads. In
a separate process they can neither delay a run nor crash it. After the run the process is there for the next one.
"""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from typing import Final

from pydantic import ValidationError

from planner.plan.replan import ReplanAnswer, Situation, TakeAnswer
from planner.plan.types import PlanSpec
from planner.scenario.instance import Instance
from planner.solvers.replan.replanner import TIME_LIMIT_S
from planner.solvers.replan.solver_process import FailedError, SolverProcess, solver_process
from planner.solvers.replan.worker import ReplanResult, ReplanTask, Request

_LOG = logging.getLogger(__name__)

HANG_LIMIT_S: Final = 30.0
"""Time beyond its time limit, including the start of the process, after which a search counts as hung."""

_GRACE_S: Final = 5.0
"""How long to wait for the end of a thread that was told to end."""


class ReplanProcess:
    """Re-plans in a process that is started at once, and caches the plan of each situation.

    A new request replaces one that has not started. A search that has started runs to its end: it is short, and its
    plan may be requested again. If the process ends or hangs, the answer is a failure, and the process is replaced.

    Parameters
    ----------
    plan
        The plan for all workers.
    take
        Receives the answers, in a thread of this object.
    time_limit_s
        Time limit of a search.
    patience_s
        Time beyond the limit after which a search counts as hung.
    """

    def __init__(
        self,
        instance: Instance,
        plan: PlanSpec,
        take: TakeAnswer,
        *,
        time_limit_s: float = TIME_LIMIT_S,
        patience_s: float = HANG_LIMIT_S,
    ) -> None:
        self._task = ReplanTask(instance=instance, plan=plan, time_limit_s=time_limit_s)
        self._take = take
        self._patience_s = time_limit_s + patience_s
        self._changed = threading.Condition()
        """Guards the next five attributes."""
        self._waiting: Situation | None = None
        self._solving: Situation | None = None
        self._child: SolverProcess | None = None
        self._told = False
        """Whether the process has the task."""
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="replan", daemon=True)
        self._thread.start()

    def request(self, situation: Situation) -> None:
        """Request a plan, which replaces a request that has not started; return at once."""
        with self._changed:
            self._waiting = situation if situation != self._solving else None
            self._changed.notify()

    def close(self) -> None:
        """End a search, with the process; there are no further answers."""
        with self._changed:
            self._closed = True
            self._changed.notify()
            if self._child is not None and self._solving is not None:
                self._child.kill()
        self._thread.join(_GRACE_S)

    def _serve(self) -> None:
        known: dict[Situation, PlanSpec | None] = {Situation(): self._task.plan}
        try:
            with suppress(OSError):  # the first request reports the reason
                self._replace_child()
            while (situation := self._next()) is not None:
                answer = self._answer(situation, known)
                with self._changed:
                    self._solving = None
                    if self._closed:
                        return
                self._take(answer)
        finally:
            with self._changed:
                child, self._child = self._child, None
            if child is not None:
                child.release()

    def _answer(self, situation: Situation, known: dict[Situation, PlanSpec | None]) -> ReplanAnswer:
        try:
            if situation not in known:
                known[situation] = self._solve(situation)
        except FailedError as error:
            return ReplanAnswer(situation, failure=str(error))
        except Exception as error:  # noqa: BLE001 - the next situation may be solvable
            _LOG.exception("the solver process failed")
            return ReplanAnswer(situation, failure=f"{type(error).__name__}: {error}")
        return ReplanAnswer(situation, known[situation])

    def _next(self) -> Situation | None:
        """Wait for a request and return it; None after :meth:`close`."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._waiting is not None)
            self._solving, self._waiting = self._waiting, None
            return None if self._closed else self._solving

    def _solve(self, situation: Situation) -> PlanSpec | None:
        if self._child is None or self._child.ended:
            self._replace_child()
        if self._child is None:
            raise FailedError("the run is over")
        task = [] if self._told else [Request(replan=self._task)]
        try:
            line = self._child.ask(*task, Request(situation=situation), patience_s=self._patience_s)
        except FailedError:
            with suppress(OSError):
                self._replace_child()
            raise
        self._told = True
        try:
            result = ReplanResult.model_validate_json(line)
        except ValidationError as error:
            raise FailedError(f"the solver's answer cannot be read: {error.errors()[0]['msg']}") from error
        if result.trace:
            _LOG.error("the solver failed: %s", result.trace)
        if result.failure:
            raise FailedError(result.failure)
        return result.plan

    def _replace_child(self) -> None:
        with self._changed:
            child, self._child = self._child, None
        if child is not None:
            child.close()
        with self._changed:
            if not self._closed:
                self._child, self._told = solver_process(), False
