"""What a service has seen so far: samples by source, loads of workers, incidents and changes of the plan.

Counts are written in the session's thread and read in that of the event loop, under one lock.
"""

from __future__ import annotations

import logging
import threading
import time
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np

from planner.execution.coordinator.run_result import Observer
from planner.execution.session.source import Result, SampleError
from planner.execution.wire.messages import Load
from planner.plan.types import PlanSpec, Route
from planner.scenario.instance import Instance
from planner.trace.records import Incident

_LOG = logging.getLogger(__name__)

BUCKETS_S: Final = tuple(base * 10.0**power for power in range(-3, 2) for base in (1, 2.5, 5))
"""Upper ends of the buckets of delays, in seconds: 1 ms to 50 s."""

RECENT: Final = 1000
"""Number of samples from which percentiles are taken."""

SHOWN: Final = 200
"""Number of recent samples, incidents and changes that are kept to be shown."""

RATE_S: Final = 10.0
"""Time over which rates are averaged, in seconds."""

Severity = Literal["info", "warning", "error"]

_LEVELS: Final[Mapping[Severity, int]] = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


@dataclass(frozen=True)
class Delays:
    """Mean and percentiles of recent delays, in seconds."""

    mean_s: float
    p50_s: float
    p95_s: float
    p99_s: float


class SourceCount:
    """Samples of one source."""

    def __init__(self) -> None:
        self.completed = 0
        self.failed = 0
        self.dropped = 0
        self.sum_s = 0.0
        """Sum of all delays, in seconds."""
        self.buckets = [0] * (len(BUCKETS_S) + 1)
        """Number of delays by bucket; the last is of those above all ends."""
        self._recent: deque[tuple[float, float]] = deque(maxlen=RECENT)
        self._by_second: deque[list[int]] = deque()

    def completes(self, delay_s: float, now_s: float) -> None:
        """Count a completed sample; ``now_s`` is in seconds since 1970."""
        self.completed += 1
        self.sum_s += delay_s
        self.buckets[bisect_left(BUCKETS_S, delay_s)] += 1
        self._recent.append((now_s, delay_s))
        second = int(now_s)
        if self._by_second and self._by_second[-1][0] == second:
            self._by_second[-1][1] += 1
        else:
            self._by_second.append([second, 1])
            while self._by_second[0][0] < second - RATE_S:
                self._by_second.popleft()

    def rate_per_s(self, now_s: float, since_s: float) -> float:
        """Return the mean rate of completed samples of the last seconds; ``since_s`` is the start of the service."""
        over_s = min(RATE_S, max(now_s - since_s, 1.0))
        return sum(count for second, count in self._by_second if second > now_s - over_s - 1) / over_s

    @property
    def recent(self) -> Sequence[tuple[float, float]]:
        """End in seconds since 1970, and delay in seconds, of the last samples."""
        return tuple(self._recent)[-SHOWN:]

    @property
    def mean_recent_s(self) -> float | None:
        """Mean delay of the last samples."""
        return sum(delay_s for _, delay_s in self._recent) / len(self._recent) if self._recent else None

    @property
    def delays(self) -> Delays | None:
        """Delays of the last samples; None without any."""
        if not self._recent:
            return None
        values = np.array([delay_s for _, delay_s in self._recent])
        return Delays(float(values.mean()), *map(float, np.percentile(values, (50, 95, 99))))


@dataclass
class WorkerCount:
    """Last report of a worker."""

    present: bool = True
    load: Load | None = None
    utilisation: float | None = None
    """Share of the time between the last two reports for which it computed."""
    heard_s: float | None = None
    """Time of the last report, in seconds since 1970."""
    left: int = 0
    """How often it left."""

    def take(self, load: Load, now_s: float) -> None:
        """Take a report."""
        before = self.load
        if before is None or load.at_s <= before.at_s or load.busy_s < before.busy_s:  # its first, or of a new agent
            self.utilisation = min(load.busy_s / load.at_s, 1.0) if before is None and load.at_s else None
        else:
            self.utilisation = min((load.busy_s - before.busy_s) / (load.at_s - before.at_s), 1.0)
        self.load, self.heard_s = load, now_s


@dataclass(frozen=True)
class Noted:
    """An incident, by the wall clock."""

    unix_s: float
    severity: Severity
    text: str


@dataclass(frozen=True)
class Change:
    """A change of the plan, in words."""

    unix_s: float
    lines: tuple[str, ...]


@dataclass
class _Counts:
    sources: dict[str, SourceCount]
    workers: dict[str, WorkerCount]
    incidents: deque[Noted] = field(default_factory=lambda: deque(maxlen=SHOWN))
    incident_count: Counter[str] = field(default_factory=Counter)
    changes: deque[Change] = field(default_factory=lambda: deque(maxlen=SHOWN))
    replans: int = 0


