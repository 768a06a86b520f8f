"""Picture of the predicted and measured delays of each source, as cumulative distributions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from planner.report.figure import FAINT, GREY, add_summary, new_figure, source_colours
from planner.trace.records import Record, SampleRecord
from planner.units import format_quantity

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 3
"""Number of sources side by side."""


def draw_delays(
    records: Sequence[Record],
    path: Path,
    *,
    predicted: Sequence[Record] | None = None,
    sources: Iterable[str] | None = None,
) -> None:
    """Draw the cumulative distribution of the delays of each source.

    Parameters
    ----------
    records
        The measured run.
    path
        File to write, ``.svg`` or ``.png``.
    predicted
        The simulated run.
    sources
        Order of the sources. Defaults to the order of their names.
    """
    present = sorted({record.source for run in (records, predicted or ()) for record in run})
    names = tuple(sources) if sources is not None else tuple(present)
    colours = source_colours(names)
    columns = max(1, min(COLUMNS, len(names)))
    with new_figure(path) as figure:
        grid = figure.subplots(max(1, math.ceil(len(names) / columns)), columns, sharey=True, squeeze=False)
        for index, axes in enumerate(grid.flat):
            axes.set_visible(index < len(names))
        for axes, source in zip(grid.flat, names, strict=False):
            axes.set_title(source, pad=38)
            _draw_source(axes, _delays_ms(records, source), _delays_ms(predicted or (), source), colours[source])
        for axes in grid[:, 0]:
            axes.set_ylabel("Fraction of samples completed")
        figure.legend(handles=_legend(), loc="outside upper right", ncols=3, frameon=False)


def _delays_ms(records: Iterable[Record], source: str) -> list[float]:
    """Return the delays of a source's completed samples in ms, in ascending order."""
    return sorted(
        record.delay_s * 1e3
        for record in records
        if isinstance(record, SampleRecord) and record.source == source and record.status == "completed"
    )


def _draw_source(axes: Axes, measured_ms: Sequence[float], predicted_ms: Sequence[float], colour: str) -> None:
    """Draw both distributions of a source, with a summary."""
    axes.set_xlim(0, 1.03 * max([*measured_ms, *predicted_ms], default=1.0))
    axes.set_ylim(0, 1.01)
    axes.locator_params(axis="x", nbins=6)
    axes.set_xlabel("Delay [ms]")
    axes.grid(color=FAINT, linewidth=0.8)
    for delays_ms, shade, line in ((predicted_ms, GREY, "--"), (measured_ms, colour, "-")):
        if delays_ms:
            axes.ecdf(delays_ms, linewidth=2.2, color=shade, linestyle=line)
            axes.axvline(float(np.mean(delays_ms)), linewidth=1.2, color=shade, linestyle=line)
    add_summary(axes, _summary(measured_ms, predicted_ms))


def _summary(measured_ms: Sequence[float], predicted_ms: Sequence[float]) -> str:
    """Return mean and 95th percentile in two lines, with the predicted values in brackets."""
    if not measured_ms:
        return "no sample completed"
    mean, p95 = _mean_and_p95(measured_ms)
    if not predicted_ms:
        return f"mean {mean}\n95th percentile {p95}"
    error = np.mean(measured_ms) / np.mean(predicted_ms) - 1
    predicted_mean, predicted_p95 = _mean_and_p95(predicted_ms)
    return f"mean {mean} (predicted {predicted_mean}: {error:+.0%})\n95th percentile {p95} (predicted {predicted_p95})"


def _mean_and_p95(delays_ms: Sequence[float]) -> tuple[str, str]:
    mean_s, p95_s = float(np.mean(delays_ms)) / 1e3, float(np.percentile(delays_ms, 95)) / 1e3
    return format_quantity(mean_s, "time"), format_quantity(p95_s, "time")


def _legend() -> list[object]:
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], color=GREY, linewidth=2.2, label="measured"),
        Line2D([], [], color=GREY, linewidth=2.2, linestyle="--", label="predicted"),
        Line2D([], [], color=GREY, linestyle="none", marker="|", markersize=14, label="mean"),
    ]
