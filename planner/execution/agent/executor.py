"""The thread of an agent that runs blocks, one at a time, while the agent handles messages."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np

from planner.errors import RuntimeSessionError, explain
from planner.execution.agent.turns import Turn, Turns
from planner.execution.wire.frames import Tensors
from planner.execution.wire.threads import start_thread
from planner.profiling.types import ExitPoint
from planner.runtime.confidence import confidence
from planner.runtime.processors import pinned_to
from planner.runtime.providers import Provider
from planner.runtime.runner import ChainRunner, Tensor
from planner.runtime.session import download
from planner.worker.events import RunBlock

_LOG = logging.getLogger(__name__)

Held: TypeAlias = Mapping[str, Tensor]
"""Tensors of a sample where the last block left them: in the host's memory or in the provider's."""


@dataclass(frozen=True, slots=True)
class BlockJob:
    """Blocks to run, the first of which counts as begun at ``begin_s`` of the monotonic clock.

    ``lasts_s`` are their durations by the scenario; None if they take their own time.
    """

    run: RunBlock
    tensors: Held
    begin_s: float
    lasts_s: tuple[float, ...] | None

    @property
    def blocks(self) -> range:
        """The blocks to run, at least the first of them."""
        last = self.run.block if self.run.last_block is None else self.run.last_block
        return range(self.run.block, last + 1)


class BlockTime(NamedTuple):
    """When a block ran, by the monotonic clock, and whether it took longer than the scenario's time."""

    block: int
    start_s: float
    end_s: float
    late: bool


@dataclass(frozen=True, slots=True)
class BlockResult:
    """The end of a job: the output tensors of its last block, or the reason why that failed."""

    run: RunBlock
    tensors: Held | None
    reason: str
    times: tuple[BlockTime, ...]
    """Those of the blocks that were run, at least one."""
    confidence: tuple[float, ...] = ()
    """The confidence at each exit that the last block computes."""


class ModelBlocks:
    """The blocks of one model on this agent, loaded from their files on first use; usable from any thread.

    On a provider with its own memory, the output of a block stays there for the next block of the stage; :func:`fetch`
    copies it to the host.
    """

    def __init__(
        self,
        cuts: tuple[tuple[str, ...], ...],
        files: tuple[Path | bytes, ...],
        exits: Sequence[ExitPoint] = (),
        *,
        provider: str | Provider,
        threads: int,
        processors: Collection[int] = (),
    ) -> None:
        self._files = files
        self._processors = processors
        self._exits = [[leave.name for leave in exits if leave.cut == block + 1] for block in range(len(files))]
        self._runner = ChainRunner(cuts, provider=provider, threads=threads)
        self._loading = threading.Lock()
        self._running = threading.Lock()
        self._used_s: dict[int, float] = {}
        self._needed: dict[str, frozenset[int]] = {}

    def need(self, run: str, blocks: Iterable[int]) -> None:
        """Take note of the blocks that a run needs, in place of those that it needed before."""
        self._needed[run] = frozenset(blocks)

    @property
    def idle(self) -> frozenset[int]:
        """The blocks in memory that no run needs."""
        return frozenset(self.loaded).difference(*list(self._needed.values()))

    @property
    def loaded(self) -> tuple[int, ...]:
        """The blocks in memory."""
        return tuple(sorted(self._runner.loaded))

    def load(self, block: int) -> None:
        """Create the session of a block that has none; other blocks can run meanwhile."""
        with self._loading:
            if block not in self._runner.loaded:
                self._used_s[block] = time.monotonic()
                with pinned_to(self._processors):  # a session's threads inherit this
                    self._runner.load(block, self._files[block])

    def unload(self, block: int, *, unused_s: float) -> None:
        """Drop the session of a block that has not been used for ``unused_s`` seconds."""
        with self._running:
            if self._used_s[block] < time.monotonic() - unused_s:
                self._runner.unload(block)

    def run(self, block: int, tensors: Held, *, goes_on: bool = False) -> dict[str, Tensor]:
        """Return the tensors of the cut after the block, given those before it in any memory.

        ``goes_on`` says that these are what the block before it has returned.
        """
        with self._running:
            if not self._runner.has(block):
                self.load(block)
            self._used_s[block] = time.monotonic()
            placed = tensors if goes_on or _on_device(tensors) else self._runner.send(block, tensors)
            return self._runner.step(block, placed)

    def confidence(self, block: int, outputs: Held) -> tuple[float, ...]:
        """Return the model's confidence at each exit that a block computes, given the block's outputs."""
        if not self._exits[block]:
            return ()
        results = fetch({name: outputs[name] for name in self._exits[block]})
        return tuple(float(confidence(result).min()) for result in results.values())


def fetch(tensors: Held) -> Tensors:
    """Return tensors in the host's memory."""
    return download(tensors) if _on_device(tensors) else tensors


def _reason(error: Exception) -> str:
    """Return why a block failed, without naming the block: the message it becomes part of does."""
    if isinstance(error, RuntimeSessionError):
        return "; ".join(str(replace(fault, where=None)) for fault in error.faults)
    return explain(error)


def _on_device(tensors: Held) -> bool:
    return any(not isinstance(tensor, np.ndarray) for tensor in tensors.values())


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
        tensors: Held = job.tensors
        times: list[BlockTime] = []
        start_s, confidences = job.begin_s, tuple[float, ...]()
        for block in job.blocks:
            if times:
                if self._halted:
                    break
                start_s = times[-1].end_s
                self._turn.give_way()
            try:
                blocks = self._models[job.run.model]
                tensors = blocks.run(block, tensors, goes_on=bool(times))
                confidences = blocks.confidence(block, tensors)
            except Exception as error:  # noqa: BLE001 - whatever a block raises, its sample is reported failed
                # Many samples may fail, so the reporter warns once per block.
                _LOG.debug("block %d of %s fails", block, job.run.model, exc_info=True)
                times.append(BlockTime(block, start_s, time.monotonic(), late=False))
                return BlockResult(job.run, None, _reason(error), tuple(times))
            times.append(self._ended(block, start_s, None if job.lasts_s is None else job.lasts_s[len(times)]))
        return BlockResult(job.run, tensors, "", tuple(times), confidences)

    def _ended(self, block: int, start_s: float, lasts_s: float | None) -> BlockTime:
        """Return when a block ran that has ended; wait until the scenario's time is over, if it has one."""
        done_s = time.monotonic()
        if lasts_s is None:
            return BlockTime(block, start_s, done_s, late=False)
        begin_s = self._turn.since_s if self._turn.waited else start_s  # another run's block takes none of its time
        end_s = max(done_s, begin_s + lasts_s)
        if end_s > done_s:
            time.sleep(end_s - done_s)  # the block ends at end_s even if the system oversleeps
        return BlockTime(block, start_s, end_s, late=end_s == done_s)
