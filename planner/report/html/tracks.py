"""Traces for a page: slices in compressed columns, delays as quantiles, queues as means over short times."""

from __future__ import annotations

import base64
import zlib
from array import array
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from planner.base import FrozenModel
from planner.trace.records import BlockRecord, Record, SampleRecord

MAX_SLICES: Final = 400_000
"""Maximum number of slices of all timelines of a page; of longer runs they show the beginning."""

JOINED: Final = 0.05
"""Largest pause between two blocks of a sample that are drawn as one slice, as a share of the earlier one's time."""

BINS: Final = 300
"""Number of parts into which queues over time are divided."""

MAX_SERIES: Final = 48
"""Maximum number of workers and links whose queues are drawn: the longest ones."""

LEVELS: Final = (*(index / 200 for index in range(200)), 0.9975, 0.999, 1.0)
"""Levels of the quantiles by which a distribution is drawn."""

_STATUS: Final = {"completed": 0, "failed": 1, "dropped": 2}
_RANGE: Final = 2**32 - 1

Floats: TypeAlias = NDArray[np.float64]
Columns: TypeAlias = dict[str, NDArray[Any]]
TrackName: TypeAlias = tuple[Literal["worker", "link"], str]


class Track(FrozenModel):
    """A row of the timeline: a worker or a network resource."""

    kind: Literal["worker", "link"]
    name: str
    busy: float
    """Share of the run in which it was busy; with transfers at the same time, their sum."""


class Delays(FrozenModel):
    """Delays of a source's samples, in seconds."""

    completed: int
    failed: int
    dropped: int
    late: int | None
    """Number of completed samples that missed the deadline; None without one."""
    mean_s: float | None
    p50_s: float | None
    p95_s: float | None
    p99_s: float | None
    quantiles_s: tuple[float, ...]
    """Delays at :data:`LEVELS`; empty if no sample completed."""


class Series(FrozenModel):
    """A number of samples over time: means over equal parts of the run."""

    kind: Literal["worker", "link", "source"]
    name: str
    values: tuple[float, ...]


class PackedTrace(FrozenModel):
    """A trace.

    Parameters
    ----------
    tick_s
        Unit of the times in the columns, in seconds.
    shown_s
        The timeline shows what began before this time.
    slices
        Compressed columns in base64, see :func:`pack`: sample, start, time and bytes in four bytes each, then track,
        source, first and last block (or cut) in two bytes each.
    samples
        Likewise: arrival and delay in four bytes each, source and status (completed, failed, dropped) in two.
    """

    label: str
    end_s: float
    shown_s: float
    tick_s: float
    sources: tuple[str, ...]
    tracks: tuple[Track, ...]
    slice_count: int
    slices: str
    sample_count: int
    samples: str
    delays: dict[str, Delays]
    queues: tuple[Series, ...]
    levels: tuple[float, ...] = LEVELS


def pack(columns: Sequence[NDArray[Any]]) -> str:
    """Return columns of unsigned integers one after the other, little-endian, as base64 of their zlib compression."""
    raw = b"".join(column.astype(column.dtype.newbyteorder("<")).tobytes() for column in columns)
    return base64.b64encode(zlib.compress(raw, 9)).decode("ascii")


