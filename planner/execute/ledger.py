"""Which samples of a run have ended, and how: each of them once."""

from __future__ import annotations

from collections.abc import Mapping

from planner.scenario.arrivals import instance_arrivals
from planner.scenario.instance import Instance
from planner.trace.records import SampleRecord


class Ledger:
    """Takes the ends that agents report; the first of a sample counts.

    A worker that left and came back reports the samples failed that arrived meanwhile, and with them those that had
    ended before.
    """

    def __init__(self, instance: Instance, seed: int) -> None:
        self._instance = instance
        self._seed = seed
        self._ended: dict[str, dict[int, SampleRecord]] = {source: {} for source in instance.sources}

    def add(self, record: SampleRecord) -> bool:
        """Take an end; tell whether it is the sample's first."""
        ended = self._ended[record.source]
        return ended.setdefault(record.sample, record) is record

    def complete(self, source: str) -> bool:
        """Tell whether every sample of a source has ended."""
        return len(self._ended[source]) >= self._instance.samples(source)

    def records(self, left_s: Mapping[str, float], now_s: float) -> list[SampleRecord]:
        """Give the end of every sample; those that no agent reported have failed.

        Parameters
        ----------
        left_s
            When workers left the run.
        now_s
            When the run was over.
        """
        found = [record for ended in self._ended.values() for record in ended.values()]
        for source in self._instance.sources:
            if not self.complete(source):
                found += self._unreported(source, left_s, now_s)
        return found

    def _unreported(self, source: str, left_s: Mapping[str, float], now_s: float) -> list[SampleRecord]:
        home = self._instance.home(source)
        gone_s = left_s.get(home)
        found = []
        for sample, created_s in enumerate(instance_arrivals(self._instance, source, self._seed)):
            if sample in self._ended[source]:
                continue
            if gone_s is None:
                finished_s, reason = now_s, "no end was reported before the run was over"
            elif created_s < gone_s:
                finished_s, reason = gone_s, f"{home} left"
            else:
                finished_s, reason = created_s, f"{home} was not there"
            found.append(SampleRecord(source, sample, created_s, max(finished_s, created_s), "failed", reason))
        return found