class Watch(Observer):
    """Observes a live run, and counts what becomes of its samples."""

    def __init__(self, instance: Instance, plan: PlanSpec) -> None:
        self.instance = instance
        self.plan = plan
        """The plan that applies."""
        self.started_unix_s = time.time()
        self.error: Exception | None = None
        """Why the session takes no more samples; None while it does."""
        self.over = threading.Event()
        """Set once the session takes no more samples."""
        self.lock = threading.Lock()
        """To be held while counts are read."""
        self.followers: list[Callable[[Instance], None]] = []
        """Called with the scenario of each plan that is applied, in the thread that applies it."""
        self.counts = _Counts(
            {name: SourceCount() for name in instance.sources}, {name: WorkerCount() for name in instance.workers}
        )

    def present(self, worker: str) -> bool:
        """Return whether a worker is in the run."""
        count = self.counts.workers.get(worker)
        return count is not None and count.present

    def mean_delay_s(self, source: str) -> float | None:
        """Return the mean delay of the last samples of a source, in seconds; None without any."""
        with self.lock:
            return self.counts.sources[source].mean_recent_s

    def on_done(self, source: str, future: Future[Result]) -> None:
        """Count the end of a sample; called in any thread."""
        error = future.exception()
        with self.lock:
            count = self.counts.sources.get(source) or SourceCount()  # a source that another plan lacks is not shown
            if error is None:
                count.completes(future.result().delay_s, time.time())
            elif isinstance(error, SampleError) and error.dropped:
                count.dropped += 1
            else:
                count.failed += 1
        if error is not None:
            _LOG.debug("%s", error)

    def note_change(self, lines: Sequence[str]) -> None:
        """Keep a change of the plan, in words."""
        with self.lock:
            self.counts.changes.append(Change(time.time(), tuple(lines)))

    # ---- observer of the run ----------------------------------------------------------------------------------------

    def on_load(self, load: Load) -> None:
        """Keep a worker's report."""
        with self.lock:
            if load.worker in self.counts.workers:  # another plan may lack it
                self.counts.workers[load.worker].take(load, time.time())

    def on_left(self, worker: str) -> None:
        """Count that a worker left."""
        with self.lock:
            if worker in self.counts.workers:
                before = self.counts.workers[worker]
                self.counts.workers[worker] = WorkerCount(present=False, left=before.left + 1)

    def on_joined(self, worker: str) -> None:
        """Note that a worker is present."""
        with self.lock:
            if worker in self.counts.workers:
                self.counts.workers[worker].present = True

    def on_incident(self, incident: Incident) -> None:
        """Keep and log an incident."""
        severity = incident.severity
        text = f"{incident.worker} {incident.what}".strip()
        with self.lock:
            self.counts.incidents.append(Noted(time.time(), severity, text))
            self.counts.incident_count[severity] += 1
        _LOG.log(_LEVELS[severity], "%s", text, extra={"worker": incident.worker} if incident.worker else {})

    def on_replanned(self, plan: PlanSpec) -> None:
        """Take the plan that applies from now on."""
        before, self.plan = self.plan, plan
        with self.lock:
            self.counts.replans += 1
        self.note_change(changed_routes(before, plan))

    def on_applied(self, instance: Instance, plan: PlanSpec | None) -> None:
        """Take the plan that was applied, and the scenario to which it belongs."""
        if plan is None:
            return
        before = self.plan
        with self.lock:
            counts = self.counts
            counts.sources = {name: counts.sources.get(name) or SourceCount() for name in instance.sources}
            counts.workers = {name: counts.workers.get(name) or WorkerCount() for name in instance.workers}
            self.instance, self.plan = instance, plan
            counts.replans += 1
        self.note_change(changed_routes(before, plan))
        for follow in self.followers:
            follow(instance)

    def on_closed(self, error: Exception) -> None:
        """Take no more samples."""
        self.error = self.error or error
        self.over.set()


def changed_routes(before: PlanSpec, after: PlanSpec) -> list[str]:
    """Return in words which sources move, a line each, and by how much their delays change."""
    lines = []
    for name, source in after.sources.items():
        old = before.sources.get(name)
        then, now = old and _workers(old.routes), _workers(source.routes)
        if old is None or then != now:
            by = "" if old is None else f"; {(source.delay_s - old.delay_s) * 1e3:+.0f} ms"
            lines.append(f"{name}: {then or 'nowhere'} -> {now}{by}")
    return lines or ["the same workers, with other blocks or shares"]


def _workers(routes: Sequence[Route]) -> str:
    ways: Mapping[str, None] = dict.fromkeys(", ".join(stage.worker for stage in route.stages) for route in routes)
    return " or ".join(ways)
