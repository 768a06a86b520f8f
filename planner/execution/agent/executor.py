"""The thread of an agent that runs blocks, one at a time, while the agent handles messages."""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from planner.errors import RuntimeSessionError, explain
from planner.execution.agent.model_blocks import Held, ModelBlocks, fetch
from planner.execution.agent.turns import Turn, Turns
from planner.execution.wire.threads import start_thread
from planner.runtime.batches import joined, split
from planner.runtime.processors import pinned_to
from planner.worker.events import RunBlock

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BlockJob:
    """Sessions to run, the first of which counts as begun at ``begin_s`` of the monotonic clock.

    ``lasts_s`` are their durations by the scenario; None if they take their own time.
    """

    run: RunBlock
    tensors: tuple[Held, ...]
    """Those of each sample of the batch."""
    begin_s: float
    lasts_s: tuple[float, ...] | None


class BlockTime(NamedTuple):
    """When a session ran, by the monotonic clock, and whether it took longer than the scenario's time."""

    block: int
    start_s: float
    end_s: float
    late: bool
    last_block: int | None = None
    """Last block of a session of several."""


@dataclass(frozen=True, slots=True)
class BlockResult:
    """The end of a job: the output tensors of its last block for each sample, or the reason why that failed."""

    run: RunBlock
    tensors: tuple[Held, ...] | None
    reason: str
    times: tuple[BlockTime, ...]
    """Those of the sessions that were run, at least one."""
    confidence: tuple[float, ...] = ()
    """The confidence at each exit that the last block computes."""


def _together(samples: tuple[Held, ...]) -> Held:
    """Return the tensors of a batch; those of a single sample as they are."""
    return samples[0] if len(samples) == 1 else joined([fetch(tensors) for tensors in samples])


def _apart(tensors: Held, samples: int) -> tuple[Held, ...]:
    """Return the tensors of each sample of a batch."""
    return (tensors,) if samples == 1 else tuple(split(fetch(tensors), samples))


def _reason(error: Exception) -> str:
    """Return why a block failed, without naming the block: the message it becomes part of does."""
    if isinstance(error, RuntimeSessionError):
        return "; ".join(str(replace(fault, where=None)) for fault in error.faults)
    return explain(error)


class Executor:
    """Runs jobs in the order of their submission.

    Parameters
    ----------
    on_result
        Called in the thread at the end of each job.
    on_failure
        Called in the thread with the exception that ended it; a failing block does not end it.
    processors
        Processors to run on; by default all.
    turn
        Taken for each job and the handling of its end, so that the executors of one agent take turns. An executor with
        a job left asks for its next turn before it gives up the last one.
    """

    def __init__(
        self,
        models: Mapping[str, ModelBlocks],
        on_result: Callable[[BlockResult], None],
        on_failure: Callable[[Exception], None],
        processors: Collection[int] = (),
        turn: Turn | None = None,
    ) -> None:
        self._models = models
        self._turn = turn or Turns().turn("", 1.0)
        self._on_result = on_result
        self._processors = processors
        self._jobs: queue.SimpleQueue[BlockJob | None] = queue.SimpleQueue()
        self._halted = False
        self._thread = start_thread("executor", self._work, on_failure, awaited_at_exit=True)

    def submit(self, job: BlockJob) -> None:
        """Add a job."""
        self._halted = False
        self._jobs.put(job)

    def halt(self) -> None:
        """End the job at hand after the block at hand."""
        self._halted = True

    @property
    def waited_s(self) -> float:
        """Time in seconds that the thread was ready to run and got no processor; 0 if the system does not report it."""
        try:
            schedstat = Path(f"/proc/self/task/{self._thread.native_id}/schedstat").read_text(encoding="ascii")
        except OSError:
            return 0.0
        return int(schedstat.split()[1]) * 1e-9

    def close(self) -> None:
        """End the thread after the job at hand."""
        self._jobs.put(None)

    def join(self) -> None:
        """Wait until the thread has ended."""
        self._thread.join()

    def _work(self) -> None:
        with pinned_to(self._processors):
            job = self._jobs.get()
            while job is not None:
                self._turn.take()
                try:
                    idle = self._work_off(job)
                finally:
                    self._turn.end()
                job = self._jobs.get() if idle else None

    def _work_off(self, job: BlockJob) -> bool:
        """Run a job, and those that are there when it has ended; return whether there may be more."""
        self._on_result(self._run(job))
        while not self._jobs.empty():
            following = self._jobs.get()
            if following is None:
                return False
            self._turn.renew()
            self._on_result(self._run(following))
        return True

    def _run(self, job: BlockJob) -> BlockResult:
        tensors: Held = {}
        times: list[BlockTime] = []
        start_s, confidences = job.begin_s, tuple[float, ...]()
        for block, last in job.run.spans:
            if times:
                if self._halted:
                    break
                start_s = times[-1].end_s
                self._turn.give_way()
            try:
                blocks = self._models[job.run.model]
                before = tensors if times else _together(job.tensors)
                tensors = blocks.run(block, before, last, goes_on=bool(times))
                confidences = blocks.confidence(last, tensors)
            except Exception as error:  # noqa: BLE001 - whatever a block raises, its sample is reported failed
                return self._failed(job, block, error, times, start_s)
            lasts_s = None if job.lasts_s is None else job.lasts_s[len(times)]
            times.append(BlockTime(block, start_s, *self._end(start_s, lasts_s), last if last > block else None))
        try:
            outputs = _apart(tensors, len(job.tensors))
        except RuntimeSessionError as error:
            return self._failed(job, times.pop().block, error, times, start_s)
        return BlockResult(job.run, outputs, "", tuple(times), confidences)

    def _failed(
        self, job: BlockJob, block: int, error: Exception, times: list[BlockTime], start_s: float
    ) -> BlockResult:
        # Many samples may fail, so the reporter warns once per block.
        _LOG.debug("block %d of %s fails", block, job.run.model, exc_info=error)
        times.append(BlockTime(block, start_s, time.monotonic(), late=False))
        return BlockResult(job.run, None, _reason(error), tuple(times))

    def _end(self, start_s: float, lasts_s: float | None) -> tuple[float, bool]:
        """Return when the session at hand ended, and whether late; wait until the scenario's time is over, if any."""
        done_s = time.monotonic()
        if lasts_s is None:
            return done_s, False
        begin_s = self._turn.since_s if self._turn.waited else start_s  # another run's block takes none of its time
        end_s = max(done_s, begin_s + lasts_s)
        if end_s > done_s:
            time.sleep(end_s - done_s)  # the block ends at end_s even if the system oversleeps
        return end_s, end_s == done_s
