"""Times of sessions that run several blocks of a stage, as predicted and as measured."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from planner.plan.journey import LegSite
from planner.trace.records import BlockRecord, Record

Session = tuple[str, LegSite]
"""A source, and the worker and blocks of a session that its samples run in."""


@dataclass(frozen=True)
class SessionComparison:
    """Mean times of a session of several blocks, in seconds; None where it did not run."""

    source: str
    site: LegSite
    predicted_s: float | None
    measured_s: float | None


class SessionTimes:
    """Collects the mean times of sessions from records."""

    def __init__(self) -> None:
        self._times: dict[Session, tuple[float, int]] = defaultdict(lambda: (0.0, 0))

    def add(self, record: Record) -> None:
        """Add a record."""
        if isinstance(record, BlockRecord) and record.last > record.block and record.batch == 1:
            key = record.source, LegSite(record.worker, record.block, record.last, transfer=False)
            total_s, count = self._times[key]
            self._times[key] = total_s + record.end_s - record.start_s, count + 1

    def result(self) -> dict[Session, float]:
        """Return the mean time of each session in seconds."""
        return {key: total_s / count for key, (total_s, count) in self._times.items()}


def compare_sessions(predicted: Mapping[Session, float], measured: Mapping[Session, float]) -> list[SessionComparison]:
    """Return the sessions that were predicted or ran, by source and place."""
    return [
        SessionComparison(source, site, predicted.get((source, site)), measured.get((source, site)))
        for source, site in sorted({*predicted, *measured})
    ]
