"""Solving again while a run goes on, in a process of its own: see :mod:`planner.solvers.replan.worker`.

Solvers are heavy on processors and on what belongs to a whole process: its file descriptors, its signals, its number of
threads. In a process of their own they can neither hold up a run nor take it with them.
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
from planner.solvers.replan.worker import Found, Task, as_line

_LOG = logging.getLogger(__name__)

PATIENCE_S: Final = 30.0
"""What a search may take beyond its time limit, the start of its process included, before it counts as hung."""

_GRACE_S: Final = 5.0
_COMMAND: Final = (sys.executable, "-m", "planner.solvers.replan.worker")


class ReplanProcess:
    """Has a plan solved again in a process that is started at once; it remembers what was found before.

    What is asked for replaces what has not begun. A search that has begun goes on to its end: it is short, and its plan
    may be asked for again. A process that ends or hangs is answered as a failure and replaced.

    Parameters
    ----------
    plan
        The plan for all workers.
    take
        Takes the answers, in a thread of this object's.
    """

    def __init__(
        self,
        instance: Instance,
        plan: PlanSpec,
        take: TakeAnswer,
        *,
        time_limit_s: float = TIME_LIMIT_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._task = Task(instance=instance, plan=plan, time_limit_s=time_limit_s)
        self._take = take
        self._patience_s = time_limit_s + patience_s
        self._changed = threading.Condition()
        """Guards the four below."""
        self._waiting: Situation | None = None
        self._solving: Situation | None = None
        self._child: _Child | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="replan", daemon=True)
        self._thread.start()

    def request(self, situation: Situation) -> None:
        """Ask for a plan, in place of what is asked already and has not begun; returns at once."""
        with self._changed:
            self._waiting = situation if situation != self._solving else None
            self._changed.notify()

    def close(self) -> None:
        """End the process, whatever it is solving; nothing is answered any more."""
        with self._changed:
            self._closed = True
            self._changed.notify()
            if self._child is not None:
                self._child.kill()
        self._thread.join(_GRACE_S)

    def _serve(self) -> None:
        known: dict[Situation, PlanSpec | None] = {Situation(): self._task.plan}
        try:
            with suppress(OSError):  # what is asked for first will say why
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
        except Exception as error:  # noqa: BLE001 - the next situation may be one that can be solved
            _LOG.exception("the solver cannot be asked")
            return ReplanAnswer(situation, failure=f"{type(error).__name__}: {error}")
        return ReplanAnswer(situation, known[situation])

    def _next(self) -> Situation | None:
        """Wait for what is asked for; None at the end."""
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
            found = self._child.solve(situation, self._patience_s)
        except _FailedError:
            with suppress(OSError):
                self._replace_child()
            raise
        if found.trace:
            _LOG.error("the solver fails: %s", found.trace)
        if found.failure:
            raise _FailedError(found.failure)
        return found.plan

    def _replace_child(self) -> None:
        with self._changed:
            child, self._child = self._child, None
        if child is not None:
            child.close()
        with self._changed:
            if not self._closed:
                self._child = _Child(self._task)


class _FailedError(Exception):
    """Why there is no answer."""


class _Child:
    """One process; all but :meth:`kill` is for one thread."""

    def __init__(self, task: Task) -> None:
        self._task: Task | None = task  # to be sent
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with this object
        try:
            # In a session of its own it gets no Ctrl-C from the terminal.
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
                with suppress(OSError):  # what it had not read
                    stream.close()

    def solve(self, situation: Situation, patience_s: float) -> Found:
        """Have a situation solved.

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
        except OSError:  # it reads no more
            line = b""
        finally:
            timer.cancel()
        if hung.is_set():
            raise _FailedError(f"the solver gave no answer within {patience_s:g} s")
        if not line.endswith(b"\n"):
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_GRACE_S)
            raise _FailedError(f"the solver's process ended ({self._process.returncode}){self._last_words()}")
        try:
            return Found.model_validate_json(line)
        except ValidationError as error:
            raise _FailedError(f"the solver's answer cannot be read: {error.errors()[0]['msg']}") from error

    def _exchange(self, situation: Situation) -> bytes:
        to, back = self._process.stdin, self._process.stdout
        if to is None or back is None:
            return b""
        if self._task is not None:
            to.write(as_line(self._task))
            self._task = None
        to.write(as_line(situation))
        to.flush()
        return back.readline()

    def _last_words(self) -> str:
        self._log.seek(0)
        said = self._log.read().decode(errors="replace").strip()
        return f": {said[-500:]}" if said else ""
