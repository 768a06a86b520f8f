"""``planner export``: write a plan into other tools' files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import planner
from planner.cli.places import file_to_write


def command(
    plan: Annotated[Path, typer.Argument(help="Plan file from `planner solve`.")],
    *,
    annotate: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="ONNX file to write: the model with the plan as ONNX's multi-device annotations.",
            callback=file_to_write,
        ),
    ],
    model: Annotated[str | None, typer.Option(metavar="NAME", help="Model to write, if the plan uses several.")] = None,
    scenario: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Scenario to use instead of the plan's.")
    ] = None,
) -> None:
    """Write a plan into a model: one configuration for each route, with workers as devices and pipeline stages."""
    planner.load_plan(plan, scenario).annotate(annotate, model=model)
    typer.echo(f"wrote {annotate}")
