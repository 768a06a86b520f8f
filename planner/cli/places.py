"""Files and folders that a command is to write: looked at before the work, so that none of it is lost.

Each function is the callback of an option.
"""

from __future__ import annotations

import os
from pathlib import Path

import typer

from planner.errors import UsageError


def file_to_write(option: typer.CallbackParam, value: Path | None) -> Path | None:
    """Refuse what is no place for a file."""
    if value is not None:
        if value.is_dir():
            raise UsageError("is a folder", where=_name(option), value=str(value), expected="a file to write")
        _check_folder(option, value, value.absolute().parent)
    return value


def folder_to_write(option: typer.CallbackParam, value: Path | None) -> Path | None:
    """Refuse what is no place for a folder of files."""
    if value is not None:
        _check_folder(option, value, value.absolute())
    return value


def picture_to_write(option: typer.CallbackParam, value: Path | None) -> Path | None:
    """Refuse what is no place for a picture, or names a kind of picture that cannot be drawn."""
    if value is not None:
        from planner.report.figure import picture_format

        picture_format(value)
    return file_to_write(option, value)


def _check_folder(option: typer.CallbackParam, value: Path, folder: Path) -> None:
    """Folders that are missing are made later: what counts is the innermost that is there."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    if not there.is_dir():
        raise UsageError(f"{there} is no folder", where=_name(option), value=str(value), expected="a place in a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        expected = "a folder in which files may be written"
        raise UsageError(f"{there} is read-only", where=_name(option), value=str(value), expected=expected)


def _name(option: typer.CallbackParam) -> str:
    return max(option.opts, key=len)


PICTURE_OPTION = typer.Option(None, "--output", "-o", help="Picture to draw, .svg or .png.", callback=picture_to_write)
