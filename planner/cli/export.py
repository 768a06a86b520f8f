"""``planner export``: write a plan into other tools' files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import planner
from planner.cli.names import FORMATS_WRITTEN
from planner.cli.places import file_to_write
from planner.errors import UsageError


def command(
    plan: Annotated[Path, typer.Argument(help="Plan file from `planner solve`.")],
    *,
    annotate: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="ONNX file to write: the model with the plan as ONNX's multi-device annotations.",
            callback=file_to_write,
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="Model to write, if the plan uses several.")] = None,
    target_format: Annotated[
        str | None,
        typer.Option("--as", metavar="FORMAT", help=f"Write it as a schedule of {FORMATS_WRITTEN} instead."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="File of the schedule; printed by default.", callback=file_to_write
        ),
    ] = None,
    scenario: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Scenario to use instead of the plan's.")
    ] = None,
) -> None:
    """Write a plan into a model, or as another project's schedule.

    In a model, each route becomes a configuration, with workers as devices and pipeline stages.
    """
    if (annotate is None) == (target_format is None):
        raise UsageError("what to write", where="planner export", expected="either --annotate FILE or --as FORMAT")
    loaded = planner.load_plan(plan, scenario)
    if annotate is not None:
        if output is not None:
            raise UsageError("--annotate has its own file", where="--output", value=str(output), expected="--as FORMAT")
        loaded.annotate(annotate, model=model)
        typer.echo(f"wrote {annotate}")
        return
    if model is not None:
        raise UsageError("a schedule has the model of its route", where="--model", value=model, expected="--annotate")
    exported = loaded.export(str(target_format), output)
    for note in exported.notes:
        typer.echo(f"planner: note: {note}", err=True)
    typer.echo(exported.text.rstrip("\n") if output is None else f"wrote {output}")
