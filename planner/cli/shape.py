"""Options of commands that read ONNX models: ``--shape``, ``--max-blocks``, ``--finest`` and ``--inputs``."""

from __future__ import annotations

import re
from collections.abc import Iterable

import typer

from planner.errors import UsageError

SHAPE_OPTION = typer.Option(
    None,
    "--shape",
    metavar="NAME=SIZES",
    help="Shape of an input with dynamic axes, such as input=1,3,224,224. Repeatable.",
)
MAX_BLOCKS_OPTION = typer.Option(8, "--max-blocks", metavar="N", help="Maximum number of blocks to cut the model into.")
FINEST_OPTION = typer.Option(False, "--finest", help="Cut the model at every possible point; overrides --max-blocks.")
INPUTS_OPTION = typer.Option(
    None,
    "--inputs",
    metavar="FILE",
    help="Inputs to run the model on: .npz file with an array for each, by name.",
    show_default="random",
)


def parse_shapes(options: Iterable[str] | None) -> dict[str, tuple[int, ...]]:
    """Parse shapes such as ``input=1,3,224,224``; ``x=`` is the shape of a scalar.

    Raises
    ------
    UsageError
        If an option is not a shape.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for option in options or ():
        match = re.fullmatch(r"(.+)=(\d+(?:,\d+)*)?", option.replace(" ", ""))
        if match is None:
            raise UsageError("not a shape", where="--shape", value=option, expected="NAME=1,3,224,224")
        shapes[match[1]] = tuple(int(size) for size in (match[2] or "").split(",") if size)
    return shapes
