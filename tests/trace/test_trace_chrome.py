"""Traces in the Chrome Trace Event Format: tracks, nesting, arrows."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.trace.chrome import write_chrome_trace
from planner.trace.records import BlockRecord, Record, SampleRecord, TransferRecord
from tests.report.runs import small_run

KEYS = {
    "X": {"ph", "cat", "name", "pid", "tid", "ts", "dur", "args"},
    "M": {"ph", "name", "pid", "tid", "args"},
    "s": {"ph", "cat", "name", "id", "pid", "tid", "ts"},
    "t": {"ph", "cat", "name", "id", "pid", "tid", "ts"},
    "f": {"ph", "cat", "name", "id", "pid", "tid", "ts", "bp"},
}


def written(folder: Path, *runs: tuple[str, list[Record]]) -> list[dict[str, Any]]:
    write_chrome_trace(folder / "trace.json", runs)
    events: list[dict[str, Any]] = json.loads((folder / "trace.json").read_text())["traceEvents"]
    return events


def nanoseconds(microseconds: float) -> int:
    return round(microseconds * 1000)


def check(events: list[dict[str, Any]]) -> None:
    """Check what a viewer asks: known keys, slices of a track apart or nested, arrows that start in slices."""
    slices = defaultdict[tuple[int, int], list[tuple[int, int]]](list)
    for event in events:
        assert event.keys() == KEYS[event["ph"]]
        if event["ph"] == "X":
            start = nanoseconds(event["ts"])
            slices[event["pid"], event["tid"]].append((start, start + nanoseconds(event["dur"])))
    for track in slices.values():
        for (_, end), (start, _) in zip(sorted(track), sorted(track)[1:], strict=False):
            assert end <= start
    named = {(event["pid"], event["tid"]) for event in events if event["name"] == "thread_name"}
    assert slices.keys() == named
    arrows = defaultdict[int, list[dict[str, Any]]](list)
    for event in events:
        if event["ph"] in "stf":
            arrows[event["id"]].append(event)
            at = nanoseconds(event["ts"])
            assert any(start <= at <= end for start, end in slices[event["pid"], event["tid"]])
    for points in arrows.values():
        assert [point["ph"] for point in points] == ["s", *"t" * (len(points) - 2), "f"]
        assert [point["ts"] for point in points] == sorted(point["ts"] for point in points)


def test_a_run_has_a_track_a_worker_and_link_and_an_arrow_a_sample(tmp_path: Path) -> None:
    events = written(tmp_path, ("predicted", small_run()), ("measured", small_run(0.4)))
    check(events)
    assert [event["args"]["name"] for event in events if event["name"] == "process_name"] == ["predicted", "measured"]
    tracks = {event["args"]["name"] for event in events if event["name"] == "thread_name" and event["pid"] == 1}
    assert tracks == {"source gate", "source yard", "worker box", "worker hut", "link lan"}
    assert (
        len({event["id"] for event in events if event["ph"] == "s"}) == 2 * 4
    )  # the yard's samples have one slice each


def test_transfers_at_the_same_time_go_to_tracks_of_their_own(tmp_path: Path) -> None:
    records: list[Record] = [
        TransferRecord("lan", "a", "b", "gate", sample, 1, 10, 0.1 * sample, 0.1 * sample + 0.25) for sample in range(6)
    ]
    events = written(tmp_path, ("run", records))
    check(events)
    tracks = [event["args"]["name"] for event in events if event["name"] == "thread_name"]
    assert tracks == ["link lan", "link lan (2)", "link lan (3)"]


times = st.floats(0, 1e4, allow_nan=False)
spans = st.tuples(times, st.floats(0, 10)).map(lambda span: (span[0], span[0] + span[1]))
names = st.sampled_from(["a", "b", '"<&'])
records = st.lists(
    st.one_of(
        st.builds(
            lambda w, s, k, b, t: BlockRecord(w, s, k, b, *t), names, names, st.integers(0, 3), st.integers(0, 3), spans
        ),
        st.builds(lambda s, k, t: TransferRecord("lan", "a", "b", s, k, 1, 10, *t), names, st.integers(0, 3), spans),
        st.builds(lambda s, k, t: SampleRecord(s, k, t[0], t[1], "completed"), names, st.integers(0, 3), spans),
    ),
    max_size=30,
)


@given(records)
def test_any_run_nests(tmp_path_factory: pytest.TempPathFactory, records: list[Record]) -> None:
    check(written(tmp_path_factory.mktemp("chrome"), ("run", records)))
