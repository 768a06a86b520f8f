"""Sequences of a live run: a prompt, then steps that feed the model's choice back; its state stays with the blocks.

Each run of a sequence is a sample: the prompt first, whole or in chunks, then one token at a time. Other samples get
their turn between the runs, so that a long prompt in chunks does not hold up urgent sources. When the state of a
sequence is lost, because a worker left or its blocks moved, the sequence starts again: its prompt and the tokens so far
become the prompt of a new one. No token is lost or given twice, since they are counted here.

The likeliest token needs no program to choose it. So once it is known how long a step takes, a run asks for further
steps (:class:`~planner.execution.wire.messages.Further`), which follow one another at the source's worker, for
:data:`TOGETHER_S` at most; drawn tokens are chosen here, one by one.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Collection, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from math import ceil
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from planner.errors import ExecuteError
from planner.execution.session.source import BusyError, Result, SampleError
from planner.execution.wire.messages import MAX_FURTHER, TIMES, TOKENS, Further
from planner.model.chain import SEQUENCE, TensorSpec
from planner.model.tokens import choose, fill, logits_of, longest_context, roles
from planner.policy.types import Progress
from planner.scenario.decode import MAX_RESTARTS

TOGETHER_S: Final = 0.05
"""For how long steps may follow one another before their tokens are given to the program."""

BUSY_S: Final = 0.005
"""After what time an asynchronous generation looks again whether its source takes a sample."""


class SequenceSource(Protocol):
    """What generation needs of a source of a live run."""

    name: str

    @property
    def inputs(self) -> Sequence[TensorSpec]:
        """Inputs of the source's model."""
        ...

    @property
    def outputs(self) -> Sequence[TensorSpec]:
        """Outputs of the source's model."""
        ...

    def next_sequence(self) -> int:
        """Return the number of a new sequence, which no other source of the run has."""
        ...

    def submit(
        self,
        inputs: Mapping[str, NDArray[Any]],
        *,
        block: bool = True,
        further: Further | None = None,
        progress: Progress | None = None,
    ) -> Future[Result]:
        """Submit a sample, and steps that follow it; ``progress`` says how far its sequence is."""
        ...


@dataclass(frozen=True)
class _Run:
    """A run of the model, and the steps that follow it."""

    inputs: Mapping[str, NDArray[Any]]
    further: Further | None
    progress: Progress | None


