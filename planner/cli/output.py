"""Output of all commands: JSON or text on stdout, progress on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn

from planner.errors import PlannerError
from planner.tables import WIDTH, Printable, Table, make_console, print_content

JSON_OPTION = typer.Option(False, "--json", help="Print only JSON on stdout.")


def print_json(document: Any) -> None:
    """Print one JSON document on stdout."""
    json.dump(document, sys.stdout, indent=2, allow_nan=False)
    sys.stdout.write("\n")


def print_table(title: str, columns: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Print a table on stdout; columns whose name starts with ``>`` are aligned to the right."""
    print_content(Table(title, list(columns), [list(row) for row in rows]), _console())


def print_summary(printable: Printable) -> None:
    """Print the tables and lines that describe an object on stdout."""
    print_contents(printable.contents())


def print_contents(contents: Iterable[Table | str]) -> None:
    """Print tables and lines on stdout."""
    console = _console()
    for content in contents:
        print_content(content, console)


def _console() -> Console:
    return make_console(width=None if sys.stdout.isatty() else WIDTH)


def echo_faults(error: PlannerError) -> None:
    """Print the faults of an error on stderr, one per line."""
    for fault in error.faults:
        typer.echo(f"planner: error: {fault}", err=True)


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Yield a progress bar on stderr, shown only on a terminal."""
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
