"""What a run says while it goes on, and what it has given in the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from planner.execution.coordinator.collected import Outputs, StepLogs
from planner.execution.wire.frames import Tensors
from planner.execution.wire.messages import Load
from planner.trace.records import Incident, SampleRecord
from planner.trace.store import RecordStore


class Observer:
    """Is told what goes on while a run does, in the coordinator's thread; this one lets all pass."""

    def started(self, submit: Callable[[str, int, Tensors], None]) -> None:
        """Learn that the run has started; ``submit(source, sample, inputs)`` hands in a sample of a live run."""

    def ended(self, sample: SampleRecord, outputs: Tensors) -> None:
        """Learn that a sample ended; its outputs are there in a live run only."""

    def told(self, load: Load) -> None:
        """Learn how busy a worker is."""

    def left(self, worker: str) -> None:
        """Learn that a worker is gone from the run, or is not there when it starts."""

    def joined(self, worker: str) -> None:
        """Learn that a worker that was gone is in the run again."""


@dataclass
class RunResult:
    """What a real run gave; of workers that were gone before its end, what they had told by then.

    Records and steps lie in temporary files, since they grow with the run; a live run gives none.
    """

    records: RecordStore = field(default_factory=RecordStore)
    outputs: Outputs = field(default_factory=Outputs)
    """Of each completed sample; samples that gave the same share their tensors."""
    steps: StepLogs = field(default_factory=StepLogs)
    duplicates: int = 0
    late_blocks: dict[str, int] = field(default_factory=dict)
    """Of each worker, how many blocks took its host longer than the scenario allows."""
    waited_s: dict[str, float] = field(default_factory=dict)
    """Of each worker, how long its computing thread stood ready and got no processor."""
    warm_block_s: dict[str, dict[str, tuple[float, ...]]] = field(default_factory=dict)
    """For each worker and model, the shortest time of each resident block on this host, in seconds."""
    left: list[str] = field(default_factory=list)
    """Workers that were gone before the end."""
    incidents: list[Incident] = field(default_factory=list)
    """What went wrong, and what came right again, in order of time."""
    start_unix_s: float = 0.0
    """Time of the wall clock, in seconds since 1970, at which the run's clock read 0."""
