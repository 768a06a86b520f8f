"""Picture of the Pareto front of accuracy and delay."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from planner.report.figure import FAINT, GREY, INK, new_figure, source_colours
from planner.solvers.pareto import ParetoPoint
from planner.units import format_quantity

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDE: Final = 3.0
"""Ratio of the largest to the smallest delay above which the axis is logarithmic."""

_APART: Final = 0.035
"""Least distance between labelled points, as a share of the panel's height and width."""


def draw_front(front: Sequence[ParetoPoint], path: Path) -> None:
    """Draw delay against accuracy, over all sources and for each source.

    Parameters
    ----------
    path
        File to write, ``.svg`` or ``.png``.
    """
    with new_figure(path, (1600, 760)) as figure:
        whole, each = figure.subplots(1, 2)
        whole.set_title("All sources, weighted by priority and rate")
        _draw(whole, [(point.accuracy, point.delay_s) for point in front], INK)
        each.set_title("Each source")
        lines = {
            source: sorted(
                {(point.plan.sources[source].accuracy, point.plan.sources[source].delay_s) for point in front}
            )
            for source in front[0].plan.sources
        }
        for source, colour in source_colours(lines).items():
            _draw(each, lines[source], colour, label=source)
        each.legend(frameon=False, loc="upper left")
        _label(whole, [(point.accuracy, point.delay_s) for point in front], INK)
        for source, colour in source_colours(lines).items():
            _label(each, lines[source], colour)


def _draw(axes: Axes, points: Sequence[tuple[float, float]], colour: str, label: str | None = None) -> None:
    accuracies, delays_s = zip(*sorted(points), strict=True)
    axes.plot(
        [accuracy * 100 for accuracy in accuracies],
        [delay_s * 1e3 for delay_s in delays_s],
        marker="o",
        color=colour,
        markersize=7,
        linewidth=2,
        label=label,
    )
    low, high = axes.dataLim.y0, axes.dataLim.y1
    if low > 0 and high > WIDE * low:
        axes.set_yscale("log")
        axes.set_ylim(low / 1.15, high * 1.2)
        for setter in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            setter(lambda value, _: f"{value:g}")
    else:
        room = 0.12 * (high - low) or 0.1 * high or 1.0
        axes.set_ylim(low - room, high + 1.6 * room)
    axes.margins(x=0.09)
    axes.set_xlabel("Accuracy [%]")
    axes.set_ylabel("Mean delay [ms]" if axes.get_yscale() == "linear" else "Mean delay [ms], logarithmic")
    axes.grid(color=FAINT, linewidth=0.8)


def _label(axes: Axes, points: Sequence[tuple[float, float]], colour: str) -> None:
    """Write accuracy and delay beside the points; of points that lie too close, beside the first."""
    placed: list[tuple[float, float]] = []
    for accuracy, delay_s in sorted(points, reverse=True):
        at = axes.transAxes.inverted().transform(axes.transData.transform((accuracy * 100, 1e3 * delay_s)))
        if any(abs(at[0] - x) < 4 * _APART and abs(at[1] - y) < _APART for x, y in placed):
            continue
        placed.append((float(at[0]), float(at[1])))
        axes.annotate(
            f"{accuracy:.1%}, {format_quantity(delay_s, 'time')}",
            (accuracy * 100, 1e3 * delay_s),
            xytext=(-6, 7),
            textcoords="offset points",
            ha="right" if at[0] > 0.14 else "left",
            fontsize=9.5,
            color=GREY if colour == INK else colour,
        )
