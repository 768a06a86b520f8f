"""The thread of an agent that runs blocks, one at a time, while the agent goes on talking."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np

from planner.errors import RuntimeSessionError, explain
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
"""Tensors of a sample where the last block left them: the host's memory, or the provider's."""


@dataclass(frozen=True, slots=True)
class BlockJob:
    """A block to run, decided on at ``begin_s`` of the monotonic clock.

    ``lasts_s`` is the time it takes by the scenario; None where it takes its own.
    """

    run: RunBlock
    tensors: Held
    begin_s: float
    lasts_s: float | None


@dataclass(frozen=True, slots=True)
class BlockResult:
    """A job that is over: its output tensors, or the reason why there are none; times of the monotonic clock."""

    run: RunBlock
    tensors: Held | None
    reason: str
    start_s: float
    end_s: float
    late: bool
    confidence: tuple[float, ...] = ()
    """At each exit that the block computes."""


class ModelBlocks:
    """The blocks of one model on this agent, loaded from files when they are first needed; for any thread.

    Where the provider has memory of its own, what a block makes stays there: for the next block of the stage, or until
    :meth:`fetch`.
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
        self._asked_s: dict[int, float] = {}

    @property
    def loaded(self) -> tuple[int, ...]:
        """The blocks in memory."""
        return tuple(sorted(self._runner.loaded))

    def load(self, block: int) -> None:
        """Make the session of a block, unless it is there; others can run meanwhile."""
        with self._loading:
            if block not in self._runner.loaded:
                self._asked_s[block] = time.monotonic()
                with pinned_to(self._processors):  # where a session's own threads stay
                    self._runner.load(block, self._files[block])

    def unload(self, block: int, *, unused_s: float) -> None:
        """Drop the session of a block that has not been asked for since so long ago."""
        with self._running:
            if self._asked_s[block] < time.monotonic() - unused_s:
                self._runner.unload(block)

    def run(self, block: int, tensors: Held) -> dict[str, Tensor]:
        """Give the tensors of the cut after the block from those before it, wherever they are."""
        with self._running:
            self.load(block)
            self._asked_s[block] = time.monotonic()
            placed = tensors if _on_device(tensors) else self._runner.send(block, tensors)
            return self._runner.step(block, placed)

    def confidence(self, block: int, made: Held) -> tuple[float, ...]:
        """Say how sure the model is of its answer at each exit that a block computes, given what the block made."""
        found = fetch({name: made[name] for name in self._exits[block]})
        return tuple(float(confidence(result).min()) for result in found.values())


def fetch(tensors: Held) -> Tensors:
    """Give tensors in the host's memory."""
    return download(tensors) if _on_device(tensors) else tensors


def _reason(error: Exception) -> str:
    """Say why a block failed, but not which one: whoever tells of the outcome names it."""
    if isinstance(error, RuntimeSessionError):
        return "; ".join(str(replace(fault, where=None)) for fault in error.faults)
    return explain(error)


def _on_device(tensors: Held) -> bool:
    return any(not isinstance(tensor, np.ndarray) for tensor in tensors.values())


class Executor:
    """Runs jobs in the order in which they come.

    Parameters
    ----------
    on_failure
        Told, in the thread, what has ended it; that a block fails does not.
    processors
        Where it runs; by default anywhere.
    """

    def __init__(
        self,
        models: Mapping[str, ModelBlocks],
        on_outcome: Callable[[BlockResult], None],
        on_failure: Callable[[Exception], None],
        processors: Collection[int] = (),
    ) -> None:
        self._models = models
        self._on_outcome = on_outcome
        self._processors = processors
        self._jobs: queue.SimpleQueue[BlockJob | None] = queue.SimpleQueue()
        self._thread = start_thread("compute", self._work, on_failure)

    def submit(self, job: BlockJob) -> None:
        """Add a job."""
        self._jobs.put(job)

    @property
    def waited_s(self) -> float:
        """Time in seconds that the thread stood ready and got no processor; 0 where the system does not tell."""
        try:
            told = Path(f"/proc/self/task/{self._thread.native_id}/schedstat").read_text(encoding="ascii")
        except OSError:
            return 0.0
        return int(told.split()[1]) * 1e-9

    def close(self) -> None:
        """Let the thread end after the job at hand."""
        self._jobs.put(None)

    def join(self) -> None:
        """Wait until it has ended."""
        self._thread.join()

    def _work(self) -> None:
        with pinned_to(self._processors):
            while (job := self._jobs.get()) is not None:
                self._on_outcome(self._run(job))

    def _run(self, job: BlockJob) -> BlockResult:
        try:
            blocks = self._models[job.run.model]
            tensors = blocks.run(job.run.block, job.tensors)
            sure = blocks.confidence(job.run.block, tensors)
        except Exception as error:  # noqa: BLE001 - whatever a block raises, its sample is reported failed, by name
            # Many samples may fail, so what all can read is told once, by the driver.
            _LOG.debug("block %d of %s fails", job.run.block, job.run.model, exc_info=True)
            return BlockResult(job.run, None, _reason(error), job.begin_s, time.monotonic(), late=False)
        end_s = done_s = time.monotonic()
        if job.lasts_s is not None and (end_s := max(done_s, job.begin_s + job.lasts_s)) > done_s:
            time.sleep(end_s - done_s)  # what the system sleeps too long is its own, and no part of the block
        late = job.lasts_s is not None and end_s == done_s
        return BlockResult(job.run, tensors, "", job.begin_s, end_s, late, sure)
