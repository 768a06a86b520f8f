"""The ``--shape`` and ``--max-blocks`` options that all commands on ONNX models take."""

from __future__ import annotations

import re
from collections.abc import Iterable

import typer

from planner.errors import UsageError

SHAPE_OPTION = typer.Option(
    None, "--shape", metavar="NAME=SIZES", help="Shape of an input with dynamic axes, as in input=1,3,224,224."
)
MAX_BLOCKS_OPTION = typer.Option(8, "--max-blocks", help="How many blocks the model is seen as, at most.")
FINEST_OPTION = typer.Option(False, "--finest", help="See every place where the model can be cut.")


def parse_shapes(options: Iterable[str] | None) -> dict[str, tuple[int, ...]]:
    """Read shapes written as ``input=1,3,224,224``; ``x=`` alone is the shape of a scalar.

    Raises
    ------
    UsageError
        If an option is no shape.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for option in options or ():
        found = re.fullmatch(r"(.+)=(\d+(?:,\d+)*)?", option.replace(" ", ""))
        if found is None:
            raise UsageError("not a shape", where="--shape", value=option, expected="NAME=1,3,224,224")
        shapes[found[1]] = tuple(int(size) for size in (found[2] or "").split(",") if size)
    return shapes
