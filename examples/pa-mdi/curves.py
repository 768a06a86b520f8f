"""Mean delays as curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import nan
from pathlib import Path
from typing import Final

from planner.report.figure import FAINT, PALETTE, new_figure

MARKERS: Final = "osv^Dx*"

WIDE: Final = 10.0
"""Delays whose largest is more than so many times the least are drawn on a logarithmic axis."""


def draw_lines(path: Path, lines: Mapping[str, Sequence[float | None]], *, ticks: Sequence[str], xlabel: str) -> None:
    """Draw delays in seconds, one curve a name, one place a tick; None leaves a gap."""
    from matplotlib.ticker import LogLocator, NullLocator

    with new_figure(path) as figure:
        axes = figure.subplots()
        for place, (name, values_s) in enumerate(lines.items()):
            values_ms = [nan if value_s is None else value_s * 1e3 for value_s in values_s]
            axes.plot(
                range(len(ticks)),
                values_ms,
                marker=MARKERS[place % len(MARKERS)],
                color=PALETTE[place % len(PALETTE)],
                linestyle="-" if place < len(PALETTE) else "--",  # colours repeat
                linewidth=2,
                label=name,
            )
        axes.set_xticks(range(len(ticks)), ticks)
        drawn_s = [value_s for values_s in lines.values() for value_s in values_s if value_s is not None]
        if max(drawn_s) > WIDE * min(drawn_s):
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_minor_locator(NullLocator())
            axes.yaxis.set_major_formatter("{x:g}")
        else:
            axes.set_ylim(bottom=0)
        axes.set_xlabel(xlabel)
        axes.set_ylabel("Mean delay [ms]")
        axes.grid(axis="y", color=FAINT, linewidth=0.8)
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
