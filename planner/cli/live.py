"""Progress of a run: live tables on a terminal, a line from time to time in a pipe."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from planner.execution.coordinator.run_result import Observer
from planner.tables import milliseconds
from planner.trace.metrics import Distribution

if TYPE_CHECKING:
    from planner.execution.wire.frames import Tensors
    from planner.execution.wire.messages import Load
    from planner.trace.records import Incident, SampleRecord
    from planner.validation.validate import Progress as Tell

LINE_PERIOD_S: Final = 5.0
CARRIED_S: Final = 2.0
"""Time constant for smoothing the load of networks, in seconds."""


@dataclass
class _SourceRow:
    """Samples of a source so far."""

    completed: int = 0
    failed: int = 0
    delays: Distribution = field(default_factory=Distribution)

    @property
    def mean_s(self) -> float | None:
        return self.delays.mean if self.completed else None

    @property
    def p95_s(self) -> float | None:
        return self.delays.percentiles((95,))[0] if self.completed else None


@dataclass
class _Worker:
    """Last report of a worker; ``utilisation`` is that since the report before."""

    state: str = "connected"
    queued: int = 0
    at_s: float = 0.0
    busy_s: float = 0.0
    carried_s: Mapping[str, float] = field(default_factory=dict)
    utilisation: float = 0.0
    shares: dict[str, float] = field(default_factory=dict)
    """Share of each network resource's capacity recently used by transfers to this worker."""

    def take(self, load: Load) -> None:
        """Update the state with a report."""
        since_s = max(load.at_s - self.at_s, 1e-9)
        self.utilisation = (load.busy_s - self.busy_s) / since_s
        # A transfer counts when it is complete, so on a slow link the unsmoothed share would jump between 0 and over 1.
        weight = min(since_s / CARRIED_S, 1.0)
        for resource, carried_s in load.carried_s.items():
            before = self.shares.get(resource, 0.0)
            share = (carried_s - self.carried_s.get(resource, 0.0)) / since_s
            self.shares[resource] = before + weight * (share - before)
        self.state, self.queued = "connected", load.queued
        self.at_s, self.busy_s, self.carried_s = load.at_s, load.busy_s, load.carried_s


