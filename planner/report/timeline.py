"""The timeline of a run: what each worker and each network did when, and when samples came and were done."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from planner.report.figure import FAINT, GREY, new_figure, source_colours
from planner.scenario.instance import Instance
from planner.trace.records import BlockRecord, Record, SampleRecord, TransferRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BAR_HEIGHT: Final = 0.72
_MARKS: Final = {"arrived": "2", "completed": "o", "failed": "X"}
_LABEL_PX: Final = 18
"""A bar at least this wide has room for the number of its block or cut."""
_PANEL_PX: Final = 1400


@dataclass(frozen=True)
class Rows:
    """Names of the rows of a panel, from top to bottom."""

    sources: tuple[str, ...]
    workers: tuple[str, ...]
    resources: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """All rows; a worker and a source may have the same name, so places are counted, not looked up."""
        return (*self.sources, *self.workers, *self.resources)


@dataclass(frozen=True)
class Bar:
    """Something that took a time: a block on a worker, or a transfer on a network resource."""

    start_s: float
    end_s: float
    source: str
    label: str


def draw_timeline(
    records: Sequence[Record],
    path: Path,
    *,
    predicted: Sequence[Record] | None = None,
    instance: Instance | None = None,
    window_s: tuple[float, float] | None = None,
    titles: tuple[str, str] = ("Predicted (simulated)", "Measured"),
) -> None:
    """Draw what happened in a run, one row a source, a worker and a network resource.

    Parameters
    ----------
    records
        The run.
    path
        File to write, ``.svg`` or ``.png``.
    predicted
        The simulated run, drawn above on the same axis.
    instance
        Gives the order of the rows, and rows for workers and networks that did nothing; without it, those that
        occur, by name.
    window_s
        Part of the run to draw, in seconds; by default all of it.
    titles
        Of the panels for ``predicted`` and ``records``; a single panel has the second only when ``predicted`` is given.
    """
    panels = [("", records)] if predicted is None else [(titles[0], predicted), (titles[1], records)]
    every = [record for _, panel in panels for record in panel]
    rows = _rows(every, instance)
    start_s, end_s = window_s or (0.0, max((_end_s(record) for record in every), default=1.0))
    colours = source_colours(rows.sources)
    with new_figure(path) as figure:
        axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        axes[-1].set_xlim(start_s, end_s)
        for panel, (title, drawn) in zip(axes, panels, strict=True):
            shown = [record for record in drawn if _start_s(record) <= end_s and _end_s(record) >= start_s]
            panel.set_title(title)
            _draw_panel(panel, shown, rows, colours, seconds_per_px=(end_s - start_s) / _PANEL_PX)
        axes[-1].set_xlabel("Time since the start of the run [s]")
        figure.legend(handles=_legend(colours, every), loc="outside upper right", ncols=9, frameon=False)


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
    axes: Axes, records: Sequence[Record], rows: Rows, colours: dict[str, str], *, seconds_per_px: float
) -> None:
    """Draw one run."""
    places = range(len(rows.names))
    axes.set_ylim(len(rows.names) - 0.4, -0.6)
    axes.set_yticks(list(places), rows.names)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    for place in places:
        axes.axhspan(place - BAR_HEIGHT / 2, place + BAR_HEIGHT / 2, color=FAINT, alpha=0.35, linewidth=0, zorder=0)
    for border in (len(rows.sources), len(rows.sources) + len(rows.workers)):
        axes.axhline(border - 0.5, color=GREY, linewidth=0.8)
    for place, source in enumerate(rows.sources):
        ended = [record for record in records if isinstance(record, SampleRecord) and record.source == source]
        _draw_samples(axes, place, ended, colours[source])
    for place, bars in enumerate(_bars(records, rows), start=len(rows.sources)):
        _draw_bars(axes, place, bars, colours, seconds_per_px)


def _draw_samples(axes: Axes, place: int, samples: Sequence[SampleRecord], colour: str) -> None:
    """Mark arrivals in the upper half of a row, and ends in the lower."""
    times = {
        "arrived": [sample.created_s for sample in samples],
        "completed": [sample.finished_s for sample in samples if sample.status == "completed"],
        "failed": [sample.finished_s for sample in samples if sample.status == "failed"],
    }
    for kind, marker in _MARKS.items():
        height = place + (-0.18 if kind == "arrived" else 0.18)
        axes.plot(times[kind], [height] * len(times[kind]), marker=marker, linestyle="none", color=colour)


def _bars(records: Sequence[Record], rows: Rows) -> list[list[Bar]]:
    """Collect the bars of each worker and of each resource."""
    workers: dict[str, list[Bar]] = {worker: [] for worker in rows.workers}
    resources: dict[str, list[Bar]] = {resource: [] for resource in rows.resources}
    for record in records:
        if isinstance(record, BlockRecord):
            workers[record.worker].append(Bar(record.start_s, record.end_s, record.source, str(record.block)))
        elif isinstance(record, TransferRecord):
            resources[record.resource].append(Bar(record.start_s, record.end_s, record.source, str(record.cut)))
    return [*workers.values(), *resources.values()]


def pack(bars: Sequence[Bar]) -> list[tuple[Bar, int]]:
    """Give each bar a lane such that no two bars of a lane overlap, with as few lanes as can be."""
    free_from_s: list[float] = []
    packed = []
    for bar in sorted(bars, key=lambda bar: (bar.start_s, bar.end_s)):
        # Clocks of different workers, and rounding, make neighbours touch.
        lane = next((lane for lane, free_s in enumerate(free_from_s) if free_s <= bar.start_s + 1e-9), len(free_from_s))
        free_from_s[lane : lane + 1] = [bar.end_s]
        packed.append((bar, lane))
    return packed


def _draw_bars(axes: Axes, place: int, bars: Sequence[Bar], colours: dict[str, str], seconds_per_px: float) -> None:
    packed = pack(bars)
    if not packed:
        return
    height = BAR_HEIGHT / (max(lane for _, lane in packed) + 1)
    mean_s = sum(bar.end_s - bar.start_s for bar in bars) / len(bars)
    border = 0.6 if mean_s > 6 * seconds_per_px else 0.0  # between thin bars white borders would be all that is seen
    for source, colour in colours.items():
        for lane in {lane for bar, lane in packed if bar.source == source}:
            spans = [(b.start_s, b.end_s - b.start_s) for b, at in packed if b.source == source and at == lane]
            low = place - BAR_HEIGHT / 2 + lane * height
            axes.broken_barh(spans, (low, height), facecolor=colour, edgecolor="white", linewidth=border)
    for bar, lane in packed:
        if bar.end_s - bar.start_s > _LABEL_PX * seconds_per_px and height > BAR_HEIGHT / 3:
            middle = place - BAR_HEIGHT / 2 + (lane + 0.5) * height
            centre_s = (bar.start_s + bar.end_s) / 2
            axes.text(centre_s, middle, bar.label, ha="center", va="center", fontsize=9, color="white", clip_on=True)


def _legend(colours: dict[str, str], records: Iterable[Record]) -> list[object]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    failed = any(isinstance(record, SampleRecord) and record.status == "failed" for record in records)
    return [
        *(Patch(color=colour, label=source) for source, colour in colours.items()),
        *(
            Line2D([], [], linestyle="none", marker=marker, color=GREY, label=f"sample {kind}")
            for kind, marker in _MARKS.items()
            if kind != "failed" or failed
        ),
    ]
