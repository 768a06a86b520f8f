"""Metrics of a run: delays per source, utilisation, and the priority-weighted mean delay.

Records are processed one at a time in bounded memory: only sums are kept and, for percentiles, the delays themselves as
long as they are few (:class:`Distribution`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, Final, NamedTuple

import numpy as np

from planner.trace.records import BlockRecord, Record, SampleRecord

EXACT: Final = 5000
"""Maximum number of values that a distribution stores individually."""

BIN_WIDTH: Final = math.log(1.005)
"""Width of a bin for more values, in natural logarithm: 0.5 %."""

SMALLEST: Final = 1e-9
"""Smallest value with a separate bin; smaller values share it."""

# 97.5th percentile of Student's t distribution with 1, 2, … 30 degrees of freedom.
_STUDENT: Final = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


class Interval(NamedTuple):
    """A mean and the half-width of its 95 % confidence interval, None for a single value."""

    mean: float
    half_width: float | None


def interval(values: Sequence[float]) -> Interval:
    """Return the mean of independent replications with its 95 % confidence interval by Student's t distribution."""
    if len(values) < 2:
        return Interval(fmean(values), None)
    return Interval(fmean(values), _student(len(values)) * stdev(values) / len(values) ** 0.5)


def _student(count: int) -> float:
    """Return the 97.5th percentile of the distribution that so many values have."""
    return _STUDENT[count - 2] if count - 2 < len(_STUDENT) else 1.96 + 2.4 / (count - 1)


_Z: Final = 1.959964
"""97.5th percentile of the normal distribution."""


class Bounds(NamedTuple):
    """An interval of fractions."""

    low: float
    high: float


def wilson(correct: float, samples: int) -> Bounds:
    """Return the 95 % confidence interval of a probability, given an observed fraction.

    It contains each probability p for which the fraction lies within 1.96 standard deviations, √(p(1−p)/n), of p.

    Parameters
    ----------
    correct
        Observed fraction.
    samples
        Number of independent samples; 1 or more.

    References
    ----------
    E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
    """
    shrink = 1 + _Z**2 / samples
    middle = (correct + _Z**2 / (2 * samples)) / shrink
    half = _Z / shrink * math.sqrt(correct * (1 - correct) / samples + (_Z / (2 * samples)) ** 2)
    return Bounds(max(middle - half, 0.0), min(middle + half, 1.0))


class Distribution:
    """Mean and percentiles of a stream of values, in bounded memory.

    Up to :data:`EXACT` values are stored. If there are more, all values are counted in bins whose width is 0.5 % of the
    value, so that the relative error of a percentile is at most 0.25 %.
    """

    def __init__(self) -> None:
        self.count = 0
        self._sum = self._squares = 0.0
        self._values: list[float] = []
        self._bins: dict[int, int] = {}

    def add(self, value: float) -> None:
        """Add a non-negative value."""
        self.count += 1
        self._sum += value
        self._squares += value * value
        if self._bins:
            self._count(value)
            return
        self._values.append(value)
        if len(self._values) > EXACT:
            for earlier in self._values:
                self._count(earlier)
            self._values.clear()

    @property
    def mean(self) -> float:
        """Mean of at least one value."""
        return self._sum / self.count

    def percentiles(self, percent: Sequence[float]) -> list[float]:
        """Return percentiles of at least one value, with linear interpolation between values as in numpy."""
        if not self._bins:
            return [float(value) for value in np.percentile(self._values, percent)]
        bins = sorted(self._bins)
        cumulative = np.cumsum([self._bins[index] for index in bins])
        middles = [SMALLEST * math.exp((index + 0.5) * BIN_WIDTH) for index in bins]
        result = []
        for percentage in percent:
            rank = percentage / 100 * (self.count - 1)
            below, above = np.searchsorted(cumulative, [math.floor(rank), math.ceil(rank)], side="right")
            result.append(middles[below] + rank % 1 * (middles[above] - middles[below]))
        return result

    @property
    def mean_interval(self) -> tuple[float, float] | None:
        """95 % confidence interval of the mean by Student's t distribution, of independent values; None for one."""
        if self.count < 2:
            return None
        variance = max(self._squares - self._sum * self.mean, 0.0) / (self.count - 1)
        half = _student(self.count) * math.sqrt(variance / self.count)
        return self.mean - half, self.mean + half

    def percentile_interval(self, percent: float) -> tuple[float, float]:
        """Return the 95 % confidence interval of a percentile of at least one value.

        It is between two order statistics (normal approximation of the binomial distribution; W. J. Conover, "Practical
        Nonparametric Statistics", section 3.2), and ends at the least or the largest value where there are few. It
        takes the values as independent: those of samples that wait for each other make it too narrow.
        """
        half = 196 * math.sqrt(percent / 100 * (1 - percent / 100) / self.count)
        low, high = self.percentiles((max(percent - half, 0.0), min(percent + half, 100.0)))
        return low, high

    def _count(self, value: float) -> None:
        index = math.floor(math.log(max(value, SMALLEST) / SMALLEST) / BIN_WIDTH)
        self._bins[index] = self._bins.get(index, 0) + 1


