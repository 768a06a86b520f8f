"""Checks of output files and folders before the work starts, so that no results are lost.

Each function is the callback of an option.
"""

from __future__ import annotations

import os
from pathlib import Path

import typer

from planner.errors import UsageError


def file_to_write(option: typer.CallbackParam, value: Path | None) -> Path | None:
    """Raise UsageError if a file cannot be written at a path."""
    if value is not None:
        if value.is_dir():
            raise UsageError("is a folder", where=_name(option), value=str(value), expected="a file to write")
        _check_folder(option, value, value.absolute().parent)
    return value


def folder_to_write(option: typer.CallbackParam, value: Path | None) -> Path | None:
    """Raise UsageError if a folder cannot be created or written to."""
    if value is not None:
        _check_folder(option, value, value.absolute())
    return value


def picture_to_write(option: typer.CallbackParam, value: Path | None) -> Path | None:
    """Raise UsageError if a picture cannot be written at a path, or its format is not supported."""
    if value is not None:
        from planner.report.figure import picture_format

        picture_format(value)
    return file_to_write(option, value)


def _check_folder(option: typer.CallbackParam, value: Path, folder: Path) -> None:
    """Check the innermost folder that exists; missing folders are created later."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir():
        raise UsageError(
            f"{existing} is not a folder", where=_name(option), value=str(value), expected="a path inside a folder"
        )
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UsageError(
            f"{existing} is read-only", where=_name(option), value=str(value), expected="a writable folder"
        )


def _name(option: typer.CallbackParam) -> str:
    return max(option.opts, key=len)


PICTURE_OPTION = typer.Option(
    None, "--output", "-o", metavar="FILE", help="Picture to write, .svg or .png.", callback=picture_to_write
)
