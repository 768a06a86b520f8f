"""Events during a run, and its results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from planner.execution.coordinator.collected import Outputs, StepLogs
from planner.execution.wire.frames import Tensors
from planner.execution.wire.messages import Further, Load
from planner.plan.types import PlanSpec
from planner.policy.types import Progress
from planner.scenario.instance import Instance
from planner.trace.records import Incident, SampleRecord
from planner.trace.store import RecordStore


class SendSample(Protocol):
    """Sends a sample of a live run to the worker of its source."""

    def __call__(
        self,
        source: str,
        sample: int,
        inputs: Tensors,
        *,
        priority: float | None = None,
        within_s: float | None = None,
        further: Further | None = None,
        progress: Progress | None = None,
        given_up: Sequence[int] = (),
    ) -> None:
        """Send a sample, with what it has of a priority, a limit of time, further steps and a sequence's progress.

        ``given_up`` are sequences of the source that will not go on.
        """
        ...


class Observer:
    """Informed of events during a run, in the coordinator's thread; the methods of this base class do nothing."""

    def on_started(self, submit: SendSample) -> None:
        """Handle the start of the run; ``submit`` sends the samples of a live run."""

    def on_ended(self, sample: SampleRecord, outputs: Tensors) -> None:
        """Handle the end of a sample; ``outputs`` are empty except in a live run."""

    def on_tokens(self, source: str, sample: int, tokens: Tensors) -> None:
        """Handle tokens of a sample of a live run that goes on, with the time of each."""

    def on_load(self, load: Load) -> None:
        """Handle a worker's report of its load."""

    def on_left(self, worker: str) -> None:
        """Handle that a worker has left the run, or is absent when it starts."""

    def on_joined(self, worker: str) -> None:
        """Handle that an absent worker has joined the run."""

    def on_given_up(self, worker: str) -> None:
        """Handle that an absent worker has been awaited for as long as its sources wait; it may still join."""

    def on_applied(self, instance: Instance, plan: PlanSpec | None) -> None:
        """Handle that another plan takes the new samples of a live session; in the thread that applied it."""

    def on_incident(self, incident: Incident) -> None:
        """Handle a fault, or the recovery from one."""

    def on_replanned(self, plan: PlanSpec) -> None:
        """Handle that another plan applies from now on."""

    def on_closed(self, error: Exception) -> None:
        """Handle that a live run takes no more samples; ``error`` is why. Called in any thread, maybe repeatedly."""


@dataclass
class RunResult:
    """Results of a real run, including those that workers reported before they left.

    Records and steps are stored in temporary files, since they grow with the run; a live run has none.
    """

    records: RecordStore = field(default_factory=RecordStore)
    outputs: Outputs = field(default_factory=Outputs)
    """Outputs of each completed sample."""
    steps: StepLogs = field(default_factory=StepLogs)
    duplicates: int = 0
    late_blocks: dict[str, int] = field(default_factory=dict)
    """Number of blocks of each worker that took longer on its host than the scenario allows."""
    waited_s: dict[str, float] = field(default_factory=dict)
    """Time that each worker's computing thread was ready but had no processor, in seconds."""
    warm_block_s: dict[str, dict[str, tuple[float, ...]]] = field(default_factory=dict)
    """Shortest time of each resident block on the worker's host, by worker and model, in seconds."""
    providers: dict[str, str] = field(default_factory=dict)
    """Execution provider of each worker that became ready."""
    left: list[str] = field(default_factory=list)
    """Workers that left before the end."""
    incidents: list[Incident] = field(default_factory=list)
    """Faults, and recoveries from them, in order of time."""
    start_unix_s: float = 0.0
    """Wall-clock time at which the run's clock read 0, in seconds since 1970."""
