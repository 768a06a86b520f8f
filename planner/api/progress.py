"""Progress of long calls, reported to a callback."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

Progress = Callable[[str, float, "float | None"], None]
"""Callback ``progress(step, done, total)``: the step of the work, how much of it is done, and all of it, None where
unknown. The last call for a step has ``done`` equal to ``total``."""


class TerminalProgress:
    """Shows the progress as a bar on stderr, on a terminal only; it disappears when the step is done."""

    def __init__(self) -> None:
        self._bar: Bar | None = None

    def __call__(self, step: str, done: float, total: float | None) -> None:
        """Show that ``done`` of ``total`` of a step is done."""
        if self._bar is None:  # a bar puts its own file in the place of stderr, which may not say that it is a terminal
            if not sys.stderr.isatty():
                return
            self._bar = _new_bar()
        bar = self._bar
        task = bar.task_ids[-1] if bar.task_ids else bar.add_task(step)
        bar.update(task, description=step, completed=done, total=total)
        if done == total:
            self._bar = None
            bar.stop()


show_progress = TerminalProgress()
"""Default callback of all calls that take time."""


def _new_bar() -> Bar:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn

    bar = Progress(
        SpinnerColumn(finished_text="✓"),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    bar.start()
    return bar


@contextmanager
def reporting(progress: Progress | None, step: str) -> Iterator[Callable[[float, float | None], None]]:
    """Return a function that reports how much of a step is done; at the end, the step is reported as done.

    Parameters
    ----------
    progress
        Callback that receives the reports; None for none.
    step
        Description of the step.
    """
    if progress is None:
        yield lambda _done, _total: None
        return
    try:
        progress(step, 0, None)
        yield lambda done, total: progress(step, done, total)
    finally:
        progress(step, 1, 1)