@dataclass
class Generation(Iterator[int], AsyncIterator[int]):
    """The tokens of a sequence, one by one as they are generated; also as an asynchronous iterator.

    Parameters
    ----------
    source
        The source whose model generates.
    prompt
        Tokens to begin with.
    max_new
        Largest number of tokens to generate.
    stop
        Tokens after which the sequence ends; the last one generated is one of them.
    chunk
        Largest number of tokens of the prompt in a run; None for all.
    temperature
        Temperature of the distribution from which a token is drawn; 0 for the likeliest token.
    seed
        Seed of the drawn tokens.

    Raises
    ------
    ModelError
        If the source's model keeps no state, or has inputs of unknown meaning.
    ExecuteError
        If there is no prompt, a number or token is out of range, or the sequence is longer than the model can take.
    SampleError
        While tokens are taken, if a run fails for another reason than lost state, or again and again.
    """

    source: SequenceSource
    prompt: Sequence[int]
    max_new: int
    stop: Collection[int] = ()
    chunk: int | None = None
    temperature: float = 0.0
    seed: int = 0
    tokens: list[int] = field(default_factory=list)
    """Those generated so far."""
    times_s: list[float] = field(default_factory=list)
    """When each was there, in seconds since the generation began; of steps that followed one another, at the source's
    worker, as long before the end of the last one as that measured."""
    restarts: int = 0
    """How often the sequence was started again."""
    begin_s: float = field(default_factory=time.monotonic)
    """When the generation began, by the monotonic clock."""

    def __post_init__(self) -> None:
        if not self.prompt:
            raise ExecuteError("a prompt needs a token", where=self.source.name, expected="one or more tokens")
        if self.max_new < 1:
            raise ExecuteError("too few tokens", where="max_new", value=self.max_new, expected="1 or more")
        if self.chunk is not None and self.chunk < 1:
            raise ExecuteError("too few tokens", where="chunk", value=self.chunk, expected="1 or more")
        if not 0.0 <= self.temperature < np.inf:
            raise ExecuteError("no temperature", where="temperature", value=self.temperature, expected="0 or more")
        self._roles = roles(self.source.inputs, self.source.name)
        self._logits = logits_of(self.source.outputs, self.source.name)
        most, length = longest_context(self._roles), len(self.prompt) + self.max_new
        if most is not None and length > most:
            found = f"{len(self.prompt)} + {self.max_new} = {length} tokens"
            expected = f"at most {most}"
            raise ExecuteError(
                "the sequence is longer than the model can take", where=self.source.name, value=found, expected=expected
            )
        self._check_tokens("prompt", self.prompt)
        self._check_tokens("stop", self.stop)
        self._random = np.random.default_rng(self.seed)
        self._ready: deque[tuple[int, float]] = deque()
        self._step_s, self._sent_s = np.inf, 0.0
        self._number = self._runs = self._seen = 0
        self._begin_sequence()

    @property
    def ttft_s(self) -> float | None:
        """Time to the first token, in seconds; None before it."""
        return self.times_s[0] if self.times_s else None

    @property
    def tpot_s(self) -> float | None:
        """Mean time per token after the first, in seconds; None before the second."""
        return (self.times_s[-1] - self.times_s[0]) / (len(self.times_s) - 1) if len(self.times_s) > 1 else None

    def __next__(self) -> int:
        """Return the next token."""
        if self._ended:
            raise StopIteration
        if self._ready:
            return self._give()
        steps = self._steps()
        run = next(steps)
        while True:
            try:
                outputs = self.source.submit(run.inputs, further=run.further, progress=run.progress).result().outputs
            except SampleError as error:
                run = steps.throw(error)
                continue
            try:
                run = steps.send(outputs)
            except StopIteration:
                return self._give()

    def __aiter__(self) -> Generation:
        """Return this, of which the tokens can be awaited as well."""
        return self

    async def __anext__(self) -> int:
        """Return the next token, without blocking the event loop."""
        if self._ended:
            raise StopAsyncIteration
        if self._ready:
            return self._give()
        steps = self._steps()
        run = next(steps)
        while True:
            try:
                outputs = (await self._submitted(run)).outputs
            except SampleError as error:
                run = steps.throw(error)
                continue
            try:
                run = steps.send(outputs)
            except StopIteration:
                return self._give()

    def _give(self) -> int:
        token, at_s = self._ready.popleft()
        self.tokens.append(token)
        self.times_s.append(at_s)
        return token

    async def _submitted(self, run: _Run) -> Result:
        while True:
            try:
                submitted = self.source.submit(run.inputs, block=False, further=run.further, progress=run.progress)
                return await asyncio.wrap_future(submitted)
            except BusyError:  # other sequences of the source have its places
                await asyncio.sleep(BUSY_S)

    @property
    def _ended(self) -> bool:
        return len(self.tokens) >= self.max_new or bool(self.tokens and self.tokens[-1] in self.stop)

    def _steps(self) -> Generator[_Run, Mapping[str, NDArray[Any]], None]:
        """Yield the runs up to the next token, and take their outputs, or the error that ends one."""
        for attempt in range(MAX_RESTARTS + 1):
            try:
                outputs = yield from self._runs_to_token()
            except SampleError:
                if attempt == MAX_RESTARTS:
                    raise
                self.restarts += 1
                self._begin_sequence()
            else:
                self._take(outputs)
                return

    def _take(self, outputs: Mapping[str, NDArray[Any]]) -> None:
        """Take the tokens that a run and the steps after it have given."""
        now_s = time.monotonic()
        if TOKENS in outputs:
            tokens, offsets_s = outputs[TOKENS].tolist(), outputs[TIMES]
            times_s = now_s - self.begin_s - (offsets_s[-1] - offsets_s)
            self._ready.extend(zip(tokens, times_s.tolist(), strict=True))
            self._runs, self._seen = self._runs + len(tokens) - 1, self._seen + len(tokens) - 1
        else:
            token = choose(outputs[self._logits.name], self.temperature, self._random)
            self._ready.append((token, now_s - self.begin_s))
        self._step_s = (now_s - self._sent_s) / len(self._ready)

    def _begin_sequence(self) -> None:
        self._number, self._runs, self._seen = self.source.next_sequence(), 0, 0

    def _runs_to_token(self) -> Generator[_Run, Mapping[str, NDArray[Any]], Mapping[str, NDArray[Any]]]:
        """Run the model on the tokens that it has not seen, and return the outputs of the last run."""
        known = [*self.prompt, *self.tokens]
        outputs: Mapping[str, NDArray[Any]] = {}
        while self._seen < len(known):
            end = len(known) if self.chunk is None else min(self._seen + self.chunk, len(known))
            inputs = {spec.name: fill(spec, role, known[:end], self._seen) for spec, role in self._roles.items()}
            inputs[SEQUENCE.name] = np.array([self._number, self._runs], np.int64)
            self._sent_s = time.monotonic()
            left = self.max_new - len(self.tokens) - 1 + ceil((len(known) - end) / (self.chunk or len(known)))
            progress = Progress(self._seen, end - self._seen, left)
            outputs = yield _Run(inputs, self._further(end, of_prompt=end < len(known)), progress)
            self._runs, self._seen = self._runs + 1, end
        return outputs

    def _further(self, known: int, *, of_prompt: bool) -> Further | None:
        """Return the steps that are to follow the next run; None where tokens are drawn here."""
        if self.temperature > 0:
            return None
        together = 1
        if self.tokens and not of_prompt:
            together = min(int(TOGETHER_S / self._step_s), self.max_new - len(self.tokens), MAX_FURTHER)
        return Further(steps=max(together - 1, 0), known=known, stop=() if of_prompt else tuple(self.stop))

    def _check_tokens(self, what: str, tokens: Collection[int]) -> None:
        size = self._logits.shape[-1]
        outside = [token for token in tokens if not 0 <= token < size]
        if outside:
            raise ExecuteError(
                f"the {what} has a token outside the vocabulary",
                where=self.source.name,
                value=outside[0],
                expected=f"0 to {size - 1}",
            )