@dataclass(frozen=True)
class SourceMetrics:
    """Delays of a source's samples in seconds. A delay is None, never NaN, if no sample completed."""

    offered: int
    completed: int
    failed: int
    """Number of samples that neither completed nor were dropped."""
    mean_delay_s: float | None
    p50_delay_s: float | None
    p95_delay_s: float | None
    p99_delay_s: float | None
    throughput_per_s: float
    """Number of completed samples divided by the time from the first arrival to the last completion."""
    accuracy: float | None = None
    """Expected accuracy by the operating points of the completed samples, as a fraction."""
    judged: int = 0
    """Number of completed samples whose result is known to be correct or incorrect."""
    correct: int = 0
    """Number of these samples whose result is correct."""
    dropped: int = 0
    """Number of samples that were dropped because they were late or waited too long."""
    missed: int | None = None
    """Number of samples whose result came after the deadline or never; None without a deadline."""
    max_late_s: float | None = None
    """Largest time by which a sample missed the deadline, a dropped one at least; None if none is known to."""
    ttft_s: float | None = None
    """Mean time to the first token of sequences, in seconds; None for other samples."""
    tpot_s: float | None = None
    """Mean time per token after the first, in seconds."""
    tokens_per_s: float | None = None
    """Tokens of all completed sequences, divided by the time from the first arrival to the last completion."""
    ttft_interval_s: tuple[float, float] | None = None
    tpot_interval_s: tuple[float, float] | None = None
    """95 % confidence intervals of these means, see :attr:`Distribution.mean_interval`; None without two sequences."""
    p50_interval_s: tuple[float, float] | None = None
    p95_interval_s: tuple[float, float] | None = None
    p99_interval_s: tuple[float, float] | None = None
    """95 % confidence intervals of these percentiles, see :meth:`Distribution.percentile_interval`."""

    @property
    def miss_share(self) -> float | None:
        """Share of the offered samples that missed the deadline; None without a deadline or a sample."""
        return self.missed / self.offered if self.missed is not None and self.offered else None

    @property
    def drop_share(self) -> float | None:
        """Share of the offered samples that were dropped; None without a sample."""
        return self.dropped / self.offered if self.offered else None

    @property
    def measured_accuracy(self) -> float | None:
        """Fraction of correct results, or None if no result could be checked."""
        return self.correct / self.judged if self.judged else None


@dataclass(frozen=True)
class RunMetrics:
    """Summary of a run."""

    makespan_s: float
    """Time at which the last sample ended, in seconds."""
    priority_weighted_delay_s: float | None
    """Σ p_s n_s T_s / Σ p_s n_s over the sources' completed samples."""
    sources: dict[str, SourceMetrics]
    utilisation: dict[str, float]
    """Share of the run during which each worker computed."""


