"""Picture of where the samples of each source spend their time, per leg, predicted above measured."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from planner.report.figure import (
    COMPUTING,
    FAINT,
    GREY,
    PIXELS,
    SENDING,
    WAITING,
    add_summary,
    new_figure,
    source_colours,
)
from planner.units import format_quantity

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS: Final = 2
"""Number of sources side by side."""

MAX_LEGS: Final = 12
"""Maximum number of legs drawn per source: those that take the most time."""

_FRAME_PX, _PANEL_PX, _LEG_PX = 40, 150, 58
"""Heights of what is around all panels, around one, and of a leg."""
_PREDICTED, _MEASURED = 0.16, 0.4
"""Heights of bars."""


class LegLabel(Protocol):
    """Stage or network of a leg; its text is the label."""

    @property
    def transfer(self) -> bool:
        """Whether it is a transfer instead of a stage."""


class DrawnLeg(Protocol):
    """Mean times that a source's samples wait for a leg and spend on it, in seconds."""

    @property
    def site(self) -> LegLabel:
        """Stage or network of the leg."""

    @property
    def predicted(self) -> tuple[float, float]:
        """Simulated times of waiting and work."""

    @property
    def measured(self) -> tuple[float, float]:
        """Measured times of waiting and work."""


def draw_legs(sources: Mapping[str, Sequence[DrawnLeg]], path: Path) -> None:
    """Draw a pair of bars for each leg of each source: mean time that samples wait, and mean time of the work.

    Parameters
    ----------
    sources
        Legs of each source, in the order in which samples pass them.
    path
        File to write, ``.svg`` or ``.png``.
    """
    columns = max(1, min(COLUMNS, len(sources)))
    rows = max(1, math.ceil(len(sources) / columns))
    most = max((min(len(legs), MAX_LEGS) for legs in sources.values()), default=1)
    with new_figure(path, (PIXELS[0], _FRAME_PX + rows * (_PANEL_PX + _LEG_PX * max(most, 1)))) as figure:
        grid = figure.subplots(rows, columns, squeeze=False)
        for index, axes in enumerate(grid.flat):
            axes.set_visible(index < len(sources))
        colours = source_colours(sources)
        for axes, (source, legs) in zip(grid.flat, sources.items(), strict=False):
            axes.set_title(source, pad=24, color=colours[source])
            _draw_source(axes, legs)
        figure.legend(handles=_legend(), loc="outside upper right", ncols=5, frameon=False)


def _draw_source(axes: Axes, legs: Sequence[DrawnLeg]) -> None:
    rows = _longest(legs)
    longest_ms = 1e3 * max((max(_times(leg)) for leg in rows), default=1e-3)
    axes.set_xlim(0, 1.2 * longest_ms)  # leaves room for the differences
    axes.set_ylim(max(len(rows), 1) - 0.5, -0.5)
    axes.set_yticks(range(len(rows)), [str(leg.site) for leg in rows])
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("Mean time [ms]")
    axes.grid(axis="x", color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    for row, leg in enumerate(rows):
        colours = (WAITING, SENDING if leg.site.transfer else COMPUTING)
        for (wait_s, work_s), middle, height in (
            (leg.predicted, row - _MEASURED / 2 - _PREDICTED / 2 + 0.06, _PREDICTED),
            (leg.measured, row + _PREDICTED / 2 + 0.04, _MEASURED),
        ):
            lengths_ms, starts_ms = [1e3 * wait_s, 1e3 * work_s], [0.0, 1e3 * wait_s]
            axes.barh([middle] * 2, lengths_ms, height, left=starts_ms, color=colours, linewidth=0)
        predicted_s, measured_s = _times(leg)
        axes.annotate(
            f"{round(1e3 * (measured_s - predicted_s), 1) + 0.0:+} ms",  # + 0.0 avoids a negative zero
            (1e3 * max(predicted_s, measured_s), row),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            color=GREY,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )
    add_summary(axes, _summary(legs, len(rows)))


def _longest(legs: Sequence[DrawnLeg]) -> list[DrawnLeg]:
    """Return the legs to draw, in order."""
    longest = heapq.nlargest(MAX_LEGS, range(len(legs)), key=lambda index: max(_times(legs[index])))
    return [legs[index] for index in sorted(longest)]


def _times(leg: DrawnLeg) -> tuple[float, float]:
    """Return the predicted and the measured time of a leg, in seconds."""
    return sum(leg.predicted), sum(leg.measured)


def _summary(legs: Sequence[DrawnLeg], drawn: int) -> str:
    """Return the total time of the legs, including those that are not drawn."""
    if not legs:
        return "no sample completed"
    predicted_s, measured_s = map(sum, zip(*map(_times, legs), strict=True))
    total = f"total {format_quantity(measured_s, 'time')} (predicted {format_quantity(predicted_s, 'time')})"
    return f"{total}; {len(legs) - drawn} short legs omitted" if drawn < len(legs) else total


def _legend() -> list[object]:
    from matplotlib.patches import Patch

    return [
        Patch(color=WAITING, label="waiting"),
        Patch(color=COMPUTING, label="computing"),
        Patch(color=SENDING, label="sending"),
        Patch(color="none", label="above, thin: predicted; below: measured"),
    ]