class TraceColumns:
    """Collects the records of a run in columns, 40 bytes each.

    Parameters
    ----------
    latency_s
        Latency of each network resource whose transfer records leave it out.
    """

    def __init__(self, latency_s: Mapping[str, float] | None = None) -> None:
        self._latency_s = latency_s or {}
        self._sources: dict[str, int] = {}
        self._tracks: dict[TrackName, int] = {}
        self._whole = {name: array("q") for name in ("track", "source", "sample", "first", "last", "bytes")}
        self._times = {name: array("d") for name in ("start", "end")}
        self._ended = {name: array("q") for name in ("source", "sample", "status")}
        self._ends = {name: array("d") for name in ("created", "finished")}

    def add(self, record: Record) -> None:
        """Add a record."""
        source = self._sources.setdefault(record.source, len(self._sources))
        if isinstance(record, SampleRecord):
            self._ended["source"].append(source)
            self._ended["sample"].append(record.sample)
            self._ended["status"].append(_STATUS[record.status])
            self._ends["created"].append(record.created_s)
            self._ends["finished"].append(record.finished_s)
            return
        track: TrackName
        if isinstance(record, BlockRecord):
            track, first, last, size = ("worker", record.worker), record.block, record.last, 0
        else:
            track, first, last, size = ("link", record.resource), record.cut, record.cut, record.size_bytes
        values = (self._tracks.setdefault(track, len(self._tracks)), source, record.sample, first, last, size)
        for column, value in zip(self._whole.values(), values, strict=True):
            column.append(value)
        self._times["start"].append(record.start_s)
        self._times["end"].append(record.end_s)

    def packed(
        self,
        label: str,
        *,
        sources: Sequence[str] = (),
        workers: Sequence[str] = (),
        resources: Sequence[str] = (),
        deadlines: Mapping[str, float | None] | None = None,
        max_slices: int = MAX_SLICES,
    ) -> PackedTrace:
        """Return all records added.

        Parameters
        ----------
        sources, workers, resources
            Order of the rows; names that do not occur get no row, and others follow by name.
        deadlines
            Deadline of each source's samples in seconds, where there is one.
        max_slices
            Maximum number of slices of the timeline.
        """
        columns: Columns = {name: np.array(column, np.int64) for name, column in self._whole.items()}
        columns |= {name: np.array(column, np.float64) for name, column in self._times.items()}
        ended: Columns = {name: np.array(column, np.int64) for name, column in self._ended.items()}
        ended |= {name: np.array(column, np.float64) for name, column in self._ends.items()}
        names = _ordered(self._sources, sources)
        tracks: list[TrackName] = [("worker", name) for name in _ordered(self._names("worker"), workers)]
        tracks += [("link", name) for name in _ordered(self._names("link"), resources)]
        _renumber(columns, "track", [self._tracks[track] for track in tracks])
        for table in (columns, ended):
            _renumber(table, "source", [self._sources[name] for name in names])
        end_s = float(max(columns["end"].max(initial=0.0), ended["finished"].max(initial=0.0)))
        is_link = np.array([kind == "link" for kind, _ in tracks], bool)
        slices = _joined(columns, is_link)
        latency_s = np.array([self._latency_s.get(name, 0.0) if kind == "link" else 0.0 for kind, name in tracks])
        busy_s = np.bincount(slices["track"], slices["end"] - slices["start"], len(tracks)) if tracks else np.zeros(0)
        tick_s = max(1e-6, end_s / _RANGE)
        order = np.argsort(slices["start"], kind="stable")
        drawn = {name: column[order][:max_slices] for name, column in slices.items()}
        complete = len(order) <= max_slices
        return PackedTrace(
            label=label,
            end_s=end_s,
            shown_s=end_s if complete else float(drawn["start"][-1]),
            tick_s=tick_s,
            sources=tuple(names),
            tracks=tuple(
                Track(kind=kind, name=name, busy=float(busy_s[row]) / end_s if end_s else 0.0)
                for row, (kind, name) in enumerate(tracks)
            ),
            slice_count=len(drawn["start"]),
            slices=_pack_slices(drawn, tick_s),
            sample_count=len(ended["source"]),
            samples=_pack_samples(ended, tick_s),
            delays={name: _delays(ended, index, (deadlines or {}).get(name)) for index, name in enumerate(names)},
            queues=_queues(slices, ended, tracks, names, latency_s=latency_s, end_s=end_s),
        )

    def _names(self, kind: str) -> dict[str, int]:
        return {name: index for (of_kind, name), index in self._tracks.items() if of_kind == kind}


def _ordered(present: Mapping[str, int], order: Sequence[str]) -> list[str]:
    """Return the names that are present, first those of an order."""
    return [*(name for name in order if name in present), *sorted(present.keys() - set(order))]


def _renumber(table: Columns, column: str, new_order: Sequence[int]) -> None:
    """Replace numbers by their places in a new order."""
    place = np.zeros(max(len(new_order), 1), np.int64)
    place[list(new_order)] = np.arange(len(new_order))
    table[column] = place[table[column]]


def _joined(columns: Columns, is_link: NDArray[np.bool_]) -> Columns:
    """Return slices ordered by sample and start; blocks of a sample that follow each other on a worker become one."""
    order = np.lexsort((columns["start"], columns["sample"], columns["source"]))
    table = {name: column[order] for name, column in columns.items()}
    if not len(order):
        return table
    same = np.ones(len(order) - 1, bool)
    for name in ("source", "sample", "track"):
        same &= table[name][1:] == table[name][:-1]
    pause_s = table["start"][1:] - table["end"][:-1]
    same &= table["first"][1:] == table["last"][:-1] + 1
    same &= pause_s <= JOINED * (table["end"] - table["start"])[:-1]
    same &= ~is_link[table["track"][1:]]
    starts = np.flatnonzero(np.concatenate([[True], ~same]))
    ends = np.append(starts[1:], len(order)) - 1
    return {name: column[ends if name in {"last", "end"} else starts] for name, column in table.items()}


def _pack_slices(slices: Columns, tick_s: float) -> str:
    start = np.rint(slices["start"] / tick_s).clip(0, _RANGE).astype(np.uint32)
    time = np.rint((slices["end"] - slices["start"]) / tick_s).clip(0, _RANGE).astype(np.uint32)
    four = [
        _steps(slices["sample"].astype(np.uint32)),
        _steps(start),
        time,
        slices["bytes"].clip(0, _RANGE).astype(np.uint32),
    ]
    two = [slices[name].clip(0, 65535).astype(np.uint16) for name in ("track", "source", "first", "last")]
    return pack([*four, *two])


