"""Pictures that a notebook shows and that can be saved."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from planner.files import StrPath


class Picture:
    """A picture of a result; a notebook shows it.

    Parameters
    ----------
    draw
        Writes the picture to an ``.svg`` or ``.png`` file.
    """

    def __init__(self, draw: Callable[[Path], object]) -> None:
        self._draw = draw

    def save(self, path: StrPath) -> Path:
        """Write the picture to a file and return its path.

        Raises
        ------
        UsageError
            If matplotlib is not installed, or the file name does not end in ``.svg`` or ``.png``.
        """
        self._draw(Path(path))
        return Path(path)

    def _repr_svg_(self) -> str:
        with tempfile.TemporaryDirectory() as folder:
            return self.save(Path(folder) / "picture.svg").read_text(encoding="utf-8")


def drawn(draw: Callable[[Path], object], path: StrPath | None) -> Picture:
    """Return a picture, and write it to a file if one is given."""
    picture = Picture(draw)
    if path is not None:
        picture.save(path)
    return picture
