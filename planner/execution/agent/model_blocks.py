"""The blocks of one model on an agent: loaded from their files on first use, one by one or joined to sessions.

A session of several blocks is made from their files. While it is being made, and if it cannot be made, its blocks run
one after the other. Once it is there, sessions of single blocks that no run needs are dropped, so that the weights are
in memory once.
"""

from __future__ import annotations

import mmap
import tempfile
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import numpy as np

from planner.errors import ExecuteError
from planner.execution.wire.frames import Tensors
from planner.heap import trim_heap
from planner.model.join import Buffer, join_blocks
from planner.profiling.types import ExitPoint
from planner.runtime.confidence import confidence
from planner.runtime.processors import pinned_to
from planner.runtime.providers import Provider
from planner.runtime.runner import ChainRunner, Span, Tensor
from planner.runtime.session import download

Held: TypeAlias = Mapping[str, Tensor]
"""Tensors of a sample where the last block left them: in the host's memory or in the provider's."""


class ModelBlocks:
    """The blocks of one model on this agent; usable from any thread.

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
        self._cuts = cuts
        self._files = files
        self._processors = processors
        self._exits = [[leave.name for leave in exits if leave.cut == block + 1] for block in range(len(files))]
        self._runner = ChainRunner(cuts, provider=provider, threads=threads)
        self._loading = threading.Lock()
        self._running = threading.Lock()
        self._used_s: dict[Span, float] = {}
        self._needed: dict[str, frozenset[Span]] = {}

    def need(self, run: str, sessions: Iterable[Span]) -> None:
        """Take note of the sessions that a run needs, in place of those that it needed before."""
        self._needed[run] = frozenset(sessions)

    @property
    def idle(self) -> frozenset[Span]:
        """The sessions in memory that no run needs."""
        return self.sessions.difference(*list(self._needed.values()))

    @property
    def sessions(self) -> frozenset[Span]:
        """First and last block of each session in memory."""
        return self._runner.loaded

    @property
    def loaded(self) -> tuple[int, ...]:
        """The blocks in memory."""
        return tuple(sorted({block for first, last in self.sessions for block in range(first, last + 1)}))

    def load(self, block: int, last: int | None = None) -> None:
        """Create the session of a block, or of the blocks up to ``last``, if there is none; others can run meanwhile.

        Raises
        ------
        PlannerError
            If that is not possible.
        """
        last = block if last is None else last
        with self._loading:
            if (block, last) in self.sessions:
                return
            self._used_s[block, last] = time.monotonic()
            with self._model(block, last) as model, pinned_to(self._processors):  # a session's threads inherit this
                self._runner.load(block, model, last)
        if last > block:
            for single in self.idle.intersection((each, each) for each in range(block, last + 1)):
                self.unload(single, unused_s=0.0)
            trim_heap()

    def unload(self, session: Span, *, unused_s: float) -> None:
        """Drop a session that has not been used for ``unused_s`` seconds."""
        with self._running:
            if self._used_s[session] <= time.monotonic() - unused_s:
                self._runner.unload(*session)

    def run(self, block: int, tensors: Held, last: int | None = None, *, goes_on: bool = False) -> dict[str, Tensor]:
        """Return the tensors of the cut after a block, or after ``last``, given those before it in any memory.

        Several blocks run in their session; as long as there is none, one after the other. ``goes_on`` says that the
        tensors are what the block before has returned.
        """
        last = block if last is None else last
        with self._running:
            if last > block and not self._joined(block, last):
                made = self._run(block, block, tensors, goes_on=goes_on)
                for each in range(block + 1, last + 1):
                    made = self._run(each, each, made, goes_on=True)
                return made
            return self._run(block, last, tensors, goes_on=goes_on)

    def give_state(self, block: int, number: int) -> tuple[int, Tensors] | None:
        """Return the state of a sequence at a block, with the number of its runs, and keep it no longer; None if none.

        The sequence must not run here meanwhile.
        """
        return self._runner.give_state(block, number)

    def take_state(self, block: int, number: int, runs: int, state: Tensors) -> None:
        """Keep the state of a sequence that another agent has given."""
        self._runner.take_state(block, number, runs, state)

    def forget_state(self, number: int) -> None:
        """Drop the state of a sequence that has ended."""
        self._runner.forget_state(number)

    def confidence(self, block: int, outputs: Held) -> tuple[float, ...]:
        """Return the model's confidence at each exit that a block computes, given the block's outputs."""
        if not self._exits[block]:
            return ()
        results = fetch({name: outputs[name] for name in self._exits[block]})
        return tuple(float(confidence(result).min()) for result in results.values())

    def _joined(self, first: int, last: int) -> bool:
        """Return whether there is a session of several blocks; wait for one that is being made to replace nothing."""
        has = self._runner.has
        if not has(first, last) and not all(map(has, range(first, last + 1))):
            with self._loading:
                pass
        return has(first, last)

    def _run(self, first: int, last: int, tensors: Held, *, goes_on: bool) -> dict[str, Tensor]:
        if not self._runner.has(first, last):
            self.load(first, last)
        self._used_s[first, last] = time.monotonic()
        placed = tensors if goes_on or _on_device(tensors) else self._runner.send(first, tensors, last)
        return self._runner.step(first, placed, last)

    @contextmanager
    def _model(self, first: int, last: int) -> Iterator[Path | bytes]:
        """Yield the file or the content of the model of a session; a file of several blocks is removed afterwards."""
        if first == last:
            yield self._files[first]
            return
        if any(self._exits[first:last]):
            raise ExecuteError("an exit ends a session", where=f"blocks {first} to {last}")
        outputs = (*self._cuts[last + 1], *self._exits[last])
        pieces = join_blocks([_content(file) for file in self._files[first : last + 1]], outputs)
        path = _write(pieces, self._files[first])
        try:
            yield b"".join(pieces) if path is None else path
        finally:
            if path is not None:
                path.unlink(missing_ok=True)


def _content(file: Path | bytes) -> Buffer:
    if isinstance(file, bytes):
        return file
    with file.open("rb") as opened:
        return memoryview(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))


def _write(pieces: Iterable[Buffer], beside: Path | bytes) -> Path | None:
    """Write a model to a file beside another one; return None if there is no room, or the other is no file."""
    if isinstance(beside, bytes):
        return None
    path = None
    try:
        with tempfile.NamedTemporaryFile(dir=beside.parent, prefix="joined-", suffix=".tmp", delete=False) as file:
            path = Path(file.name)
            file.writelines(pieces)
    except OSError:
        if path is not None:
            path.unlink(missing_ok=True)
        return None
    return path


def fetch(tensors: Held) -> Tensors:
    """Return tensors in the host's memory."""
    return download(tensors) if _on_device(tensors) else tensors


def _on_device(tensors: Held) -> bool:
    return any(not isinstance(tensor, np.ndarray) for tensor in tensors.values())
