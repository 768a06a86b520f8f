"""``planner inspect``: show the chain of blocks of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import planner
from planner.cli.output import JSON_OPTION, print_json, print_summary
from planner.cli.places import picture_to_write
from planner.cli.shape import (
    AXIS_OPTION,
    FINEST_OPTION,
    LAYER_OPTION,
    MAX_BLOCKS_OPTION,
    SHAPE_OPTION,
    STATE_OPTION,
    parse_axes,
    parse_shapes,
    parse_state,
)


def command(
    model: Annotated[Path, typer.Argument(help="ONNX model.")],
    *,
    max_blocks: int = MAX_BLOCKS_OPTION,
    finest: bool = FINEST_OPTION,
    shape: list[str] | None = SHAPE_OPTION,
    axis: list[str] | None = AXIS_OPTION,
    layer_assignment: str = LAYER_OPTION,
    state: list[str] | None = STATE_OPTION,
    picture: Annotated[
        Path | None,
        typer.Option(help="Also draw costs and cut sizes along the chain, .svg or .png.", callback=picture_to_write),
    ] = None,
    json: bool = JSON_OPTION,
) -> None:
    """Show the blocks and cut points of a model and their costs."""
    blocks = None if finest else max_blocks
    shapes, axes = parse_shapes(shape), parse_axes(axis)
    chain = planner.inspect(
        model, max_blocks=blocks, shape=shapes, axes=axes, layer_assignment=layer_assignment, state=parse_state(state)
    )
    if picture is not None:
        chain.plot(picture)
    if json:
        print_json(chain.to_dict())
        return
    print_summary(chain)
    if chain.uncounted:
        typer.echo(f"not counted in FLOP, for want of a rule or a shape: {chain.uncounted}", err=True)
    if chain.uncut:
        typer.echo(f"no cut where one of these crosses: {chain.uncut}", err=True)
