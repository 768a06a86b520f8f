"""Breakdown of a sample's time by stage and link, waiting and working, as predicted and as measured.

The time from a sample's arrival to its end is divided into legs: a stage, which is a run of blocks on one worker, or a
transfer over one resource. A leg starts when the one before ends: first the sample waits, then it is worked on. So the
legs of a source add up to its mean delay, and their differences to the difference of the mean delays.
"""

from __future__ import annotations

from array import array
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from planner.plan.journey import LegSite
from planner.scenario.instance import Instance
from planner.trace.records import BlockRecord, Record, SampleRecord, TransferRecord

CLOSE: Final = 0.02
"""Maximum difference of mean delays, as a share of the predicted one, that needs no explanation."""

_LATER: Final = 100_000
"""Number of records after the end of a sample among which its other records may still come.

Workers report their work within a second, in which fewer records than these are made.
"""


class Spent(NamedTuple):
    """Time spent on a leg, in seconds: before it begins, and while it lasts. On a real link both are in ``work_s``."""

    wait_s: float
    work_s: float


@dataclass(frozen=True)
class LegComparison:
    """Mean times over all completed samples of a source, including those that do not take this leg."""

    site: LegSite
    predicted: Spent
    measured: Spent

    @property
    def difference_s(self) -> float:
        """How much longer the leg took than predicted."""
        return sum(self.measured) - sum(self.predicted)


Legs: TypeAlias = Mapping[str, Mapping[LegSite, Spent]]
"""Mean times of the legs of each source, in the order in which its samples take them."""


def latencies(instance: Instance) -> dict[str, float]:
    """Return the latency of each network resource in seconds."""
    return {
        hop.resource: hop.latency_s
        for by_receiver in instance.paths.values()
        for path in by_receiver.values()
        for hop in path.hops
    }


def compare_legs(sources: Iterable[str], predicted: Legs, measured: Legs) -> dict[str, list[LegComparison]]:
    """Return the legs of each source, in the order in which its samples take them."""
    nothing = Spent(0.0, 0.0)
    compared = {}
    for source in sources:
        before, after = predicted.get(source, {}), measured.get(source, {})
        compared[source] = [
            LegComparison(leg, before.get(leg, nothing), after.get(leg, nothing))
            for leg in dict.fromkeys([*before, *after])
        ]
    return compared


class LegTimes:
    """Sums up the legs of a run from its records, in memory that does not grow with the run.

    Parameters
    ----------
    latency_s
        Latency of each network resource whose transfer records leave it out, as those of the simulator do.
    """

    def __init__(self, latency_s: Mapping[str, float]) -> None:
        self._latency_s = latency_s
        self._work: dict[tuple[str, int], list[BlockRecord | TransferRecord]] = defaultdict(list)
        self._ended: deque[tuple[int, SampleRecord]] = deque()
        self._records = 0
        self._sums: dict[str, dict[LegSite, list[float]]] = defaultdict(dict)
        self._completed: dict[str, int] = defaultdict(int)

    def add(self, record: Record) -> None:
        """Add a record."""
        if isinstance(record, SampleRecord):
            self._ended.append((self._records, record))
        else:
            self._work[record.source, record.sample].append(record)
        if self._ended and self._ended[0][0] < self._records - _LATER:
            self._add_sample(self._ended.popleft()[1])
        self._records += 1

    def result(self) -> Legs:
        """Return the mean times of all records added."""
        while self._ended:
            self._add_sample(self._ended.popleft()[1])
        means: dict[str, dict[LegSite, Spent]] = {}
        for source, sums in self._sums.items():
            # Ordered by what a sample meets first, whichever samples take the leg.
            order = sorted(sums, key=lambda leg: (leg.first, not leg.transfer))
            means[source] = {leg: Spent(*(sum_s / self._completed[source] for sum_s in sums[leg])) for leg in order}
        return means

    def _add_sample(self, sample: SampleRecord) -> None:
        work = self._work.pop((sample.source, sample.sample), [])
        if sample.status != "completed":
            return
        self._completed[sample.source] += 1
        for leg, spent in _legs(sample, work, self._latency_s):
            sums = self._sums[sample.source].setdefault(leg, [0.0, 0.0])
            sums[0] += spent.wait_s
            sums[1] += spent.work_s


