"""Traces in the Chrome Trace Event Format, which https://ui.perfetto.dev shows.

A run is a process, a worker or network resource a track, a block or transfer a slice; arrows follow each sample from
slice to slice, and its stay from arrival to result is a slice of its source's own tracks.

Slices of a track must nest, or the viewer drops them: those that overlap otherwise go to further tracks of their name.
Times are whole nanoseconds, since the end of a slice that is rounded by itself could pass the start of the next.

Source: "Trace Event Format", https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from planner.files import open_atomic
from planner.trace.records import BlockRecord, Record, SampleRecord

_ORDER: Final = ("source", "worker", "link")
"""Kinds of tracks from top to bottom."""

Event = dict[str, Any]


@dataclass
class _Lanes:
    """Tracks of one name: a slice goes to the first that is free."""

    free: list[int] = field(default_factory=list)
    busy: list[tuple[int, int]] = field(default_factory=list)
    count: int = 0

    def place(self, start_ns: int, end_ns: int) -> int:
        """Return the lane of a slice; slices come in the order of their starts."""
        while self.busy and self.busy[0][0] <= start_ns:
            heapq.heappush(self.free, heapq.heappop(self.busy)[1])
        if not self.free:
            heapq.heappush(self.free, self.count)
            self.count += 1
        lane = heapq.heappop(self.free)
        heapq.heappush(self.busy, (end_ns, lane))
        return lane


@dataclass(frozen=True)
class _Slice:
    kind: str
    track: str
    start_ns: int
    end_ns: int
    name: str
    source: str
    sample: int
    arguments: Event


def write_chrome_trace(path: Path, runs: Sequence[tuple[str, Iterable[Record]]]) -> None:
    """Write runs, each with its name, to one JSON file."""
    with open_atomic(path) as file:
        file.write(b'{"displayTimeUnit":"ms","traceEvents":[\n')
        before = b""
        for event in _events(runs):
            file.write(before + json.dumps(event, separators=(",", ":")).encode("ascii"))
            before = b",\n"
        file.write(b"\n]}\n")


def _events(runs: Sequence[tuple[str, Iterable[Record]]]) -> Iterator[Event]:
    flow = 0
    for process, (name, records) in enumerate(runs, start=1):
        yield _named("process_name", process, 0, name)
        yield {"ph": "M", "name": "process_sort_index", "pid": process, "tid": 0, "args": {"sort_index": process}}
        slices = sorted(map(_slice, records), key=lambda it: (it.start_ns, it.end_ns))
        tracks: dict[tuple[str, str], _Lanes] = {}
        threads: dict[tuple[str, str, int], int] = {}
        by_sample: dict[tuple[str, int], list[tuple[_Slice, int]]] = {}
        for piece in slices:
            lanes = tracks.setdefault((piece.kind, piece.track), _Lanes())
            lane = lanes.place(piece.start_ns, max(piece.end_ns, piece.start_ns + 1))
            thread = threads.setdefault((piece.kind, piece.track, lane), len(threads) + 1)
            yield _complete(piece, process, thread)
            if piece.kind != "source":
                by_sample.setdefault((piece.source, piece.sample), []).append((piece, thread))
        for place, (kind, track, lane) in enumerate(sorted(threads, key=lambda it: (_ORDER.index(it[0]), *it[1:]))):
            thread = threads[kind, track, lane]
            shown = f"{kind} {track}" if lane == 0 else f"{kind} {track} ({lane + 1})"
            yield _named("thread_name", process, thread, shown)
            index = {"sort_index": place}
            yield {"ph": "M", "name": "thread_sort_index", "pid": process, "tid": thread, "args": index}
        for pieces in by_sample.values():
            flow += 1
            yield from _arrows(pieces, process, flow)


def _slice(record: Record) -> _Slice:
    arguments: Event
    if isinstance(record, SampleRecord):
        start_s, end_s, kind, track = record.created_s, record.finished_s, "source", record.source
        name, arguments = f"sample {record.sample}", {"status": record.status}
        if record.reason:
            arguments["reason"] = record.reason
    elif isinstance(record, BlockRecord):
        start_s, end_s, kind, track = record.start_s, record.end_s, "worker", record.worker
        name, arguments = f"{record.source}: {record.blocks}", {}
        if record.batch > 1:
            arguments["batch"] = record.batch
    else:
        start_s, end_s, kind, track = record.start_s, record.end_s, "link", record.resource
        name = f"{record.source}: cut {record.cut}"
        arguments = {"bytes": record.size_bytes, "from": record.sender, "to": record.receiver}
    start_ns = round(start_s * 1e9)
    return _Slice(
        kind, track, start_ns, max(round(end_s * 1e9), start_ns), name, record.source, record.sample, arguments
    )


def _complete(piece: _Slice, process: int, thread: int) -> Event:
    return {
        "ph": "X",
        "cat": piece.kind,
        "name": piece.name,
        "pid": process,
        "tid": thread,
        "ts": _microseconds(piece.start_ns),
        "dur": _microseconds(piece.end_ns - piece.start_ns),
        "args": {"source": piece.source, "sample": piece.sample, **piece.arguments},
    }


def _arrows(pieces: Sequence[tuple[_Slice, int]], process: int, flow: int) -> Iterator[Event]:
    """Return the arrow through the slices of a sample: each of its points lies at the start of a slice."""
    if len(pieces) < 2:
        return
    for index, (piece, thread) in enumerate(pieces):
        phase = "s" if index == 0 else "f" if index == len(pieces) - 1 else "t"
        event = {"ph": phase, "cat": "sample", "name": f"{piece.source} {piece.sample}", "id": flow, "pid": process}
        event |= {"tid": thread, "ts": _microseconds(piece.start_ns)}
        yield event | ({"bp": "e"} if phase == "f" else {})


def _named(what: str, process: int, thread: int, name: str) -> Event:
    return {"ph": "M", "name": what, "pid": process, "tid": thread, "args": {"name": name}}


def _microseconds(time_ns: int) -> float:
    """Return a time in the format's unit; a double holds nanoseconds exactly enough for runs of months."""
    return time_ns / 1000