def _pack_samples(ended: Columns, tick_s: float) -> str:
    order = np.argsort(ended["created"], kind="stable")
    table = {name: column[order] for name, column in ended.items()}
    created = np.rint(table["created"] / tick_s).clip(0, _RANGE).astype(np.uint32)
    delay = np.rint((table["finished"] - table["created"]) / tick_s).clip(0, _RANGE).astype(np.uint32)
    return pack([_steps(created), delay, *(table[name].astype(np.uint16) for name in ("source", "status"))])


def _steps(values: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Return each value minus the one before, modulo 2³², which compresses better."""
    return np.diff(values, prepend=np.uint32(0)).astype(np.uint32)


def _delays(ended: Columns, source: int, deadline_s: float | None) -> Delays:
    of_source = ended["source"] == source
    status = ended["status"][of_source]
    delays_s: Floats = np.sort((ended["finished"] - ended["created"])[of_source][status == 0])
    some = len(delays_s) > 0
    p50_s, p95_s, p99_s = (_short(value) for value in np.percentile(delays_s, (50, 95, 99))) if some else (None,) * 3
    return Delays(
        completed=len(delays_s),
        failed=int((status == 1).sum()),
        dropped=int((status == 2).sum()),
        late=None if deadline_s is None else int((delays_s > deadline_s).sum()),
        mean_s=_short(float(delays_s.mean())) if some else None,
        p50_s=p50_s,
        p95_s=p95_s,
        p99_s=p99_s,
        quantiles_s=tuple(_short(value) for value in np.quantile(delays_s, LEVELS)) if some else (),
    )


def _short(value: float) -> float:
    """Return a value with six significant digits."""
    return float(f"{value:.6g}")


def _queues(
    slices: Columns,
    ended: Columns,
    tracks: Sequence[TrackName],
    sources: Sequence[str],
    *,
    latency_s: Floats,
    end_s: float,
) -> tuple[Series, ...]:
    """Return the number of samples that wait at each worker and link, and of those in flight of each source."""
    if not end_s:
        return ()
    before_s = _ready_s(slices, ended, latency_s)
    waits = slices["start"] > before_s
    series = []
    for row, (kind, name) in enumerate(tracks):
        mine = waits & (slices["track"] == row)
        series.append(Series(kind=kind, name=name, values=_means(before_s[mine], slices["start"][mine], end_s)))
    longest = sorted(series, key=lambda entry: -sum(entry.values))[:MAX_SERIES]
    in_flight = []
    for index, name in enumerate(sources):
        mine = ended["source"] == index
        in_flight.append(
            Series(kind="source", name=name, values=_means(ended["created"][mine], ended["finished"][mine], end_s))
        )
    return (*in_flight, *(entry for entry in series if entry in longest))


def _ready_s(slices: Columns, ended: Columns, latency_s: Floats) -> Floats:
    """Return from when on each slice could have begun: the end of its sample's slice before, or its arrival."""
    ready_s: Floats = slices["start"].copy()
    if not len(ready_s):
        return ready_s
    most = int(max(slices["sample"].max(), ended["sample"].max(initial=0))) + 1
    keys = slices["source"] * most + slices["sample"]
    follows = np.concatenate([[False], keys[1:] == keys[:-1]])
    ready_s[1:] = np.where(follows[1:], (slices["end"] + latency_s[slices["track"]])[:-1], ready_s[1:])
    arrivals = ended["source"] * most + ended["sample"]
    order = np.argsort(arrivals)
    if len(order):
        found = order[np.searchsorted(arrivals[order], keys).clip(max=len(order) - 1)]
        known = ~follows & (arrivals[found] == keys)
        ready_s[known] = ended["created"][found[known]]
    return ready_s


def _means(start_s: Floats, end_s: Floats, length_s: float) -> tuple[float, ...]:
    """Return for each of :data:`BINS` equal parts of a run how many of some spans of time there are on average."""
    edges_s = np.linspace(0.0, length_s, BINS + 1)
    covered_s = _elapsed(edges_s, np.sort(start_s)) - _elapsed(edges_s, np.sort(end_s))
    return tuple(round(max(value, 0.0), 3) for value in (np.diff(covered_s) / (length_s / BINS)).tolist())


def _elapsed(until_s: Floats, times_s: Floats) -> Floats:
    """Return for each time in ``until_s`` the total time elapsed since each of the sorted ``times_s`` before it."""
    before = np.searchsorted(times_s, until_s)
    sums_s: Floats = np.concatenate([[0.0], np.cumsum(times_s)])
    return before * until_s - sums_s[before]
