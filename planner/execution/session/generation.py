"""Sequences of a live run: a prompt, then steps that feed the model's choice back; its state stays with the blocks.

Each run of a sequence is a sample: the prompt first, whole or in chunks, then one token at a time. Other samples get
their turn between the runs, so that a long prompt in chunks does not hold up urgent sources. When the state of a
sequence is lost, because a worker left or its blocks moved, the sequence starts again: its prompt and the tokens so far
become the prompt of a new one. No token is lost or given twice, since they are counted here.

The worker of the last block chooses each token, so no program is needed for that. Once it is known how long a step
takes, a run asks for further steps (:class:`~planner.execution.wire.messages.Further`), which follow one another for
:data:`AHEAD_S` at most; their tokens come meanwhile.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from math import ceil
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from planner.errors import ExecuteError
from planner.execution.session.source import BusyError, Result, SampleError
from planner.execution.wire.frames import Tensors
from planner.execution.wire.messages import MAX_FURTHER, MAX_SEED, TIMES, TOKENS, Further
from planner.model.chain import TensorSpec
from planner.model.tokens import Inputs, inputs_of, logits_of, longest_context, roles
from planner.policy.types import Progress
from planner.scenario.decode import MAX_RESTARTS

AHEAD_S: Final = 1.0
"""For how long steps may follow one another before the program asks for more: by then it follows another plan."""

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

    def give_up_sequence(self, number: int) -> None:
        """Take note that a sequence will not go on; may be called in any thread."""
        ...

    def submit(
        self,
        inputs: Mapping[str, NDArray[Any]],
        *,
        block: bool = True,
        further: Further | None = None,
        progress: Progress | None = None,
        on_tokens: Callable[[Tensors], None] | None = None,
    ) -> Future[Result]:
        """Submit a sample, and steps that follow it; ``progress`` says how far its sequence is."""
        ...


@dataclass(frozen=True)
class _Run:
    """A run of the model, and the steps that follow it."""

    inputs: Inputs
    further: Further
    progress: Progress


class _News:
    """What comes of a run under way: tokens of steps, and in the end its future."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._items: deque[Tensors | Future[Result]] = deque()
        self._waiter: Future[Tensors | Future[Result]] | None = None

    def put(self, item: Tensors | Future[Result]) -> None:
        """Add an item, in any thread."""
        with self._lock:
            waiter, self._waiter = self._waiter, None
            if waiter is None or not waiter.set_running_or_notify_cancel():
                self._items.append(item)
                return
        waiter.set_result(item)

    def next(self) -> Future[Tensors | Future[Result]]:
        """Return a future of the next item."""
        waiter: Future[Tensors | Future[Result]] = Future()
        with self._lock:
            if not self._items:
                self._waiter = waiter
                return waiter
            item = self._items.popleft()
        waiter.set_result(item)
        return waiter


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
    """When each was there, in seconds since the generation began: the last one of a run and the steps after it, here;
    those before it, at the source's worker, by its clock since that began the run."""
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
        if not 0 <= self.seed <= MAX_SEED:
            raise ExecuteError("no seed", where="seed", value=self.seed, expected=f"0 to {MAX_SEED}")
        self._ready: deque[tuple[int, float]] = deque()
        self._step_s, self._sent_s = np.inf, 0.0
        self._number = self._runs = self._seen = self._part = 0
        self._news: _News | None = None
        self._next_run: _Run | None = None
        self._under_way = self._steps()
        self._closed = False
        self._begin_sequence()

    def close(self) -> None:
        """Generate no more: the workers drop the state of a sequence that has not ended, with the source's next sample.

        What is no longer used is closed by itself.
        """
        if not self._closed and not self._ended:
            self._closed = True
            self.source.give_up_sequence(self._number)

    def __del__(self) -> None:
        """Close it."""
        if hasattr(self, "_closed"):
            self.close()

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
        while not self._ready:
            if self._news is None:
                self._news = self._submit()
            self._take_news(self._news.next().result())
        return self._give()

    def __aiter__(self) -> Generation:
        """Return this, of which the tokens can be awaited as well."""
        return self

    async def __anext__(self) -> int:
        """Return the next token, without blocking the event loop."""
        if self._ended:
            raise StopAsyncIteration
        while not self._ready:
            if self._news is None:
                self._news = await self._submitted()
            self._take_news(await asyncio.wrap_future(self._news.next()))
        return self._give()

    def _take_news(self, news: Tensors | Future[Result]) -> None:
        """Take tokens of a run that goes on, or its end; then the next run is known, unless there are tokens."""
        if not isinstance(news, Future):
            self._part += self._add(news)
            return
        self._news = None
        steps = self._under_way
        try:
            outputs = news.result().outputs
        except SampleError as error:
            self._next_run = steps.throw(error)
            return
        try:
            self._next_run = steps.send(outputs)
        except StopIteration:
            self._next_run, self._under_way = None, self._steps()

    def _give(self) -> int:
        token, at_s = self._ready.popleft()
        self.tokens.append(token)
        self.times_s.append(at_s)
        return token

    def _submit(self, *, block: bool = True) -> _News:
        """Submit the next run; return what comes of it."""
        if self._next_run is None:
            self._next_run = next(self._under_way)
        run, news = self._next_run, _News()
        submitted = self.source.submit(
            run.inputs, block=block, further=run.further, progress=run.progress, on_tokens=news.put
        )
        submitted.add_done_callback(news.put)
        return news

    async def _submitted(self) -> _News:
        while True:
            try:
                return self._submit(block=False)
            except BusyError:  # other sequences of the source have its places
                await asyncio.sleep(BUSY_S)

    @property
    def _ended(self) -> bool:
        return self._closed or len(self.tokens) >= self.max_new or bool(self.tokens and self.tokens[-1] in self.stop)

    def _steps(self) -> Generator[_Run, Tensors, None]:
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

    def _take(self, outputs: Tensors) -> None:
        """Take the last tokens that a run and the steps after it have given."""
        count = self._part + self._add(outputs)
        token, _ = self._ready.pop()
        self._ready.append((token, time.monotonic() - self.begin_s))
        self._runs, self._seen, self._part = self._runs + count - 1, self._seen + count - 1, 0
        self._step_s = (time.monotonic() - self._sent_s) / count

    def _add(self, outputs: Tensors) -> int:
        """Take tokens; return their number."""
        tokens, times_s = outputs[TOKENS].tolist(), self._sent_s - self.begin_s + outputs[TIMES]
        self._ready.extend(zip(tokens, times_s.tolist(), strict=True))
        return len(tokens)

    def _begin_sequence(self) -> None:
        self._number, self._runs, self._seen, self._part = self.source.next_sequence(), 0, 0, 0

    def _runs_to_token(self) -> Generator[_Run, Tensors, Tensors]:
        """Run the model on the tokens that it has not seen, and return the outputs of the last run."""
        known = [*self.prompt, *self.tokens]
        outputs: Tensors = {}
        while self._seen < len(known):
            end = len(known) if self.chunk is None else min(self._seen + self.chunk, len(known))
            inputs = inputs_of(self._roles, known[self._seen : end], self._seen, self._number, self._runs)
            self._sent_s = time.monotonic()
            left = self.max_new - len(self.tokens) - 1 + ceil((len(known) - end) / (self.chunk or len(known)))
            progress = Progress(self._seen, end - self._seen, left)
            outputs = yield _Run(inputs, self._further(end, of_prompt=end < len(known)), progress)
            self._runs, self._seen = self._runs + 1, end
        return outputs

    def _further(self, known: int, *, of_prompt: bool) -> Further:
        """Return the steps that are to follow the next run; none after a piece of the prompt, and after the prompt."""
        if of_prompt:
            return Further(steps=0, known=known)
        together = 1
        if self.tokens:
            together = min(int(AHEAD_S / self._step_s), self.max_new - len(self.tokens), MAX_FURTHER + 1)
        return Further(
            steps=max(together - 1, 0),
            known=known,
            index=len(self.tokens),
            temperature=self.temperature,
            seed=self.seed,
            stop=tuple(self.stop),
        )

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
