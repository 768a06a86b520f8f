"""Re-planning in real time by a separate process, see :mod:`planner.solvers.replan.worker`.

Solvers use much processor time and change state of the whole process: file descriptors, signals, number of threads. In
a separate process they can neither delay a run nor crash it.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from typing import Final

from pydantic import ValidationError

from planner.plan.replan import ReplanAnswer, Situation, TakeAnswer
from planner.plan.types import PlanSpec
from planner.scenario.instance import Instance
from planner.solvers.replan.replanner import TIME_LIMIT_S
from planner.solvers.replan.worker import ReplanResult, ReplanTask, as_line

_LOG = logging.getLogger(__name__)

HANG_LIMIT_S: Final = 30.0
"""Time beyond its time limit, including the start of the process, after which a search counts as hung."""

_GRACE_S: Final = 5.0
"""How long to wait for the end of a process or thread that was told to end."""
_COMMAND: Final = (sys.executable, "-m", "planner.solvers.replan.worker")


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
        """Guards the next four attributes."""
        self._waiting: Situation | None = None
        self._solving: Situation | None = None
        self._child: _Child | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="replan", daemon=True)
        self._thread.start()

    def request(self, situation: Situation) -> None:
        """Request a plan, which replaces a request that has not started; return at once."""
        with self._changed:
            self._waiting = situation if situation != self._solving else None
            self._changed.notify()

    def close(self) -> None:
        """End the process, even during a search; there are no further answers."""
        with self._changed:
            self._closed = True
            self._changed.notify()
            if self._child is not None:
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
            if self._child is not None:
                self._child.close()

    def _answer(self, situation: Situation, known: dict[Situation, PlanSpec | None]) -> ReplanAnswer:
        try:
            if situation not in known:
                known[situation] = self._solve(situation)
        except _FailedError as error:
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
            raise _FailedError("the run is over")
        try:
            result = self._child.solve(situation, self._patience_s)
        except _FailedError:
            with suppress(OSError):
                self._replace_child()
            raise
        if result.trace:
            _LOG.error("the solver failed: %s", result.trace)
        if result.failure:
            raise _FailedError(result.failure)
        return result.plan

    def _replace_child(self) -> None:
        with self._changed:
            child, self._child = self._child, None
        if child is not None:
            child.close()
        with self._changed:
            if not self._closed:
                self._child = _Child(self._task)


class _FailedError(Exception):
    """The process gave no result."""


class _Child:
    """One process; only :meth:`kill` may be called from any thread."""

    def __init__(self, task: ReplanTask) -> None:
        self._task: ReplanTask | None = task  # until it is sent
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with this object
        try:
            # In a new session it receives no Ctrl-C from the terminal.
            self._process = subprocess.Popen(
                _COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, start_new_session=True
            )
        except OSError:
            self._log.close()
            raise

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def kill(self) -> None:
        self._process.kill()

    def close(self) -> None:
        self.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            if stream is not None:
                with suppress(OSError):  # closing flushes data that the process did not read
                    stream.close()

    def solve(self, situation: Situation, patience_s: float) -> ReplanResult:
        """Return the result of a situation.

        Raises
        ------
        _FailedError
            The process ended, or took longer than ``patience_s``.
        """
        hung = threading.Event()

        def end() -> None:
            hung.set()
            self.kill()

        timer = threading.Timer(patience_s, end)
        timer.daemon = True
        timer.start()
        try:
            line = self._exchange(situation)
        except OSError:  # the process has ended
            line = b""
        finally:
            timer.cancel()
        if hung.is_set():
            raise _FailedError(f"the solver gave no answer within {patience_s:g} s")
        if not line.endswith(b"\n"):
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_GRACE_S)
            raise _FailedError(f"the solver's process ended ({self._process.returncode}){self._end_of_log()}")
        try:
            return ReplanResult.model_validate_json(line)
        except ValidationError as error:
            raise _FailedError(f"the solver's answer cannot be read: {error.errors()[0]['msg']}") from error

    def _exchange(self, situation: Situation) -> bytes:
        requests, results = self._process.stdin, self._process.stdout
        if requests is None or results is None:
            return b""
        if self._task is not None:
            requests.write(as_line(self._task))
            self._task = None
        requests.write(as_line(situation))
        requests.flush()
        return results.readline()

    def _end_of_log(self) -> str:
        self._log.seek(0)
        text = self._log.read().decode(errors="replace").strip()
        return f": {text[-500:]}" if text else ""
