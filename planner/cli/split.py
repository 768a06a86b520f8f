"""``planner split``: split a model into stage models and check them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import planner
from planner.cli.output import JSON_OPTION, print_json, print_summary
from planner.cli.places import folder_to_write
from planner.cli.shape import (
    AXIS_OPTION,
    FINEST_OPTION,
    INPUTS_OPTION,
    LAYER_OPTION,
    MAX_BLOCKS_OPTION,
    SHAPE_OPTION,
    STATE_OPTION,
    parse_axes,
    parse_shapes,
    parse_state,
    print_axes,
)
from planner.errors import UsageError


def command(
    model: Annotated[Path, typer.Argument(help="ONNX model.")],
    *,
    cuts: Annotated[str, typer.Option(help="Cut points to split at, numbered as by `planner inspect`, such as 3,7.")],
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", help="Folder to write the stage models and their manifest to.", callback=folder_to_write
        ),
    ],
    max_blocks: int = MAX_BLOCKS_OPTION,
    finest: bool = FINEST_OPTION,
    shape: list[str] | None = SHAPE_OPTION,
    axis: list[str] | None = AXIS_OPTION,
    layer_assignment: str = LAYER_OPTION,
    state: list[str] | None = STATE_OPTION,
    inputs: Path | None = INPUTS_OPTION,
    check: Annotated[bool, typer.Option(help="Compare the chained stages with the whole model.")] = True,
    json: bool = JSON_OPTION,
) -> None:
    """Split a model into stage models; check that the chained stages produce the same outputs."""
    blocks = None if finest else max_blocks
    shapes, axes = parse_shapes(shape), parse_axes(axis)
    chain_model = planner.load_chain(
        model, max_blocks=blocks, shape=shapes, axes=axes, layer_assignment=layer_assignment, state=parse_state(state)
    )
    print_axes(chain_model)
    numbers = _parse_cuts(cuts, len(chain_model.chain) - 1)
    stages = planner.split(chain_model, cuts=numbers, folder=output, check=check, inputs=inputs)
    if json:
        print_json(stages.to_dict())
    else:
        print_summary(stages)
    if stages.passed is False:
        raise typer.Exit(1)


def _parse_cuts(text: str, last: int) -> list[int]:
    words = [word.strip() for word in text.split(",")]
    wrong = [word for word in words if not word.isdecimal()]
    if wrong:
        expected = f"inner cuts of the chain, 1 to {last}, as in 3,7"
        raise UsageError("no such cut", where="--cuts", value=wrong[0], expected=expected)
    return [int(word) for word in words]
