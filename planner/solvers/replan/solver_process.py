"""A process that solves for this one, see :mod:`planner.solvers.replan.worker`, and the spare one for whoever is next.

A process that its user no longer needs waits for the next one: to import the libraries of solvers takes longer than
most searches. There is one spare at most. It ends by itself when nobody needs it for a while.
"""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from typing import Final

from planner.base import FrozenModel
from planner.solvers.replan.worker import IDLE_S, RELEASE, as_line

_COMMAND: Final = (sys.executable, "-m", "planner.solvers.replan.worker")

_GRACE_S: Final = 5.0
"""How long to wait for the end of a process that has closed its output."""


class FailedError(Exception):
    """The process gave no answer."""


class SolverProcess:
    """One process; only :meth:`kill` may be called from any thread.

    Raises
    ------
    OSError
        If it cannot be started.
    """

    def __init__(self) -> None:
        self._killed = False
        self._until_s = 0.0
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
    def pid(self) -> int:
        """Its id."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self._process.poll() is not None

    @property
    def lasts(self) -> bool:
        """Whether it waits for its next user, and will not end by itself right now."""
        return not self.ended and time.monotonic() < self._until_s

    def kill(self) -> None:
        """End it, even during a search."""
        self._killed = True
        self._process.kill()

    def close(self) -> None:
        """End it, and wait for that."""
        self.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            if stream is not None:
                with suppress(OSError):  # closing flushes data that the process did not read
                    stream.close()

    def ask(self, *requests: FrozenModel, patience_s: float) -> bytes:
        """Return the answer to the last of these requests, a line of JSON.

        Raises
        ------
        FailedError
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
            line = self._exchange(b"".join(map(as_line, requests)))
        except OSError:  # the process has ended
            line = b""
        finally:
            timer.cancel()
        if hung.is_set():
            raise FailedError(f"the solver gave no answer within {patience_s:g} s")
        if not line.endswith(b"\n"):
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_GRACE_S)
            raise FailedError(f"the solver's process ended ({self._process.returncode}){self._end_of_log()}")
        return line

    def release(self) -> None:
        """Keep it for the next user; call this between two requests only."""
        self._until_s = time.monotonic() + IDLE_S / 2
        try:
            self._write(RELEASE)
        except OSError:
            self._killed = True  # or it crashed
        if self._killed:
            self.close()
            return
        with _changing:
            surplus = _spares.copy()
            _spares[:] = [self]
        for process in surplus:
            process.close()

    def _exchange(self, lines: bytes) -> bytes:
        self._write(lines)
        return self._process.stdout.readline() if self._process.stdout is not None else b""

    def _write(self, lines: bytes) -> None:
        if self._process.stdin is not None:
            self._process.stdin.write(lines)
            self._process.stdin.flush()

    def _end_of_log(self) -> str:
        self._log.seek(0)
        text = self._log.read().decode(errors="replace").strip()
        return f": {text[-500:]}" if text else ""


_spares: list[SolverProcess] = []
_changing = threading.Lock()


def solver_process() -> SolverProcess:
    """Return the spare process, or start one.

    Raises
    ------
    OSError
        If it cannot be started.
    """
    with _changing:
        spares = _spares.copy()
        _spares.clear()
    for process in spares:
        if process.lasts:
            return process
        process.close()
    return SolverProcess()


def spare_process() -> SolverProcess | None:
    """Return the process that waits for its next user."""
    return next(iter(_spares), None)


@atexit.register
def end_spare() -> None:
    """End the process that waits for its next user."""
    with _changing:
        spares = _spares.copy()
        _spares.clear()
    for process in spares:
        process.close()


os.register_at_fork(after_in_child=_spares.clear)  # it belongs to the parent
