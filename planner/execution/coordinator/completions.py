"""Record of which samples of a run have ended, each once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from planner.scenario.arrivals import instance_arrivals
from planner.scenario.instance import Instance
from planner.trace.records import SampleRecord


class NumberSet:
    """A set of numbers from 0, added nearly in order; its memory grows only with those out of order."""

    def __init__(self) -> None:
        self._below = 0
        self._above: set[int] = set()

    def add(self, number: int) -> bool:
        """Add a number; return whether it is new."""
        if number in self:
            return False
        self._above.add(number)
        while self._below in self._above:
            self._above.remove(self._below)
            self._below += 1
        return True

    def __contains__(self, number: int) -> bool:
        return number < self._below or number in self._above

    def __len__(self) -> int:
        return self._below + len(self._above)


class CompletionTracker:
    """Keeps track of the ends that agents report; the first end of a sample counts.

    A worker that left and came back reports every sample that arrived before as failed, even those that had ended.
    """

    def __init__(self, instance: Instance, seed: int) -> None:
        self._instance = instance
        self._seed = seed
        self._samples = {source: instance.samples(source) for source in instance.sources}
        self._ended = {source: NumberSet() for source in instance.sources}

    def add(self, record: SampleRecord) -> bool:
        """Add an end; return whether it is the sample's first."""
        return self._ended[record.source].add(record.sample)

    def complete(self, source: str) -> bool:
        """Return whether every sample of a source has ended."""
        return len(self._ended[source]) >= self._samples[source]

    def unreported(self, left_s: Mapping[str, float], now_s: float) -> Iterator[SampleRecord]:
        """Yield a failed end for each sample whose end no agent reported.

        Parameters
        ----------
        left_s
            Time at which each worker left the run.
        now_s
            Time at which the run was over.
        """
        for source in self._instance.sources:
            if not self.complete(source):
                yield from self._unreported(source, left_s, now_s)

    def _unreported(self, source: str, left_s: Mapping[str, float], now_s: float) -> Iterator[SampleRecord]:
        home = self._instance.home(source)
        gone_s = left_s.get(home)
        for sample, created_s in enumerate(instance_arrivals(self._instance, source, self._seed)):
            if sample in self._ended[source]:
                continue
            if gone_s is None:
                finished_s, reason = now_s, "no end was reported before the run was over"
            elif created_s < gone_s:
                finished_s, reason = gone_s, f"{home} left"
            else:
                finished_s, reason = created_s, f"{home} was absent"
            yield SampleRecord(source, sample, created_s, max(finished_s, created_s), "failed", reason)
