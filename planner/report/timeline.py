"""Timeline of a run: activity of workers and networks, and arrivals and ends of samples."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from planner.report.figure import FAINT, GREY, new_figure, source_colours, text_colour
from planner.scenario.instance import Instance
from planner.trace.records import BlockRecord, Record, SampleRecord, TransferRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BAR_HEIGHT: Final = 0.72
_MARKS: Final = {"arrived": "v", "completed": "o", "failed": "X", "dropped": "P"}
_SEPARATED_PX: Final = 5
"""Minimum width of a bar that is separated from its neighbours."""
_LABEL_PX: Final = 13
"""Minimum width of a bar that is labelled with the number of its block or cut."""
_PANEL_PX: Final = 1400


@dataclass(frozen=True)
class Rows:
    """Names of the rows of a panel, from top to bottom."""

    sources: tuple[str, ...]
    workers: tuple[str, ...]
    resources: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """All rows. A worker and a source may share a name, so rows are addressed by index."""
        return (*self.sources, *self.workers, *self.resources)


@dataclass(frozen=True)
class Bar:
    """Duration of a block on a worker, or of a transfer on a network resource."""

    start_s: float
    end_s: float
    source: str
    label: str

    @property
    def duration_s(self) -> float:
        """Duration in seconds."""
        return self.end_s - self.start_s


def draw_timeline(
    records: Collection[Record],
    path: Path,
    *,
    predicted: Collection[Record] | None = None,
    instance: Instance | None = None,
    window_s: tuple[float, float] | None = None,
    titles: tuple[str, str] = ("Predicted (simulated)", "Measured"),
) -> None:
    """Draw the timeline of a run, with a row for each source, worker and network resource.

    Parameters
    ----------
    records
        The run; it is read several times, and only what is drawn is kept in memory.
    path
        File to write, ``.svg`` or ``.png``.
    predicted
        The simulated run, drawn above on the same axis.
    instance
        Defines the order of the rows, and adds rows for idle workers and networks. Without it, only workers and
        networks that occur are drawn, ordered by name.
    window_s
        Part of the run to draw, in seconds. Defaults to the whole run.
    titles
        Titles of the panels for ``predicted`` and ``records``. Without ``predicted``, the panel has no title.
    """
    panels = [("", records)] if predicted is None else [(titles[0], predicted), (titles[1], records)]
    runs = [panel for _, panel in panels]
    start_s, end_s = window_s or (0.0, 1.005 * max(map(_end_s, chain(*runs)), default=1.0))
    seconds_per_px = (end_s - start_s) / _PANEL_PX
    rows = _rows(chain(*runs), instance)
    colours = source_colours(rows.sources)
    with new_figure(path) as figure:
        axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        axes[-1].set_xlim(start_s, end_s)
        for panel, (title, drawn) in zip(axes, panels, strict=True):
            shown = [record for record in drawn if _start_s(record) <= end_s and _end_s(record) >= start_s]
            panel.set_title(title)
            _draw_panel(panel, shown, rows, colours, seconds_per_px)
        axes[-1].set_xlabel("Time since the start of the run [s]")
        figure.legend(handles=_legend(colours, runs, seconds_per_px), loc="outside upper right", ncols=6, frameon=False)


def busiest_window(records: Iterable[Record], length_s: float) -> tuple[float, float]:
    """Return the part of a run with the most samples in flight, to draw it enlarged.

    Parameters
    ----------
    length_s
        Length of the part, in seconds.

    Returns
    -------
    tuple
        Start and end of the part, in seconds.
    """
    spans_s = array("d")
    for record in records:
        if isinstance(record, SampleRecord):
            spans_s.extend((record.created_s, record.finished_s))
    created_s, finished_s = np.sort(np.frombuffer(spans_s).reshape(-1, 2), axis=0).T
    starts_s = np.unique(np.concatenate([[0.0], created_s]))

    def in_flight(until_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the integral over time of the number of samples in flight, up to each time in ``until_s``."""
        return _elapsed(until_s, created_s) - _elapsed(until_s, finished_s)

    start_s = float(starts_s[np.argmax(in_flight(starts_s + length_s) - in_flight(starts_s))])
    return start_s, start_s + length_s


