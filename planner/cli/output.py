"""What all commands print with: JSON alone on stdout, everything else readable, progress on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

_UNLIMITED: Final = 10_000
"""Wider than any table, in characters."""

JSON_OPTION = typer.Option(False, "--json", help="Print only JSON on stdout.")


def print_json(document: Any) -> None:
    """Print one JSON document on stdout."""
    json.dump(document, sys.stdout, indent=2, allow_nan=False)
    sys.stdout.write("\n")


def print_table(title: str, columns: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Print a table on stdout; columns whose name starts with ``>`` are aligned to the right.

    Names in the first column, and numbers, are of no use cut short. Where a terminal is too narrow for them, the titles
    of the columns are folded, and if need be lines are longer than it is wide.
    """
    cells = [[str(cell) for cell in row] for row in rows]
    table = Table(title=title, title_justify="left", title_style="bold")
    for place, column in enumerate(columns):
        right = column.startswith(">")
        whole = right or place == 0
        table.add_column(
            column.lstrip(">"),
            justify="right" if right else "left",
            no_wrap=whole,
            min_width=max((cell_len(row[place]) for row in cells), default=0) if whole else None,
            overflow="fold",
        )
    for row in cells:
        table.add_row(*row)
    console = Console(width=None if sys.stdout.isatty() else 120)
    if _width(table).maximum > console.width:
        for folded in table.columns:
            folded.header = "\n".join(str(folded.header).rsplit(" ", 1))
    if _width(table).minimum > console.width:
        table.padding = (0, 0)
        console.width = max(console.width, _width(table).minimum)
    console.print(table)


def _width(table: Table) -> Measurement:
    unlimited = Console(width=_UNLIMITED)
    return Measurement.get(unlimited, unlimited.options, table)


def milliseconds(time_s: float | None) -> str:
    """Give a time for people; a dash where there is none."""
    return "–" if time_s is None else f"{time_s * 1e3:.1f} ms"


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Give a progress bar on stderr; it shows on a terminal only."""
    with Progress(
        SpinnerColumn(finished_text="✓"),
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
        transient=True,
    ) as progress:
        yield progress


@contextmanager
def progress_line() -> Iterator[Callable[[str], None]]:
    """Give what writes a line on stderr over the one before; on a terminal only."""
    with Console(stderr=True, quiet=not sys.stderr.isatty()).status("") as status:
        yield status.update
