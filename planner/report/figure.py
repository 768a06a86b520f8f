"""Common parts of all pictures: size, colours for colour-blind readers, and saving."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from planner.errors import UsageError
from planner.files import write_bytes_atomic
from planner.version import installation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# A hue is a source, and in pictures without sources one of several things that are compared. From M. Okabe and K. Ito,
# "Color Universal Design" (2008), without black, yellow and red, and a brown. The colours also differ in lightness.
PALETTE: Final = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#7F5539")
# What a sample does is a shade of grey.
COMPUTING: Final = "#39444E"
SENDING: Final = "#8493A0"
WAITING: Final = "#CCD4DA"
# Red is what is wrong.
ALERT: Final = "#B3122B"
INK: Final = "#1B2228"
GREY: Final = "#595959"
FAINT: Final = "#E6E6E6"

PIXELS: Final = (1600, 900)
"""Width and, unless a picture needs less or more, height of a picture."""

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
    "svg.fonttype": "none",  # keep text as text: small, searchable, accessible to screen readers
    "svg.hashsalt": "planner",  # the same picture always gives the same file
}


def source_colours(sources: Iterable[str]) -> dict[str, str]:
    """Return a colour for each source, in order; colours repeat from the seventh on."""
    return {source: PALETTE[index % len(PALETTE)] for index, source in enumerate(sources)}


def text_colour(background: str) -> str:
    """Return black or white, whichever is more readable on ``background`` (``#rrggbb``)."""
    red, green, blue = (int(background[start : start + 2], 16) for start in (1, 3, 5))
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "white"


def picture_format(path: Path) -> str:
    """Return the picture format for a file name extension.

    Raises
    ------
    UsageError
        If the extension is unknown.
    """
    if path.suffix not in _FORMATS:
        expected = f"a file that ends in {' or '.join(_FORMATS)}"
        raise UsageError("unknown picture format", where=str(path), value=path.suffix, expected=expected)
    return _FORMATS[path.suffix]


@contextmanager
def new_figure(path: Path, pixels: tuple[int, int] = PIXELS) -> Iterator[Figure]:
    """Yield an empty figure of some width and height, and save it to ``path`` (``.svg`` or ``.png``) at the end.

    Raises
    ------
    UsageError
        If matplotlib is not installed, or the file name extension is unknown.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        expected = f"matplotlib: {installation('report')}"
        raise UsageError("cannot draw pictures", where=str(path), expected=expected) from None
    kind = picture_format(path)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(pixels[0] / 100, pixels[1] / 100), dpi=100, layout="constrained")
        yield figure
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, metadata={"Date": None} if kind == "svg" else None)
    write_bytes_atomic(path, buffer.getvalue())


def add_summary(axes: Axes, text: str) -> None:
    """Write a summary between the title of a panel and the panel."""
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
    """Write beside a panel.

    The text ends ``offset`` points to the right of the right side or, if negative, to the left of the left side.
    """
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
    """Write small text into a panel, starting at its left side."""
    axes.text(0.005, height, text, transform=axes.get_yaxis_transform(), va="center", color=GREY, fontsize=9)


def shortened(text: str, length: int = 26) -> str:
    """Return ``text`` truncated to ``length`` characters."""
    return text if len(text) <= length else f"{text[: length - 1]}…"
