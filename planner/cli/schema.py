"""``planner schema``: the JSON Schema of a kind of file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

import planner
from planner.cli.output import print_json
from planner.cli.places import file_to_write
from planner.files import write_text_atomic


def command(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="scenario, catalogue, plan or profile.")],
    *,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write.", callback=file_to_write)
    ] = None,
) -> None:
    """Print the JSON Schema of a kind of file, by which editors complete and check it.

    Editors with a YAML language server read it from the first line of a file:

    `# yaml-language-server: $schema=scenario.schema.json`

    `planner new` writes such a line.
    """
    schema = planner.json_schema(kind)
    if output is None:
        print_json(schema)
    else:
        write_text_atomic(output, json.dumps(schema, indent=1) + "\n")
        typer.echo(f"wrote {output}")
