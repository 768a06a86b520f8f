"""The thread of an agent that runs blocks, one at a time, while the agent goes on talking."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from planner.execute.messages import Tensors
from planner.runtime.runner import ChainRunner
from planner.worker.events import RunBlock


@dataclass(frozen=True, slots=True)
class Job:
    """A block to run, decided on at ``begin_s`` of the monotonic clock.

    ``lasts_s`` is the time it takes by the scenario; None where it takes its own.
    """

    run: RunBlock
    tensors: Tensors
    begin_s: float
    lasts_s: float | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """A job that is over: its output tensors, or the reason why there are none; times of the monotonic clock."""

    run: RunBlock
    tensors: Tensors | None
    reason: str
    start_s: float
    end_s: float
    late: bool


class ModelBlocks:
    """The blocks of one model on this agent, loaded from files when they are first needed."""

    def __init__(self, cuts: tuple[tuple[str, ...], ...], files: tuple[Path, ...], *, threads: int) -> None:
        self._files = files
        self._runner = ChainRunner(cuts, threads=threads)

    def load(self, block: int) -> None:
        """Make the session of a block, unless it is there."""
        if block not in self._runner.loaded:
            self._runner.load(block, self._files[block])

    def run(self, block: int, tensors: Tensors) -> dict[str, NDArray[Any]]:
        """Give the tensors of the cut after the block from those before it."""
        self.load(block)
        return self._runner.run_block(block, tensors)


class ComputeThread:
    """Runs jobs in the order in which they come."""

    def __init__(self, models: Mapping[str, ModelBlocks], on_outcome: Callable[[Outcome], None]) -> None:
        self._models = models
        self._on_outcome = on_outcome
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="compute", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Add a job."""
        self._jobs.put(job)

    def close(self) -> None:
        """End the thread after the job at hand."""
        self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._on_outcome(self._run(job))

    def _run(self, job: Job) -> Outcome:
        try:
            tensors = self._models[job.run.model].run(job.run.block, job.tensors)
        except Exception as error:  # noqa: BLE001 - whatever a block raises, its sample is reported failed, by name
            return Outcome(job.run, None, str(error), job.begin_s, time.monotonic(), late=False)
        late = False
        if job.lasts_s is not None:
            left_s = job.begin_s + job.lasts_s - time.monotonic()
            late = left_s < 0
            if not late:
                time.sleep(left_s)
        return Outcome(job.run, tensors, "", job.begin_s, time.monotonic(), late)
