"""``planner report``: show plans and runs as one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import planner
from planner.cli.places import file_to_write
from planner.errors import UsageError


def command(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...",
            help="Plan files, folders of `planner simulate -o` and `planner validate -o`, traces (.jsonl).",
        ),
    ],
    *,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="HTML file to write.", callback=file_to_write),
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write the traces for Perfetto and Chrome, too (JSON).", callback=file_to_write
        ),
    ] = None,
    scenario: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Scenario to use instead of that of plan files.")
    ] = None,
) -> None:
    """Show plans and runs side by side as one HTML page that needs no other file and contacts nobody.

    It has routes, timelines, delays predicted and measured, legs, queues, the solver's bound over time, the verdict,
    where the costs come from, and commands and hashes.
    """
    if output is None and trace is None:
        raise UsageError("what to write", where="planner report", expected="-o FILE, --trace FILE, or both")
    planner.write_report(runs, output, trace=trace, scenario=scenario)
    typer.echo(f"wrote {' and '.join(str(path) for path in (output, trace) if path is not None)}")
