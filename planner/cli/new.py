"""``planner new``: a scenario to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import planner


def command(
    folder: Annotated[Path, typer.Argument(metavar="NAME", help="Folder to create.")],
    *,
    example: Annotated[
        str, typer.Option("--from", metavar="EXAMPLE", help="Example to copy: two-cameras, jetsons, tokens or exits.")
    ] = "two-cameras",
) -> None:
    """Write a commented scenario to start from, and say which commands lead to a plan.

    The first line of the scenario names its JSON Schema, by which an editor with a YAML language server completes and
    checks it.
    """
    written = planner.new(folder, example)
    for path in written.files:
        typer.echo(f"wrote {path}")
    typer.echo("\nnext:")
    for step in (f"cd {folder}", *written.steps):
        typer.echo(f"  {step}")
