"""Predicted against measured delay of each source, as cumulative distributions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from planner.report.figure import FAINT, GREY, new_figure, source_colours
from planner.trace.records import Record, SampleRecord
from planner.units import format_quantity

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 3
"""Sources side by side."""


def draw_delays(
    records: Sequence[Record],
    path: Path,
    *,
    predicted: Sequence[Record] | None = None,
    sources: Iterable[str] | None = None,
) -> None:
    """Draw, for each source, which fraction of its samples was done after which delay.

    Parameters
    ----------
    records
        The measured run.
    path
        File to write, ``.svg`` or ``.png``.
    predicted
        The simulated run.
    sources
        In which order; by default by name.
    """
    occurring = sorted({record.source for run in (records, predicted or ()) for record in run})
    names = tuple(sources) if sources is not None else tuple(occurring)
    colours = source_colours(names)
    columns = max(1, min(COLUMNS, len(names)))
    with new_figure(path) as figure:
        figure.suptitle("Delay of the samples of each source", x=0.01, ha="left", fontweight="bold")
        grid = figure.subplots(max(1, math.ceil(len(names) / columns)), columns, sharey=True, squeeze=False)
        for place, axes in enumerate(grid.flat):
            axes.set_visible(place < len(names))
        for axes, source in zip(grid.flat, names, strict=False):
            axes.set_title(source)
            _draw_source(axes, _delays_ms(records, source), _delays_ms(predicted or (), source), colours[source])
        for axes in grid[:, 0]:
            axes.set_ylabel("Fraction of samples done")


def _delays_ms(records: Iterable[Record], source: str) -> list[float]:
    """Give the delays of a source's completed samples in ms, in order."""
    return sorted(
        record.delay_s * 1e3
        for record in records
        if isinstance(record, SampleRecord) and record.source == source and record.status == "completed"
    )


def _draw_source(axes: Axes, measured_ms: Sequence[float], predicted_ms: Sequence[float], colour: str) -> None:
    _draw_distribution(axes, predicted_ms, "predicted", GREY, "--")
    error = ""
    if measured_ms and predicted_ms:
        error = f" ({np.mean(measured_ms) / np.mean(predicted_ms) - 1:+.0%})"
    _draw_distribution(axes, measured_ms, f"measured{error}", colour, "-")
    _finish(axes)


def _draw_distribution(axes: Axes, delays_ms: Sequence[float], name: str, colour: str, line: str) -> None:
    """Draw the empirical distribution, and its mean as a vertical line."""
    if not delays_ms:
        return
    mean_ms, p95_ms = float(np.mean(delays_ms)), float(np.percentile(delays_ms, 95))
    mean, p95 = (format_quantity(value_ms / 1e3, "time") for value_ms in (mean_ms, p95_ms))
    label = f"{name}: mean {mean}, 95 % under {p95}"
    axes.ecdf(delays_ms, linewidth=2.2, label=label, color=colour, linestyle=line)
    axes.axvline(mean_ms, linewidth=1.2, color=colour, linestyle=line)


def _finish(axes: Axes) -> None:
    axes.set_xlim(left=0)
    axes.set_ylim(0, 1.01)
    axes.set_xlabel("Delay [ms]; vertical lines are means")
    axes.grid(color=FAINT, linewidth=0.8)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), frameon=False)
    else:
        axes.text(0.5, 0.5, "no sample completed", ha="center", transform=axes.transAxes, color=GREY)