def _legs(
    sample: SampleRecord, work: list[BlockRecord | TransferRecord], latency_s: Mapping[str, float]
) -> Iterator[tuple[LegSite, Spent]]:
    """Yield the legs of a completed sample; work of several attempts at the same time counts once."""
    at_s = sample.created_s
    before: LegSite | None = None
    work = sorted((record for record in work if record.start_s < sample.finished_s), key=lambda record: record.start_s)
    work = _awaited(work, latency_s)
    for index, record in enumerate(work):
        begin_s = max(at_s, record.start_s)
        if isinstance(record, BlockRecord):
            leg = _stage(work, index, before)
            end_s = max(begin_s, record.end_s)
        else:
            leg = LegSite(record.resource, record.cut, record.cut, transfer=True)
            end_s = max(begin_s, record.end_s + latency_s.get(record.resource, 0.0))
        yield leg, Spent(begin_s - at_s, end_s - begin_s)
        at_s, before = end_s, leg
    if before is not None:
        yield before, Spent(sample.finished_s - at_s, 0.0)  # the time to hand over the result


def _awaited(
    work: list[BlockRecord | TransferRecord], latency_s: Mapping[str, float]
) -> list[BlockRecord | TransferRecord]:
    """Return work without the transfers of tokens for which the next step did not wait, in order of their start."""
    result_cut = max((record.last + 1 for record in work if isinstance(record, BlockRecord)), default=0)

    found: list[BlockRecord | TransferRecord] = []
    following_s = inf
    for record in reversed(work):
        if isinstance(record, TransferRecord) and record.cut == result_cut:
            if record.end_s + latency_s.get(record.resource, 0.0) > following_s:
                continue
        else:
            following_s = record.start_s
        found.append(record)
    return found[::-1]


def _stage(work: Sequence[BlockRecord | TransferRecord], index: int, before: LegSite | None) -> LegSite:
    """Return the stage of a block: the current one, or the run of blocks that begins with it."""
    record = work[index]
    if not isinstance(record, BlockRecord):
        raise TypeError("a transfer is not part of a stage")
    same_worker = before is not None and not before.transfer and before.resource == record.worker
    if before is not None and same_worker and before.first < record.block <= before.last:
        return before
    last = record.last
    for following in work[index + 1 :]:
        if not isinstance(following, BlockRecord) or (following.worker, following.block) != (record.worker, last + 1):
            break
        last = following.last
    return LegSite(record.worker, record.block, last, transfer=False)


def explain(legs: Sequence[LegComparison], difference_s: float, predicted_s: float) -> str:
    """Return which leg explains most of the difference of a source's mean delays, or "" if it needs no explanation."""
    if abs(difference_s) <= CLOSE * predicted_s or not legs:
        return ""
    sign = 1.0 if difference_s > 0 else -1.0
    leg = max(legs, key=lambda leg: sign * leg.difference_s)
    waits = sign * (leg.measured.wait_s - leg.predicted.wait_s) > sign * (leg.measured.work_s - leg.predicted.work_s)
    part = f"{sign * leg.difference_s * 1e3:.1f} of {sign * difference_s * 1e3:.1f} ms"
    longer = "longer" if sign > 0 else "less time"
    if waits:
        return f"{part}: samples wait {longer} at {leg.site}"
    work = "transfers take" if leg.site.transfer else "computing takes"
    times = f"{leg.measured.work_s * 1e3:.1f} ms instead of {leg.predicted.work_s * 1e3:.1f} ms"
    return f"{part}: {work} {longer} at {leg.site}, {times}"


class BusyTime:
    """Collects from records when each network resource carried something, in 16 bytes a transfer."""

    def __init__(self, resources: Iterable[str]) -> None:
        self._spans = {resource: array("d") for resource in resources}

    def add(self, record: Record) -> None:
        """Add a record."""
        if isinstance(record, TransferRecord) and record.resource in self._spans:
            self._spans[record.resource].extend((record.start_s, record.end_s))

    def shares(self, end_s: float) -> dict[str, float]:
        """Return the share of the time until ``end_s`` in which each resource carried something."""
        return {
            resource: _union_s(np.frombuffer(spans).reshape(-1, 2)) / end_s if spans and end_s else 0.0
            for resource, spans in self._spans.items()
        }


def _union_s(spans: NDArray[np.float64]) -> float:
    start_s, end_s = spans[spans[:, 0].argsort()].T
    reached_s = np.maximum.accumulate(np.concatenate([[0.0], end_s]))[:-1]
    return float(np.maximum(end_s - np.maximum(start_s, reached_s), 0.0).sum())
