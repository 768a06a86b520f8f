"""What a run amounts to: delays per source, utilisations, and the priority-weighted mean delay."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from planner.trace.records import BlockRecord, Record, SampleRecord


@dataclass(frozen=True)
class SourceMetrics:
    """Delays of one source's samples, in seconds; NaN-free: a delay is None where no sample completed."""

    offered: int
    completed: int
    failed: int
    mean_delay_s: float | None
    p50_delay_s: float | None
    p95_delay_s: float | None
    p99_delay_s: float | None
    throughput_per_s: float
    """Completed samples by the time from the first arrival to the last completion."""


@dataclass(frozen=True)
class RunMetrics:
    """Summary of one run."""

    makespan_s: float
    """Time of the last sample's end."""
    priority_weighted_delay_s: float | None
    """Σ p_s n_s T_s / Σ p_s n_s over the sources' completed samples."""
    sources: dict[str, SourceMetrics]
    utilisation: dict[str, float]
    """Share of the run's time each worker computed."""


def summarise(records: Iterable[Record], priorities: Mapping[str, float], workers: Iterable[str]) -> RunMetrics:
    """Summarise a drained run.

    Parameters
    ----------
    priorities
        Priority of each source; gives the order of the result, too.
    workers
        Names of all workers, those that computed nothing included.
    """
    samples: dict[str, list[SampleRecord]] = {source: [] for source in priorities}
    busy_s: dict[str, float] = defaultdict(float)
    end_s = 0.0
    for record in records:
        if isinstance(record, SampleRecord):
            samples[record.source].append(record)
            end_s = max(end_s, record.finished_s)
        elif isinstance(record, BlockRecord):
            busy_s[record.worker] += record.end_s - record.start_s
    sources = {source: _summarise_source(ended) for source, ended in samples.items()}
    weights = {source: priorities[source] * metrics.completed for source, metrics in sources.items()}
    total = sum(weights.values())
    weighted = sum(weights[source] * (metrics.mean_delay_s or 0.0) for source, metrics in sources.items())
    return RunMetrics(
        makespan_s=end_s,
        priority_weighted_delay_s=weighted / total if total else None,
        sources=sources,
        utilisation={worker: busy_s[worker] / end_s if end_s else 0.0 for worker in workers},
    )


def _summarise_source(ended: list[SampleRecord]) -> SourceMetrics:
    done = [record for record in ended if record.status == "completed"]
    delays = np.array([record.delay_s for record in done])
    if not done:
        return SourceMetrics(len(ended), 0, len(ended), None, None, None, None, 0.0)
    span_s = max(record.finished_s for record in done) - min(record.created_s for record in ended)
    p50, p95, p99 = (float(value) for value in np.percentile(delays, [50, 95, 99]))
    return SourceMetrics(
        offered=len(ended),
        completed=len(done),
        failed=len(ended) - len(done),
        mean_delay_s=float(delays.mean()),
        p50_delay_s=p50,
        p95_delay_s=p95,
        p99_delay_s=p99,
        throughput_per_s=len(done) / span_s if span_s > 0 else 0.0,
    )
