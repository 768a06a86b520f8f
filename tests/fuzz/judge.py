"""What may happen with malformed input: a result or a ``PlannerError``, within bounds of time, memory and text."""

from __future__ import annotations

import io
import signal
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final, NoReturn

from hypothesis import strategies as st

from planner.errors import PlannerError

MAX_CPU_S: Final = 5.0
MAX_BYTES: Final = 500 * 2**20
MAX_TEXT: Final = 20_000
"""Characters of the longest message."""

_ROOT: Final = Path(__file__).parents[2]


@dataclass(frozen=True)
class Target:
    """A reader, and malformed input for it.

    Parameters
    ----------
    cases
        The input: bytes of a file, words, or whatever ``read`` takes.
    read
        Reads a case. Only a :class:`PlannerError` may leave it, or :class:`SystemExit` with 0, 1 or 2.
    share
        Number of cases relative to other targets: fewer for a slow one.
    alone
        Whether cases are read in a process of their own, which native code may end.
    finish
        Ends what ``read`` has started; called after the last case.
    """

    name: str
    cases: st.SearchStrategy[Any]
    read: Callable[[Any], object]
    share: float = 1.0
    alone: bool = False
    finish: Callable[[], object] = lambda: None


@dataclass(frozen=True)
class Defect:
    """What a case showed: where, and how."""

    where: str
    """The innermost line of the project, or the limit that was passed: the same for all cases of one defect."""
    how: str


class TooSlowError(BaseException):
    """A case took too much time. Not an ``Exception``, which the code under test could catch."""


@dataclass(frozen=True)
class Verdict:
    """What happened with a case."""

    accepted: bool
    """Whether it is valid input after all."""
    defect: Defect | None = None


def judge(target: Target, case: Any) -> Verdict:
    """Read a case; return what happened, and what is wrong with that."""
    if target.alone:
        from tests.fuzz.child import child

        return child(target.name).judge(case)
    return judge_here(target, case)


def judge_here(target: Target, case: Any) -> Verdict:
    """Read a case in this process."""
    _reset_peak()
    before, accepted = _peak_bytes(), False
    out, told = io.StringIO(), io.StringIO()
    try:
        with _limited_time(), warnings.catch_warnings(), redirect_stdout(out), redirect_stderr(told):
            warnings.simplefilter("ignore")
            target.read(case)
    except PlannerError as error:
        found = _wordy(str(error))
    except SystemExit as end:
        accepted = not end.code
        found = _wordy(told.getvalue()) if end.code in {None, 0, 1, 2} else Defect("exit code", str(end.code))
    except (Exception, TooSlowError) as error:  # noqa: BLE001 - what is looked for
        found = Defect(f"{type(error).__name__} at {_innermost(error)}", traceback.format_exc(limit=-12))
    else:
        accepted, found = True, None
    grown = _peak_bytes() - before
    return Verdict(accepted, found or (Defect("memory", f"{grown / 2**20:.0f} MiB") if grown > MAX_BYTES else None))


def _wordy(text: str) -> Defect | None:
    return Defect("a message too long", f"{len(text)} characters: {text[:300]}") if len(text) > MAX_TEXT else None


def _innermost(error: BaseException) -> str:
    """Return the last line of the project on the way to an error."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(_ROOT / "planner")] or frames
    path = Path(own[-1].filename)
    return f"{path.relative_to(_ROOT) if path.is_relative_to(_ROOT) else path}:{own[-1].lineno}"


@contextmanager
def _limited_time() -> Iterator[None]:
    """Raise :class:`TooSlowError` after too much processor time, which other processes do not affect."""

    def stop(_number: int, _frame: FrameType | None) -> NoReturn:
        raise TooSlowError(f"more than {MAX_CPU_S:g} s of processor time")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, MAX_CPU_S, MAX_CPU_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.signal(signal.SIGPROF, before)


def _reset_peak() -> None:
    """Have Linux count the peak of this process's memory anew."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _peak_bytes() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024
