"""Where a sample's time goes: on which stage or link, waiting or not, as predicted and as measured.

A sample's way from its arrival to its end is cut into legs: a stage, that is a run of blocks on one worker, or a
transfer over one resource. Each leg takes the time from the end of the one before: waiting first, then work. So a
source's legs add up to its mean delay, and their differences to the difference of the mean delays.
"""

from __future__ import annotations

from array import array
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from planner.plan.journey import LegSite
from planner.scenario.instance import Instance
from planner.trace.records import BlockRecord, Record, SampleRecord, TransferRecord

CLOSE: Final = 0.02
"""Mean delays that differ by less than this share of the predicted one need no explanation."""

_LATER: Final = 100_000
"""Workers tell what they did within a second; that is fewer records than these."""


class Spent(NamedTuple):
    """Time on a leg, in seconds: until it begins, and while it lasts. For a real link both are in ``work_s``."""

    wait_s: float
    work_s: float


@dataclass(frozen=True)
class LegComparison:
    """Means over all completed samples of a source, those that do not take this leg included."""

    place: LegSite
    predicted: Spent
    measured: Spent

    @property
    def difference_s(self) -> float:
        """How much longer the leg took than predicted."""
        return sum(self.measured) - sum(self.predicted)


Latencies: TypeAlias = Mapping[str, float]


def latencies(instance: Instance) -> dict[str, float]:
    """Give the latency of each network resource in seconds."""
    return {
        hop.resource: hop.latency_s
        for by_receiver in instance.paths.values()
        for path in by_receiver.values()
        for hop in path.hops
    }


def compare_legs(
    instance: Instance, predicted: Iterable[Record], measured: Iterable[Record], *, emulated: bool
) -> dict[str, list[LegComparison]]:
    """Give the legs of each source, in the order in which its samples come to them.

    Parameters
    ----------
    emulated
        Whether the measured transfers were played by the simulator's network, whose records leave the latency out.
    """
    known = latencies(instance)
    before, after = _mean_legs(predicted, known), _mean_legs(measured, known if emulated else {})
    nothing = Spent(0.0, 0.0)
    return {
        source: [
            LegComparison(place, before[source].get(place, nothing), after[source].get(place, nothing))
            for place in dict.fromkeys([*before[source], *after[source]])
        ]
        for source in instance.sources
    }


def _mean_legs(records: Iterable[Record], latency_s: Latencies) -> Mapping[str, dict[LegSite, Spent]]:
    sums: dict[str, dict[LegSite, list[float]]] = defaultdict(dict)
    completed: dict[str, int] = defaultdict(int)
    for sample, work in _by_sample(records):
        if sample.status != "completed":
            continue
        completed[sample.source] += 1
        for place, spent in _walk(sample, work, latency_s):
            total = sums[sample.source].setdefault(place, [0.0, 0.0])
            total[0] += spent.wait_s
            total[1] += spent.work_s
    means: dict[str, dict[LegSite, Spent]] = defaultdict(dict)
    for source, totals in sums.items():
        # The leg a sample meets first is listed first, whichever samples take it.
        order = sorted(totals, key=lambda place: (place.first, not place.transfer))
        means[source] = {place: Spent(*(total_s / completed[source] for total_s in totals[place])) for place in order}
    return means


def _by_sample(records: Iterable[Record]) -> Iterator[tuple[SampleRecord, list[BlockRecord | TransferRecord]]]:
    """Give each sample with what was done for it, in memory that does not grow with the run."""
    work: dict[tuple[str, int], list[BlockRecord | TransferRecord]] = defaultdict(list)
    ended: deque[tuple[int, SampleRecord]] = deque()
    for place, record in enumerate(records):
        if isinstance(record, SampleRecord):
            ended.append((place, record))
        else:
            work[record.source, record.sample].append(record)
        if ended and ended[0][0] < place - _LATER:
            sample = ended.popleft()[1]
            yield sample, work.pop((sample.source, sample.sample), [])
    for _, sample in ended:
        yield sample, work.pop((sample.source, sample.sample), [])


def _walk(
    sample: SampleRecord, work: list[BlockRecord | TransferRecord], latency_s: Latencies
) -> Iterator[tuple[LegSite, Spent]]:
    """Give the legs of a completed sample; what another attempt did at the same time counts once."""
    at_s = sample.created_s
    before: LegSite | None = None
    work = sorted((one for one in work if one.start_s < sample.finished_s), key=lambda one: one.start_s)
    for index, record in enumerate(work):
        begin_s = max(at_s, record.start_s)
        if isinstance(record, BlockRecord):
            place = _stage(work, index, before)
            end_s = max(begin_s, record.end_s)
        else:
            place = LegSite(record.resource, record.cut, record.cut, transfer=True)
            end_s = max(begin_s, record.end_s + latency_s.get(record.resource, 0.0))
        yield place, Spent(begin_s - at_s, end_s - begin_s)
        at_s, before = end_s, place
    if before is not None:
        yield before, Spent(sample.finished_s - at_s, 0.0)  # what handing over the result took


def _stage(work: Sequence[BlockRecord | TransferRecord], index: int, before: LegSite | None) -> LegSite:
    """Give the stage that a block belongs to: the one at hand, or the run of blocks that begins with it."""
    record = work[index]
    if not isinstance(record, BlockRecord):
        raise TypeError("a transfer is no stage")
    here = before is not None and not before.transfer and before.place == record.worker
    if before is not None and here and before.first < record.block <= before.last:
        return before
    last = record.block
    for following in work[index + 1 :]:
        if not isinstance(following, BlockRecord) or (following.worker, following.block) != (record.worker, last + 1):
            break
        last += 1
    return LegSite(record.worker, record.block, last, transfer=False)


def explain(legs: Sequence[LegComparison], difference_s: float, predicted_s: float) -> str:
    """Say which leg explains most of the difference of a source's mean delays; empty where there is hardly any."""
    if abs(difference_s) <= CLOSE * predicted_s or not legs:
        return ""
    sign = 1.0 if difference_s > 0 else -1.0
    leg = max(legs, key=lambda one: sign * one.difference_s)
    waits = sign * (leg.measured.wait_s - leg.predicted.wait_s) > sign * (leg.measured.work_s - leg.predicted.work_s)
    part = f"{sign * leg.difference_s * 1e3:.1f} of {sign * difference_s * 1e3:.1f} ms"
    length = "longer" if sign > 0 else "shorter"
    if waits:
        return f"{part}: samples wait {length} at {leg.place}"
    verb = "are on their way" if leg.place.transfer else "are computed"
    times = f"{leg.measured.work_s * 1e3:.1f} ms in place of {leg.predicted.work_s * 1e3:.1f} ms"
    return f"{part}: samples {verb} {length} at {leg.place}, {times}"


def busy_shares(records: Iterable[Record], resources: Iterable[str], end_s: float) -> dict[str, float]:
    """Give the share of the time until ``end_s`` in which each network resource carried something."""
    spans = {resource: array("d") for resource in resources}
    for record in records:
        if isinstance(record, TransferRecord) and record.resource in spans:
            spans[record.resource].extend((record.start_s, record.end_s))
    return {
        resource: _union_s(np.frombuffer(found).reshape(-1, 2)) / end_s if found and end_s else 0.0
        for resource, found in spans.items()
    }


def _union_s(spans: NDArray[np.float64]) -> float:
    start_s, end_s = spans[spans[:, 0].argsort()].T
    reached_s = np.maximum.accumulate(np.concatenate([[0.0], end_s]))[:-1]
    return float(np.maximum(end_s - np.maximum(start_s, reached_s), 0.0).sum())
