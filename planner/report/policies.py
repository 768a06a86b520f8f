"""Picture of the delays of each source under several policies."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from planner.report.figure import FAINT, GREY, new_figure, source_colours
from planner.trace.metrics import RunMetrics, SourceMetrics, interval
from planner.units import format_quantity

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS: Final = 3
"""Number of sources side by side."""

WIDE: Final = 20.0
"""Ratio of the largest to the smallest delay above which the axis is logarithmic."""


def draw_policies(runs: Mapping[str, Sequence[RunMetrics]], path: Path) -> None:
    """Draw mean and 95th percentile of the delays of each source under each policy.

    Parameters
    ----------
    runs
        Independent replications for each policy, all with the same sources. Several replications give confidence
        intervals.
    path
        File to write, ``.svg`` or ``.png``.
    """
    sources = tuple(next(iter(runs.values()))[0].sources)
    colours = source_colours(sources)
    columns = min(COLUMNS, len(sources))
    with new_figure(path) as figure:
        grid = figure.subplots(math.ceil(len(sources) / columns), columns, sharey=True, squeeze=False)
        for index, axes in enumerate(grid.flat):
            axes.set_visible(index < len(sources))
        for axes, source in zip(grid.flat, sources, strict=False):
            axes.set_title(source)
            by_policy = [[metrics.sources[source] for metrics in replications] for replications in runs.values()]
            _draw_source(axes, by_policy, colours[source])
        grid[0, 0].set_yticks(range(len(runs)), tuple(runs))
        grid[0, 0].set_ylim(len(runs) - 0.5, -0.5)
        figure.legend(handles=_legend(), loc="outside upper right", ncols=2, frameon=False)


def _draw_source(axes: Axes, policies: Sequence[Sequence[SourceMetrics]], colour: str) -> None:
    """Draw a row for each policy; the row is empty if no sample completed."""
    drawn: list[float] = []
    for row, replications in enumerate(policies):
        means_ms = [metrics.mean_delay_s * 1e3 for metrics in replications if metrics.mean_delay_s is not None]
        p95s_ms = [metrics.p95_delay_s * 1e3 for metrics in replications if metrics.p95_delay_s is not None]
        if not means_ms:
            continue
        mean_ms, half_ms = interval(means_ms)
        p95_ms = interval(p95s_ms).mean
        drawn += [mean_ms, p95_ms]
        axes.plot([mean_ms, p95_ms], [row, row], color=FAINT, linewidth=4, solid_capstyle="butt", zorder=1)
        axes.plot(p95_ms, row, "|", color=colour, markersize=18, markeredgewidth=2.2)
        axes.errorbar(mean_ms, row, xerr=half_ms, fmt="o", color=colour, markersize=9, capsize=6, linewidth=2.2)
        label = format_quantity(mean_ms / 1e3, "time")
        axes.annotate(label, (mean_ms, row), (0, 10), textcoords="offset points", ha="center", fontsize=10.5)
    if drawn and min(drawn) > 0 and max(drawn) > WIDE * min(drawn):
        axes.set_xscale("log")
    else:
        axes.set_xlim(0, 1.05 * max(drawn, default=1.0))
    axes.set_xlabel("Delay [ms]")
    axes.grid(axis="x", color=FAINT, linewidth=0.8)


def _legend() -> list[object]:
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], color=GREY, marker="o", markersize=9, label="mean with 95 % confidence interval"),
        Line2D([], [], color=GREY, linestyle="none", marker="|", markersize=18, label="95th percentile"),
    ]