def _elapsed(until_s: NDArray[np.float64], times_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return for each time in ``until_s`` the total time elapsed since each of the sorted ``times_s`` before it."""
    before = np.searchsorted(times_s, until_s)
    sums_s: NDArray[np.float64] = np.concatenate([[0.0], np.cumsum(times_s)])
    return before * until_s - sums_s[before]


def _start_s(record: Record) -> float:
    return record.created_s if isinstance(record, SampleRecord) else record.start_s


def _end_s(record: Record) -> float:
    return record.finished_s if isinstance(record, SampleRecord) else record.end_s


def _rows(records: Iterable[Record], instance: Instance | None) -> Rows:
    if instance is not None:
        return Rows(instance.sources, instance.workers, instance.resources)
    records = list(records)
    return Rows(
        sources=tuple(sorted({record.source for record in records})),
        workers=tuple(sorted({record.worker for record in records if isinstance(record, BlockRecord)})),
        resources=tuple(sorted({record.resource for record in records if isinstance(record, TransferRecord)})),
    )


def _draw_panel(
    axes: Axes, records: Sequence[Record], rows: Rows, colours: dict[str, str], seconds_per_px: float
) -> None:
    """Draw a run."""
    indices = range(len(rows.names))
    axes.set_ylim(len(rows.names) - 0.4, -0.6)
    axes.set_yticks(list(indices), rows.names)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    for row in indices:
        axes.axhspan(row - BAR_HEIGHT / 2, row + BAR_HEIGHT / 2, color=FAINT, alpha=0.35, linewidth=0, zorder=0)
    _draw_groups(axes, rows)
    for row, source in enumerate(rows.sources):
        ended = [record for record in records if isinstance(record, SampleRecord) and record.source == source]
        _draw_samples(axes, row, ended, colours[source])
    first = len(rows.sources)
    for row, worker in enumerate(rows.workers, start=first):
        # A worker runs one block at a time, so its bars do not overlap.
        blocks = [_block(record) for record in records if isinstance(record, BlockRecord) and record.worker == worker]
        _draw_bars(axes, row, [(bar, 0) for bar in blocks], colours, seconds_per_px)
    for row, resource in enumerate(rows.resources, start=first + len(rows.workers)):
        sent = [record for record in records if isinstance(record, TransferRecord) and record.resource == resource]
        _draw_bars(axes, row, assign_lanes([_transfer(record) for record in sent]), colours, seconds_per_px)


def _draw_groups(axes: Axes, rows: Rows) -> None:
    """Separate samples, workers and networks by lines, and label them on the right."""
    top = 0
    for name, group in (("samples", rows.sources), ("workers", rows.workers), ("networks", rows.resources)):
        if group:
            middle = top + (len(group) - 1) / 2
            axes.text(1.005, middle, name, transform=axes.get_yaxis_transform(), va="center", color=GREY, fontsize=10)
        top += len(group)
        if group and top < len(rows.names):
            axes.axhline(top - 0.5, color=GREY, linewidth=0.8)


def _draw_samples(axes: Axes, row: int, samples: Sequence[SampleRecord], colour: str) -> None:
    """Mark arrivals at the top of a row and ends at its bottom; a flatter line between them means a longer delay."""
    from matplotlib.collections import LineCollection

    high, low = row - BAR_HEIGHT / 3, row + BAR_HEIGHT / 3
    lines = [[(sample.created_s, high), (sample.finished_s, low)] for sample in samples]
    axes.add_collection(LineCollection(lines, colors=colour, linewidths=0.8, alpha=0.6), autolim=False)
    created = [sample.created_s for sample in samples]
    axes.plot(created, [high] * len(created), marker=_MARKS["arrived"], markersize=4, linestyle="none", color=colour)
    for status in ("completed", "failed", "dropped"):
        ended = [sample.finished_s for sample in samples if sample.status == status]
        axes.plot(ended, [low] * len(ended), marker=_MARKS[status], markersize=4, linestyle="none", color=colour)


def _block(record: BlockRecord) -> Bar:
    text = str(record.block) if record.last == record.block else f"{record.block}-{record.last}"
    return Bar(record.start_s, record.end_s, record.source, text if record.batch == 1 else f"{text} ×{record.batch}")


def _transfer(record: TransferRecord) -> Bar:
    return Bar(record.start_s, record.end_s, record.source, str(record.cut))


def assign_lanes(bars: Sequence[Bar]) -> list[tuple[Bar, int]]:
    """Return each bar with a lane, so that bars of a lane do not overlap and the number of lanes is minimal."""
    free_from_s: list[float] = []
    packed = []
    for bar in sorted(bars, key=lambda bar: (bar.start_s, bar.end_s)):
        lane = next((lane for lane, free_s in enumerate(free_from_s) if free_s <= bar.start_s), len(free_from_s))
        free_from_s[lane : lane + 1] = [bar.end_s]
        packed.append((bar, lane))
    return packed


def join_spans(spans: Iterable[tuple[float, float]], gap_s: float) -> list[tuple[float, float]]:
    """Return spans (start, end) with those joined that lie at most ``gap_s`` apart."""
    joined: list[tuple[float, float]] = []
    for start_s, end_s in sorted(spans):
        if joined and start_s - joined[-1][1] <= gap_s:
            joined[-1] = (joined[-1][0], max(end_s, joined[-1][1]))
        else:
            joined.append((start_s, end_s))
    return joined


def _draw_bars(
    axes: Axes, row: int, packed: Sequence[tuple[Bar, int]], colours: dict[str, str], seconds_per_px: float
) -> None:
    """Draw the bars of a row in their lanes."""
    lanes = 1 + max((lane for _, lane in packed), default=0)
    height = BAR_HEIGHT / lanes
    separated_s = _SEPARATED_PX * seconds_per_px
    for lane in range(lanes):
        low = row - BAR_HEIGHT / 2 + lane * height
        for source, colour in colours.items():
            bars = [bar for bar, bar_lane in packed if bar_lane == lane and bar.source == source]
            # A pixel separates neighbouring bars; bars too thin for that are joined.
            wide = [(bar.start_s, bar.end_s - seconds_per_px) for bar in bars if bar.duration_s > separated_s]
            thin = [(bar.start_s, bar.end_s) for bar in bars if bar.duration_s <= separated_s]
            spans = [
                (start_s, max(end_s - start_s, seconds_per_px))  # bars thinner than a pixel may not be drawn
                for start_s, end_s in (*wide, *join_spans(thin, seconds_per_px / 4))
            ]
            axes.broken_barh(spans, (low, height), facecolor=colour, linewidth=0)
        labelled = [bar for bar, bar_lane in packed if bar_lane == lane and bar.duration_s > _LABEL_PX * seconds_per_px]
        for bar in labelled if height > BAR_HEIGHT / 3 else ():
            axes.text(
                (bar.start_s + bar.end_s) / 2,
                low + height / 2,
                bar.label,
                ha="center",
                va="center",
                fontsize=9,
                color=text_colour(colours[bar.source]),
                clip_on=True,
            )


def _legend(colours: dict[str, str], runs: Sequence[Collection[Record]], seconds_per_px: float) -> list[object]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    ends = {record.status for record in chain(*runs) if isinstance(record, SampleRecord)}
    labels = any(
        record.end_s - record.start_s > _LABEL_PX * seconds_per_px
        for record in chain(*runs)
        if not isinstance(record, SampleRecord)
    )
    return [
        *(Patch(color=colour, label=source) for source, colour in colours.items()),
        *(
            Line2D([], [], linestyle="none", marker=marker, color=GREY, label=f"sample {kind}")
            for kind, marker in _MARKS.items()
            if kind in {"arrived", "completed"} or kind in ends
        ),
        *([Line2D([], [], linestyle="none", label="number: block, or cut of a transfer")] if labels else []),
    ]
