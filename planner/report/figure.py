"""What all pictures share: size, colours that colour-blind readers can tell apart, and how they are saved."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from planner.errors import UsageError
from planner.files import write_bytes_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# M. Okabe and K. Ito, "Color Universal Design" (2008), less black and yellow; differing also in lightness.
PALETTE: Final = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
GREY: Final = "#595959"
FAINT: Final = "#E6E6E6"
ALERT: Final = PALETTE[5]

LEAST_ROWS: Final = 6
"""Rows that a panel has room for even when it has fewer, so that a few bars are not as high as they could be."""

_FORMATS: Final = {".svg": "svg", ".png": "png"}

_STYLE: Final[dict[Any, Any]] = {
    "font.size": 12,
    "axes.titlesize": 14,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "ytick.labelcolor": "black",
    "xtick.labelcolor": "black",
    "svg.fonttype": "none",  # text stays text: small, searchable, readable aloud
    "svg.hashsalt": "planner",  # the same picture gives the same file
}


def source_colours(sources: Iterable[str]) -> dict[str, str]:
    """Give each source a colour, in order; from the seventh on they repeat."""
    return {source: PALETTE[index % len(PALETTE)] for index, source in enumerate(sources)}


def text_colour(background: str) -> str:
    """Give black or white, whichever reads better on ``background`` (``#rrggbb``)."""
    red, green, blue = (int(background[place : place + 2], 16) for place in (1, 3, 5))
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "white"


def picture_format(path: Path) -> str:
    """Give the format that a picture's ending names.

    Raises
    ------
    UsageError
        If it names none that is known.
    """
    if path.suffix not in _FORMATS:
        expected = f"a file that ends in {' or '.join(_FORMATS)}"
        raise UsageError("unknown kind of picture", where=str(path), value=path.suffix, expected=expected)
    return _FORMATS[path.suffix]


@contextmanager
def new_figure(path: Path) -> Iterator[Figure]:
    """Give an empty figure of 1600 × 900 pixels, saved to ``path`` (``.svg`` or ``.png``) at the end.

    Raises
    ------
    UsageError
        When matplotlib is not installed, or the file's ending names no known format.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        expected = 'matplotlib: pip install "mdi-planner[report]"'
        raise UsageError("pictures cannot be drawn", where=str(path), expected=expected) from None
    kind = picture_format(path)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(16, 9), dpi=100, layout="constrained")
        yield figure
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, metadata={"Date": None} if kind == "svg" else None)
    write_bytes_atomic(path, buffer.getvalue())


def add_summary(axes: Axes, text: str) -> None:
    """Write what a panel comes to between its title and the panel."""
    axes.annotate(
        text,
        (0, 1),
        xycoords="axes fraction",
        xytext=(0, 6),
        textcoords="offset points",
        va="bottom",
        fontsize=10.5,
        in_layout=False,
    )


def write_beside(axes: Axes, height: float, text: str, offset: float, **style: Any) -> None:
    """Write beside a panel, ending ``offset`` points right of its right side, or left of its left one if negative."""
    axes.annotate(
        text,
        (float(offset > 0), height),
        xycoords=axes.get_yaxis_transform(),
        xytext=(offset, 0),
        textcoords="offset points",
        ha="right",
        annotation_clip=False,
        **{"fontsize": 10, "va": "center", **style},
    )


def write_inside(axes: Axes, height: float, text: str) -> None:
    """Write small into a panel, from its left side on."""
    axes.text(0.005, height, text, transform=axes.get_yaxis_transform(), va="center", color=GREY, fontsize=9)


def shortened(text: str, length: int = 26) -> str:
    """Cut a text that is longer than ``length`` characters."""
    return text if len(text) <= length else f"{text[: length - 1]}…"
