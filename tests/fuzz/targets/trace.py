"""Traces of runs, one JSON object per line, with their metrics; and text files of arrival times."""

from __future__ import annotations

import json
from functools import cache

from hypothesis import strategies as st

import planner
from planner.scenario.load import read_trace
from planner.trace.records import Record, SampleRecord, read_records, write_records
from planner.trace.store import RecordStore
from tests.fuzz.judge import Target
from tests.fuzz.mutate import damaged, mutated
from tests.fuzz.seeds import folder, put
from tests.fuzz.targets.plan import scenario

TIMES = [b"0.0\n0.5\n1e3\n", b"1\n\n2\n2\n", b"nan\n", b"1e999\n", b"0x1\n1_0\n", b"-1\n", b"2\n1\n", b"\xff\n", b""]


@cache
def lines() -> list[str]:
    """Return lines of a simulated run, of each kind."""
    result = planner.simulate(scenario(), policy="pa-mdi", folder=folder() / "run", progress=None)
    assert result is not None
    return (folder() / "run" / "trace.jsonl").read_text(encoding="utf-8").splitlines()[:200]


def _whole(records: list[str]) -> bytes:
    return "\n".join(records).encode("utf-8", "surrogatepass")


def read(case: tuple[str, bytes]) -> None:
    """Read a trace and compress it again, or arrival times."""
    kind, content = case
    if kind == "times":
        read_trace(put("times.txt", content))
        return
    records: list[Record] = read_records(put("trace.jsonl", content))
    [record.delay_s for record in records if isinstance(record, SampleRecord)]
    write_records(folder() / "again.jsonl", RecordStore(records))


@cache
def documents() -> list[object]:
    """Return records as values."""
    return [json.loads(line) for line in lines()]


CASES = st.one_of(
    st.lists(st.deferred(lambda: mutated(documents())), min_size=1, max_size=3).map(
        lambda some: ("trace", _whole(some))
    ),
    st.deferred(lambda: damaged([_whole(lines())])).map(lambda content: ("trace", content)),
    damaged(TIMES[:-1]).map(lambda content: ("times", content)),
    st.sampled_from(TIMES).map(lambda content: ("times", content)),
)
TARGET = Target("trace", CASES, read)
