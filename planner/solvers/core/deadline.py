"""Until when a solver may search: one deadline for all phases, looked at within each of them.

Code that may run long calls :meth:`Deadline.check`, which raises :class:`Expired`; a method then returns what it has
found. Libraries that cannot be asked to stop, or that look too rarely, run in a thread of their own,
which is left behind.
"""

from __future__ import annotations

import atexit
import gc
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

GRACE_S: Final = 0.1
"""How long a library may go on after it was told to stop, before it is left behind."""
LOOK_S: Final = 0.05
"""Time between two looks at whether a library should stop."""
PATIENCE_AT_EXIT_S: Final = 10.0
"""How long the end of the process waits for libraries that were left behind: they use what it would tear down."""


class Expired(Exception):  # noqa: N818  # an event in a search, no error: see :class:`Deadline`
    """The deadline has passed, or a stop was requested."""


@dataclass(frozen=True)
class Deadline:
    """The end of a search: a point in time, or earlier a stop requested from outside.

    Parameters
    ----------
    end_s
        When it passes, by the clock ``now_s``.
    stop
        Ends the search at once when set.
    now_s
        A clock in seconds that never goes back.
    """

    end_s: float = float("inf")
    stop: threading.Event = field(default_factory=threading.Event)
    now_s: Callable[[], float] = time.monotonic

    @classmethod
    def after(cls, limit_s: float, now_s: Callable[[], float] = time.monotonic) -> Deadline:
        """Return the deadline that passes ``limit_s`` seconds from now."""
        return cls(now_s() + limit_s, now_s=now_s)

    def within(self, limit_s: float) -> Deadline:
        """Return the deadline that passes ``limit_s`` seconds from now, or when this one does."""
        return Deadline(min(self.end_s, self.now_s() + limit_s), self.stop, self.now_s)

    @property
    def left_s(self) -> float:
        """Seconds left; negative after its end."""
        return self.end_s - self.now_s()

    @property
    def passed(self) -> bool:
        """Whether a search must end now."""
        return self.stop.is_set() or self.now_s() >= self.end_s

    def check(self) -> None:
        """Raise an exception if a search must end now.

        Raises
        ------
        Expired
            The deadline has passed.
        """
        if self.passed:
            raise Expired

    def watch(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield items of a long loop, and look at the deadline before each.

        Raises
        ------
        Expired
            The deadline has passed.
        """
        for item in items:
            self.check()
            yield item


NEVER: Final = Deadline()
"""A deadline that does not pass."""


def call_until(deadline: Deadline, function: Callable[[], Result], abandon: Callable[[], None]) -> Result:
    """Call ``function`` in a thread of its own, and leave it behind if it goes on after the ``deadline``.

    ``abandon`` is called when it is left behind, to make it end as soon as it can. The main thread can handle signals
    meanwhile, which it could not within a library.

    Raises
    ------
    Expired
        The function was left behind.
    """
    results: list[Result] = []
    errors: list[BaseException] = []
    done = threading.Event()

    def run() -> None:
        try:
            results.append(function())
        except BaseException as error:  # noqa: BLE001  # raised again by the caller
            errors.append(error)
        finally:
            done.set()

    thread = threading.Thread(target=run, name="solver library", daemon=True)
    thread.start()
    try:
        while not done.wait(LOOK_S):
            if deadline.passed and not done.wait(GRACE_S):
                raise Expired
        thread.join()
    except BaseException:  # also Ctrl-C
        abandon()
        _left_behind.append(thread)
        raise
    if errors:
        raise errors[0]
    return results[0]


@contextmanager
def garbage_kept() -> Iterator[None]:
    """Collect no garbage inside the context: among the millions of objects of a program that takes seconds."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


_left_behind: list[threading.Thread] = []


def runs_left_behind() -> bool:
    """Return whether a library that was left behind still runs."""
    return any(thread.is_alive() for thread in _left_behind)


@atexit.register
def _await_left_behind() -> None:
    until_s = time.monotonic() + PATIENCE_AT_EXIT_S
    for thread in _left_behind:
        thread.join(max(until_s - time.monotonic(), 0.0))
