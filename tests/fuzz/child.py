"""A process that judges cases of a target whose native code could end it."""

from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection
from typing import Any, Final

from tests.fuzz.judge import Defect, Verdict, judge_here
from tests.fuzz.targets import target

_LONGEST_S: Final = 60.0
"""Time after which native code that does not return is ended; much more than the limit of processor time."""


class Child:
    """The process of one target; a new one takes the place of one that has died."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=serve, args=(other, self._name), daemon=True)
        self._process.start()
        other.close()

    def judge(self, case: Any) -> Verdict:
        """Return what the process finds, or how it died."""
        try:
            self._connection.send(case)
            if self._connection.poll(_LONGEST_S):
                found: Verdict = self._connection.recv()
                return found
            defect = Defect("native code that does not return", f"{_LONGEST_S:g} s")
        except (EOFError, OSError):
            self._process.join(_LONGEST_S)
            defect = Defect("the process died", f"exit code {self._process.exitcode}")
        self.close()
        self._start()
        return Verdict(accepted=False, defect=defect)

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        self._process.kill()
        self._process.join()


_children: Final[dict[str, Child]] = {}


def child(name: str) -> Child:
    """Return the process of a target, started at the first use."""
    if name not in _children:
        _children[name] = Child(name)
    return _children[name]


def close_all() -> None:
    """End all these processes."""
    while _children:
        _children.popitem()[1].close()


def serve(connection: Connection, name: str) -> None:
    """Judge cases until the connection closes."""
    own = target(name)
    while True:
        try:
            case = connection.recv()
        except EOFError:
            return
        connection.send(judge_here(own, case))
