"""Records stored in a file: complete, in order, readable repeatedly, in bounded memory."""

from __future__ import annotations

import tempfile
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from planner.errors import PlannerError
from planner.trace.records import BlockRecord, Record, SampleRecord, encode_records
from planner.trace.store import KEPT, RecordStore, Spool, pack


def block(number: int) -> BlockRecord:
    return BlockRecord("a", "camera", number, 0, number / 7, (number + 1) / 7)


@given(st.lists(st.binary(max_size=50)))
def test_a_spool_keeps_order_and_can_grow_while_it_is_read(pieces: list[bytes]) -> None:
    spool = Spool()
    for piece in pieces:
        spool.add(piece)
        assert list(spool)[-1] == piece
    reader = iter(spool)
    first = [piece for _, piece in zip(pieces[:1], reader, strict=False)]
    spool.add(b"last")
    assert [*first, *reader] == [*pieces, b"last"]


@pytest.mark.parametrize("keep", [0, 1, 499, 1000, KEPT])
@pytest.mark.parametrize("count", [0, 1, 499, 500, 1001])
def test_records_can_be_read_repeatedly(count: int, keep: int) -> None:
    records: list[Record] = [block(number) for number in range(count)]
    records[::10] = [SampleRecord("camera", number, 0.1, 0.2, "completed") for number in range(0, count, 10)]
    store = RecordStore(records, keep=keep)
    assert list(store) == list(store) == records
    assert len(store) == count
    assert all(record in store for record in records[-3:])
    assert block(count) not in store


def test_the_first_records_are_not_read_again() -> None:
    records = [block(number) for number in range(5)]
    store = RecordStore(records[:2], keep=4)
    store.add_packed(pack(encode_records(records[2:4])))
    store.append(records[4])
    assert list(store) == records
    same = [first is second for first, second in zip(store, store, strict=True)]
    assert same[:4] == [True] * 4


@pytest.mark.parametrize("keep", [0, 1, 2, 3])
def test_packed_records_are_counted_and_invalid_ones_rejected(keep: int) -> None:
    store = RecordStore([block(0)], keep=keep)
    store.add_packed(pack(encode_records([block(1), block(2)])))
    assert len(store) == 3
    assert sorted(store, key=lambda record: record.sample) == [block(0), block(1), block(2)]
    with pytest.raises(ValidationError):
        store.add_packed(pack(b'[{"kind": "block"}]'))
    assert len(list(store)) == len(store) == 3


def test_packed_records_that_fail_a_check_are_not_added() -> None:
    def check(records: Sequence[Record]) -> None:
        assert list(records) == [block(1), block(2)]
        raise RuntimeError("no")

    store = RecordStore([block(0)])
    with pytest.raises(RuntimeError, match="no"):
        store.add_packed(pack(encode_records([block(1), block(2)])), check)
    assert list(store) == [block(0)]
    assert len(store) == 1


def test_memory_does_not_grow_with_the_records() -> None:
    store = RecordStore((block(number) for number in range(20_000)), keep=5_000)
    tracemalloc.start()
    try:
        store.extend(block(number) for number in range(20_000))
        kept_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept_bytes < 100_000
    assert len(store) == sum(1 for _ in store) == 40_000


def test_a_full_disk_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with Path("/dev/full").open("w+b", buffering=0) as full:
        monkeypatch.setattr(tempfile, "SpooledTemporaryFile", lambda **_: full)
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        spool = Spool()
        with pytest.raises(PlannerError, match="cannot store the data of the run") as refused:
            spool.add(b"piece")
    assert str(tmp_path) in str(refused.value)
    assert "No space left on device" in str(refused.value)
