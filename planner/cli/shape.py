"""Options of commands that read ONNX models: shapes and axes, number of blocks, inputs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

import typer

from planner.errors import UsageError

if TYPE_CHECKING:
    from planner.model.load import ChainModel

SHAPE_OPTION = typer.Option(
    None,
    "--shape",
    metavar="NAME=SIZES",
    help="Shape of an input with dynamic axes, such as input=1,3,224,224. Repeatable.",
)
AXIS_OPTION = typer.Option(
    None,
    "--axis",
    metavar="NAME=SIZE",
    help="Size of a dynamic axis by the name that the model gives it, such as batch=1. Repeatable.",
)
LAYER_OPTION = typer.Option(
    "",
    "--layer-assignment",
    metavar="RULES",
    help="Devices of the layers that nodes name in `layer_ann`, as for onnxruntime: 'gpu(encoder); cpu(=head)'.",
    show_default=False,
)
STATE_OPTION = typer.Option(
    None,
    "--state",
    metavar="INPUT=OUTPUT",
    help="State that stays with its block between the runs of a sequence, such as h=h_out; or 'none' to send all "
    "tensors. Repeatable.",
    show_default="by convention, as past_key_values.* and present.*",
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
        sizes = tuple(int(size) for size in (match[2] or "").split(",") if size)
        if shapes.setdefault(match[1], sizes) != sizes:
            raise UsageError(f"two shapes of {match[1]}", where="--shape", value=option, expected="one shape for each")
    return shapes


def parse_axes(options: Iterable[str] | None) -> dict[str, int]:
    """Parse sizes of axes such as ``batch=1``; a name may be any text, such as ``past + 1``.

    Raises
    ------
    UsageError
        If an option is not a size, or an axis has two.
    """
    axes: dict[str, int] = {}
    for option in options or ():
        match = re.fullmatch(r"(.+)=\s*(\d+)\s*", option)
        if match is None:
            raise UsageError(
                "not the size of an axis", where="--axis", value=option, expected="NAME=SIZE, as in batch=1"
            )
        name, size = match[1].strip(), int(match[2])
        if axes.setdefault(name, size) != size:
            raise UsageError(f"two sizes of axis {name!r}", where="--axis", value=option, expected="one size for each")
    return axes


def parse_state(options: Iterable[str] | None) -> dict[str, str] | None:
    """Parse pairs of an input and an output; None if there are none, empty for ``none``.

    Raises
    ------
    UsageError
        If an option is not a pair, or an input has two.
    """
    given = list(options or ())
    if given == ["none"]:
        return {}
    state: dict[str, str] = {}
    for option in given:
        before, _, after = option.partition("=")
        if not before or not after:
            raise UsageError("not a state", where="--state", value=option, expected="INPUT=OUTPUT, or none alone")
        if state.setdefault(before, after) != after:
            raise UsageError(f"two states of {before}", where="--state", value=option, expected="one output for each")
    return state or None


def print_axes(model: ChainModel) -> None:
    """Tell on stderr the sizes of axes that follow from those given."""
    if model.axes.follow:
        typer.echo(f"axes {model.axes}", err=True)
