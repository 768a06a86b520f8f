"""``planner split``: stage models of a model, and whether they give what it gives."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import planner
from planner.cli.output import JSON_OPTION, print_json, print_summary
from planner.cli.places import folder_to_write
from planner.cli.shape import FINEST_OPTION, MAX_BLOCKS_OPTION, SHAPE_OPTION, parse_shapes
from planner.errors import UsageError


def command(
    model: Annotated[Path, typer.Argument(help="ONNX model.")],
    *,
    cuts: Annotated[str, typer.Option(help="Cut points to split at, as `planner inspect` numbers them: 3,7.")],
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", help="Folder for the stage models and their manifest.", callback=folder_to_write
        ),
    ],
    max_blocks: int = MAX_BLOCKS_OPTION,
    finest: bool = FINEST_OPTION,
    shape: list[str] | None = SHAPE_OPTION,
    inputs: Annotated[Path | None, typer.Option(help="Inputs for the check, .npz by name.  [random]")] = None,
    check: Annotated[bool, typer.Option(help="Compare the stages, chained, with the whole model.")] = True,
    json: bool = JSON_OPTION,
) -> None:
    """Split a model into stage models, and check that chained they give its outputs."""
    stages = planner.split(
        model,
        cuts=_parse_cuts(cuts),
        folder=output,
        max_blocks=None if finest else max_blocks,
        shape=parse_shapes(shape),
        check=check,
        inputs=inputs,
    )
    if json:
        print_json(stages.to_dict())
    else:
        print_summary(stages)
    if stages.passed is False:
        raise typer.Exit(1)


def _parse_cuts(text: str) -> list[int]:
    words = [word.strip() for word in text.split(",")]
    wrong = [word for word in words if not word.isdecimal()]
    if wrong:
        raise UsageError("no such cut", where="--cuts", value=wrong[0], expected="inner cuts of the chain, as in 3,7")
    return [int(word) for word in words]
