"""Descriptions of what is wrong with a run: failed or lost samples, and where; outputs that differ, and by how much."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from itertools import islice
from typing import Final

from planner.execution.coordinator.completions import NumberSet
from planner.scenario.instance import Instance
from planner.trace.records import BlockRecord, Record, SampleRecord, TransferRecord
from planner.validation.numerics import NAMED, Numerics

_Key = tuple[str, int]
_Work = BlockRecord | TransferRecord

_NO_WORK: Final = "no worker reported any work on it"


def sample_faults(
    instance: Instance, records: Collection[Record], numerics: Numerics, *, failed: int, lost: int
) -> Iterator[str]:
    """Describe the first samples that did not complete and the first outputs that differ.

    Parameters
    ----------
    failed, lost
        Number of samples that failed, and that never ended.
    """
    if not numerics.samples:
        yield "no outputs to compare"
    if numerics.not_received:
        yield f"the outputs of {numerics.not_received} completed samples were not received"
    if not (failed or lost or numerics.unequal):
        return
    reasons, missing = _unfinished(instance, records)
    differing = {(difference.source, difference.sample): str(difference) for difference in numerics.differences}
    work = _work(records, {*reasons, *missing, *differing})
    for key, reason in reasons.items():
        yield f"{_named(key)} failed: {reason}; {_last_seen(work[key])}"
    yield from _others(failed, "failed")
    for key in missing:
        yield f"{_named(key)} was lost: {_last_seen(work[key])}"
    yield from _others(lost, "were lost")
    for key, difference in differing.items():
        yield f"{_named(key)}: {difference}; {_computed(work[key])}"
    yield from _others(numerics.unequal, "differ")


def sample_drops(records: Iterable[Record]) -> Iterator[str]:
    """Describe the first samples that were dropped: which, and why; the reason says how late they would have been."""
    count = 0
    for record in records:
        if isinstance(record, SampleRecord) and record.status == "dropped":
            count += 1
            if count <= NAMED:
                yield f"{_named((record.source, record.sample))} was dropped: {record.reason}"
    yield from _others(count, "were dropped")


def _unfinished(instance: Instance, records: Iterable[Record]) -> tuple[dict[_Key, str], list[_Key]]:
    """Return the first samples that failed, with their reasons, and the first that never ended."""
    ended = {source: NumberSet() for source in instance.sources}
    reasons: dict[_Key, str] = {}
    for record in records:
        if isinstance(record, SampleRecord):
            ended[record.source].add(record.sample)
            if record.status == "failed" and len(reasons) < NAMED:
                reasons[record.source, record.sample] = record.reason
    missing = (
        (source, sample)
        for source in instance.sources
        for sample in range(instance.samples(source))
        if sample not in ended[source]
    )
    return reasons, list(islice(missing, NAMED))


def _work(records: Iterable[Record], keys: Iterable[_Key]) -> dict[_Key, list[_Work]]:
    """Return the work done for some samples."""
    work: dict[_Key, list[_Work]] = {key: [] for key in keys}
    for record in records:
        if not isinstance(record, SampleRecord) and (record.source, record.sample) in work:
            work[record.source, record.sample].append(record)
    return work


def _named(key: _Key) -> str:
    return f"{key[0]}, sample {key[1]}"


def _others(total: int, verb: str) -> Iterator[str]:
    if total > NAMED:
        yield f"{total - NAMED} more {verb}"


def _last_seen(work: Iterable[_Work]) -> str:
    last = max(work, key=lambda record: record.end_s, default=None)
    if last is None:
        return _NO_WORK
    if isinstance(last, BlockRecord):
        return f"last seen at {last.worker}, which finished block {last.last} at {last.end_s:.3f} s"
    return f"last seen at {last.receiver}, which received cut {last.cut} from {last.sender} at {last.end_s:.3f} s"


def _computed(work: Iterable[_Work]) -> str:
    done = {(record.block, record.worker): record.blocks for record in work if isinstance(record, BlockRecord)}
    at = (f"{blocks} at {worker}" for (_, worker), blocks in sorted(done.items()))
    return "computed as " + ", ".join(at) if done else _NO_WORK
