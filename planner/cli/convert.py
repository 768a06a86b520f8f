"""``planner convert``: make a scenario of another project's files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import planner
from planner.cli.names import FORMATS_READ
from planner.cli.output import JSON_OPTION, print_json
from planner.cli.places import folder_to_write
from planner.errors import UsageError


def command(
    files: Annotated[list[Path], typer.Argument(help="Files of the other project.")],
    *,
    source_format: Annotated[str, typer.Option("--from", metavar="FORMAT", help=f"One of {FORMATS_READ}.")],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="Folder to write scenario.yaml and its profiles to.",
            callback=folder_to_write,
        ),
    ],
    values: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Value that the format needs, see docs/interchange.md."),
    ] = None,
    json: bool = JSON_OPTION,
) -> None:
    """Make a scenario of another project's files, with profiles, and say what it cannot hold."""
    options: dict[str, str] = {}
    for text in values or ():
        name, equals, value = text.partition("=")
        if not equals or name in options:
            what = "given twice" if equals else "not a value"
            raise UsageError(what, where="--set", value=text, expected="NAME=VALUE, each name once")
        options[name] = value
    conversion = planner.convert(source_format, files, output, **options)
    if json:
        print_json(conversion.to_dict())
        return
    for note in conversion.notes:
        typer.echo(f"planner: note: {note}", err=True)
    typer.echo(f"wrote {conversion.scenario.path}")