class _SourceSums:
    """Running sums over the samples of a source."""

    def __init__(self, accuracies: Mapping[str, Sequence[float]], deadline_s: float | None) -> None:
        self.offered = self.dropped = 0
        self._deadline_s = deadline_s
        self._late = 0
        self._max_late_s: float | None = None
        self.delays = Distribution()
        self.first_s = math.inf
        self.last_s = 0.0
        self._accuracies = accuracies
        self._origins: Counter[tuple[str, int]] = Counter()
        self._judged = self._correct = 0
        self._tokens = 0
        self._ttft, self._tpot = Distribution(), Distribution()

    def add(self, record: SampleRecord) -> None:
        self.offered += 1
        self.first_s = min(self.first_s, record.created_s)
        self.dropped += record.status == "dropped"
        if record.late_s is not None:
            self._max_late_s = max(record.late_s, self._max_late_s or 0.0)
        if record.status == "completed":
            delay_s = record.delay_s
            if self._deadline_s is not None and delay_s > self._deadline_s:
                self._late += 1
                self._max_late_s = max(delay_s - self._deadline_s, self._max_late_s or 0.0)
            self.delays.add(delay_s)
            self.last_s = max(self.last_s, record.finished_s)
            if record.origin is not None and self._accuracies:
                self._origins[record.origin.model, record.origin.operating_point] += 1
            if record.first_s is not None:
                self._add_tokens(record)
            if record.correct is not None:
                self._judged += 1
                self._correct += record.correct

    def _add_tokens(self, record: SampleRecord) -> None:
        self._tokens += record.tokens
        for sums, time_s in ((self._ttft, record.ttft_s), (self._tpot, record.tpot_s)):
            if time_s is not None:
                sums.add(time_s)

    def result(self) -> SourceMetrics:
        completed = self.delays.count
        failed = self.offered - completed - self.dropped
        punctuality: dict[str, Any] = {"dropped": self.dropped, "max_late_s": self._max_late_s}
        if self._deadline_s is not None:
            punctuality["missed"] = failed + self.dropped + self._late
        if not completed:
            return SourceMetrics(self.offered, 0, failed, None, None, None, None, 0.0, **punctuality)
        p50, p95, p99 = self.delays.percentiles((50, 95, 99))
        span_s = self.last_s - self.first_s
        throughput_per_s = completed / span_s if span_s > 0 else 0.0
        return SourceMetrics(
            offered=self.offered,
            completed=completed,
            failed=failed,
            mean_delay_s=self.delays.mean,
            p50_delay_s=p50,
            p95_delay_s=p95,
            p99_delay_s=p99,
            throughput_per_s=throughput_per_s,
            accuracy=self._accuracy(),
            judged=self._judged,
            correct=self._correct,
            ttft_s=self._ttft.mean if self._ttft.count else None,
            tpot_s=self._tpot.mean if self._tpot.count else None,
            ttft_interval_s=self._ttft.mean_interval if self._ttft.count else None,
            tpot_interval_s=self._tpot.mean_interval if self._tpot.count else None,
            tokens_per_s=self._tokens / span_s if self._ttft.count and span_s > 0 else None,
            p50_interval_s=self.delays.percentile_interval(50),
            p95_interval_s=self.delays.percentile_interval(95),
            p99_interval_s=self.delays.percentile_interval(99),
            **punctuality,
        )

    def _accuracy(self) -> float | None:
        expected = sum([count * self._accuracies[model][point] for (model, point), count in self._origins.items()], 0.0)
        return expected / self._origins.total() if self._origins else None


class Accumulator:
    """Accumulates the records of a run one at a time, and summarises the drained run.

    Parameters
    ----------
    priorities
        Priority of each source. The result has the same order.
    workers
        Names of all workers, including those that computed nothing.
    accuracies
        Accuracy of each operating point, by model. Without them, the expected accuracy is None.
    deadlines
        Deadline of a sample of each source in seconds, where there is one.
    """

    def __init__(
        self,
        priorities: Mapping[str, float],
        workers: Iterable[str],
        accuracies: Mapping[str, Sequence[float]] | None = None,
        deadlines: Mapping[str, float | None] | None = None,
    ) -> None:
        self._priorities = priorities
        self._sources = {source: _SourceSums(accuracies or {}, (deadlines or {}).get(source)) for source in priorities}
        self._busy_s = dict.fromkeys(workers, 0.0)
        self._end_s = 0.0

    def add(self, record: Record) -> None:
        """Add a record."""
        if isinstance(record, BlockRecord):
            self._busy_s[record.worker] += record.busy_s
        elif isinstance(record, SampleRecord):
            self._sources[record.source].add(record)
            self._end_s = max(self._end_s, record.finished_s)

    def result(self) -> RunMetrics:
        """Return the summary of all records added."""
        sources = {source: sums.result() for source, sums in self._sources.items()}
        weights = {source: self._priorities[source] * metrics.completed for source, metrics in sources.items()}
        total = sum(weights.values(), 0.0)
        weighted = sum([weights[source] * (metrics.mean_delay_s or 0.0) for source, metrics in sources.items()], 0.0)
        return RunMetrics(
            makespan_s=self._end_s,
            priority_weighted_delay_s=weighted / total if total else None,
            sources=sources,
            utilisation={
                worker: busy_s / self._end_s if self._end_s else 0.0 for worker, busy_s in self._busy_s.items()
            },
        )


def summarise(
    records: Iterable[Record],
    priorities: Mapping[str, float],
    workers: Iterable[str],
    accuracies: Mapping[str, Sequence[float]] | None = None,
    deadlines: Mapping[str, float | None] | None = None,
) -> RunMetrics:
    """Return the summary of a drained run; for the parameters see :class:`Accumulator`."""
    accumulator = Accumulator(priorities, workers, accuracies, deadlines)
    for record in records:
        accumulator.add(record)
    return accumulator.result()
