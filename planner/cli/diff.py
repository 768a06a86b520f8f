"""``planner diff``: how one plan differs from another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import planner
from planner.cli.output import JSON_OPTION, print_json, print_summary


def command(
    old: Annotated[Path, typer.Argument(help="Plan file from `planner solve`.")],
    new: Annotated[Path, typer.Argument(help="Another one, of the same scenario or of another.")],
    *,
    json: bool = JSON_OPTION,
) -> None:
    """Show how one plan differs from another.

    Shown are sources and workers that came, went or have other settings, and routes that moved, with the difference of
    the predicted delay.
    """
    found = planner.difference(old, new)
    if json:
        print_json(found.to_dict())
    else:
        print_summary(found)
