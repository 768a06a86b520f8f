"""Picture of the predicted and measured delays of each source, as cumulative distributions."""

from __future__ import annotations

import math
from array import array
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from planner.report.figure import FAINT, GREY, add_summary, new_figure, source_colours
from planner.trace.records import Record, SampleRecord
from planner.units import format_quantity

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Delays: TypeAlias = NDArray[np.float64]

_NONE: Final[Delays] = np.empty(0)

COLUMNS = 3
"""Number of sources side by side."""


def draw_delays(
    records: Iterable[Record],
    path: Path,
    *,
    predicted: Iterable[Record] | None = None,
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
    measured_ms, predicted_ms = _delays_ms(records), _delays_ms(predicted or ())
    names = tuple(sources) if sources is not None else tuple(sorted({*measured_ms, *predicted_ms}))
    colours = source_colours(names)
    columns = max(1, min(COLUMNS, len(names)))
    with new_figure(path) as figure:
        grid = figure.subplots(max(1, math.ceil(len(names) / columns)), columns, sharey=True, squeeze=False)
        for index, axes in enumerate(grid.flat):
            axes.set_visible(index < len(names))
        for axes, source in zip(grid.flat, names, strict=False):
            axes.set_title(source, pad=38)
            _draw_source(axes, measured_ms.get(source, _NONE), predicted_ms.get(source, _NONE), colours[source])
        for axes in grid[:, 0]:
            axes.set_ylabel("Fraction of samples completed")
        figure.legend(handles=_legend(), loc="outside upper right", ncols=3, frameon=False)


def _delays_ms(records: Iterable[Record]) -> Mapping[str, Delays]:
    """Return the delays of the completed samples of each source that occurs in ms, in ascending order."""
    delays_ms = defaultdict[str, "array[float]"](lambda: array("d"))
    for record in records:
        source_ms = delays_ms[record.source]
        if isinstance(record, SampleRecord) and record.status == "completed":
            source_ms.append(record.delay_s * 1e3)
    return {source: np.sort(np.frombuffer(source_ms)) for source, source_ms in delays_ms.items()}


def _draw_source(axes: Axes, measured_ms: Delays, predicted_ms: Delays, colour: str) -> None:
    """Draw both distributions of a source, with a summary."""
    axes.set_xlim(
        0, 1.03 * max((delays_ms[-1] for delays_ms in (measured_ms, predicted_ms) if len(delays_ms)), default=1.0)
    )
    axes.set_ylim(0, 1.01)
    axes.locator_params(axis="x", nbins=6)
    axes.set_xlabel("Delay [ms]")
    axes.grid(color=FAINT, linewidth=0.8)
    for delays_ms, shade, line in ((predicted_ms, GREY, "--"), (measured_ms, colour, "-")):
        if len(delays_ms):
            axes.ecdf(delays_ms, linewidth=2.2, color=shade, linestyle=line)
            axes.axvline(float(np.mean(delays_ms)), linewidth=1.2, color=shade, linestyle=line)
    add_summary(axes, _summary(measured_ms, predicted_ms))


def _summary(measured_ms: Delays, predicted_ms: Delays) -> str:
    """Return mean and 95th percentile in two lines, with the predicted values in brackets."""
    if not len(measured_ms):
        return "no sample completed"
    mean, p95 = _mean_and_p95(measured_ms)
    if not len(predicted_ms):
        return f"mean {mean}\n95th percentile {p95}"
    error = np.mean(measured_ms) / np.mean(predicted_ms) - 1
    predicted_mean, predicted_p95 = _mean_and_p95(predicted_ms)
    return f"mean {mean} (predicted {predicted_mean}: {error:+.0%})\n95th percentile {p95} (predicted {predicted_p95})"


def _mean_and_p95(delays_ms: Delays) -> tuple[str, str]:
    mean_s, p95_s = float(np.mean(delays_ms)) / 1e3, float(np.percentile(delays_ms, 95)) / 1e3
    return format_quantity(mean_s, "time"), format_quantity(p95_s, "time")


def _legend() -> list[object]:
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], color=GREY, linewidth=2.2, label="measured"),
        Line2D([], [], color=GREY, linewidth=2.2, linestyle="--", label="predicted"),
        Line2D([], [], color=GREY, linestyle="none", marker="|", markersize=14, label="mean"),
    ]