class RunView(Observer, AbstractContextManager["RunView"]):
    """Shows the steps of the work on stderr, and during a run its queues, utilisation and delays.

    Parameters
    ----------
    samples
        Number of samples of each source, None if unknown; omit it if there is no run.
    announce
        Whether to print a line for each step in a pipe, too.
    """

    def __init__(self, samples: Mapping[str, int | None] | None = None, *, announce: bool = False) -> None:
        self._samples = samples or {}
        self._announce = announce
        self._sources = {source: _SourceRow() for source in self._samples}
        self._workers: dict[str, _Worker] = {}
        self.started = False
        """Whether the run has started."""
        self._running = False
        self._console = Console(stderr=True)
        self._terminal = sys.stderr.isatty()
        self._next_line_s = 0.0
        self._stack = ExitStack()
        self._steps = Progress(
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
        )

    def __enter__(self) -> RunView:
        if self._terminal:
            live = Live(console=self._console, get_renderable=self._render, refresh_per_second=4, transient=True)
            self._stack.enter_context(live)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def say(self, step: str) -> Tell:
        """Begin a step of the work; return a callback for its progress."""
        if self._announce and not self._terminal:
            self._console.print(step, soft_wrap=True, highlight=False, markup=False)
        for earlier in self._steps.tasks:
            self._steps.update(earlier.id, total=1, completed=1)
        task = self._steps.add_task(step, total=None)
        self._running = False
        return lambda done, total: self._steps.update(task, completed=done, total=total)

    # ---- observer of the coordinator ------------------------------------------------------------------------------

    def on_started(self, submit: object) -> None:  # noqa: ARG002 - the observer's signature
        """Start showing the run."""
        self._running = self.started = True
        self._next_line_s = time.monotonic() + LINE_PERIOD_S

    def on_ended(self, sample: SampleRecord, outputs: Tensors) -> None:  # noqa: ARG002 - the observer's signature
        """Count a sample."""
        source = self._sources[sample.source]
        if sample.status == "completed":
            source.completed += 1
            source.delays.add(sample.delay_s)
        else:
            source.failed += 1
        totals = [samples for samples in self._samples.values() if samples is not None]
        if self._steps.tasks and len(totals) == len(self._samples):
            done = sum(row.completed + row.failed for row in self._sources.values())
            self._steps.update(self._steps.tasks[-1].id, completed=done, total=sum(totals))

    def on_load(self, load: Load) -> None:
        """Take a report of a worker; in a pipe, print a line from time to time."""
        self._workers.setdefault(load.worker, _Worker()).take(load)
        if not self._terminal and time.monotonic() >= self._next_line_s:
            self._next_line_s = time.monotonic() + LINE_PERIOD_S
            self._console.print(self._line(load.at_s), soft_wrap=True, highlight=False, markup=False)

    def on_left(self, worker: str) -> None:
        """Show that a worker left."""
        self._workers[worker] = _Worker(state="disconnected")

    def on_joined(self, worker: str) -> None:
        """Show that a worker joined."""
        self._workers[worker] = _Worker()

    def on_incident(self, incident: Incident) -> None:
        """Print it at once: a run may never end."""
        self._console.print(str(incident), soft_wrap=True, highlight=False, markup=False)

    @property
    def away(self) -> list[str]:
        """Workers that are not in the run, or were not at its end."""
        return sorted(name for name, worker in self._workers.items() if worker.state == "disconnected")

    def tally(self) -> tuple[Sequence[str], Sequence[Sequence[object]]]:
        """Return columns and rows of a table of the samples so far, for a run that was ended before its time."""
        columns = ("source", ">completed", ">failed", ">not received", ">mean delay", ">95 %")
        rows = []
        for name, row in self._sources.items():
            samples = self._samples[name] or 0
            missing = samples - row.completed - row.failed
            rows.append((name, row.completed, row.failed, missing, milliseconds(row.mean_s), milliseconds(row.p95_s)))
        return columns, rows

    # ---- rendering ------------------------------------------------------------------------------------------------

    def _completed(self, source: str) -> str:
        completed, samples = self._sources[source].completed, self._samples[source]
        return f"{completed}" if samples is None else f"{completed} of {samples}"

    def _line(self, at_s: float) -> str:
        sources = [
            f"{name} {self._completed(name)}"
            + (f", mean {milliseconds(row.mean_s)}" if row.completed else "")
            + (f", {row.failed} failed" if row.failed else "")
            for name, row in self._sources.items()
        ]
        workers = [
            f"{name} {worker.utilisation:.0%}, {worker.queued} waiting"
            if worker.state == "connected"
            else f"{name} {worker.state}"
            for name, worker in sorted(self._workers.items())
        ]
        networks = [f"{name} {share:.0%}" for name, share in self._networks().items()]
        return f"{at_s:.0f} s: " + " | ".join("; ".join(part) for part in (sources, workers, networks) if part)

    def _networks(self) -> dict[str, float]:
        """Return the used share of the capacity of each network resource that carried anything."""
        used = [worker.shares for worker in self._workers.values()]
        return {name: sum(shares.get(name, 0.0) for shares in used) for name in sorted(set().union(*used))}

    def _render(self) -> RenderableType:
        if not self._running:
            return self._steps
        sources, workers = Table("source"), Table("worker")
        for column in ("completed", "failed", "mean delay", "95 %"):
            sources.add_column(column, justify="right")
        for name, row in self._sources.items():
            delays = milliseconds(row.mean_s), milliseconds(row.p95_s)
            sources.add_row(name, self._completed(name), str(row.failed), *delays)
        for column in ("busy", "waiting"):
            workers.add_column(column, justify="right")
        for name, worker in sorted(self._workers.items()):
            connected = worker.state == "connected"
            workers.add_row(name, f"{worker.utilisation:.0%}" if connected else worker.state, str(worker.queued))
        networks = Table("network")
        networks.add_column("used", justify="right")
        for name, share in self._networks().items():
            networks.add_row(name, f"{share:.0%}")
        return Group(self._steps, sources, Columns([workers, networks]))
