"""The samples of one source of a live run, from their submission until their futures are done."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from numpy.typing import NDArray

from planner.errors import ExecuteError
from planner.execution.session.samples import fitting
from planner.execution.wire.frames import Tensors
from planner.execution.wire.messages import MAX_GIVEN_UP, Further
from planner.model.chain import TensorSpec
from planner.policy.types import Progress
from planner.scenario.decode import DecodeSpec

if TYPE_CHECKING:
    from planner.execution.session.generation import Generation

STALLED_S: Final = 900.0
"""The samples in flight of a source fail if none of them ends for this time. Their worker gives each up before."""


MAX_NEW: Final = 256
"""Largest number of tokens to generate, where nothing else is said."""


class BusyError(ExecuteError):
    """The maximum number of samples of a source is in flight."""


class AbsentError(ExecuteError):
    """The worker of a source is not in the run, and no longer awaited."""


class SampleError(ExecuteError):
    """A sample failed; the message names it and the reason."""

    def __init__(self, source: str, sample: int, reason: str, *, dropped: bool = False) -> None:
        super().__init__(f"the sample failed: {reason}", where=f"{source}, sample {sample}")
        self.source, self.sample, self.reason = source, sample, reason
        self.dropped = dropped
        """Whether it was dropped because it was late, waited too long, or its time was up."""


@dataclass(frozen=True)
class Result:
    """Result of a sample.

    Parameters
    ----------
    sample
        Number of the sample, counted from 0 for each source.
    outputs
        The model's outputs by name.
    delay_s
        Time from the sample's arrival at the source's worker to the arrival of its result there, in seconds; and, if
        that worker was away, the time for which the sample waited for it.
    """

    source: str
    sample: int
    outputs: Mapping[str, NDArray[Any]]
    delay_s: float


class Desk(Protocol):
    """What a source needs of the run to which it sends samples."""

    def inputs(self, source: str) -> Sequence[TensorSpec]:
        """Return the inputs of a source's model."""
        ...

    def outputs(self, source: str) -> Sequence[TensorSpec]:
        """Return the outputs of a source's model."""
        ...

    def check_priority(self, source: str, priority: float) -> None:
        """Check that some source has a priority."""
        ...

    def home(self, source: str) -> str:
        """Return the worker of a source."""
        ...

    def warm_up(self, source: str, inputs: Tensors) -> None:
        """Let the agents warm up with a sample."""
        ...

    def send(
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
        """Send a sample to the worker of its source, and which sequences will not go on."""
        ...

    def refuse_failed(self) -> None:
        """Raise the error that has ended the run, if any."""
        ...

    def decode(self, source: str) -> DecodeSpec | None:
        """Return how a source generates, by its scenario."""
        ...

    def next_sequence(self, source: str) -> int:
        """Return the number of a new sequence; raise an error if its runs might leave at an exit."""
        ...


@dataclass(slots=True)
class _InFlight:
    """A sample without a result; the times are those of the monotonic clock."""

    future: Future[Result]
    inputs: Tensors
    desk: Desk
    """The run that it belongs to."""
    priority: float | None = None
    within_s: float | None = None
    further: Further | None = None
    progress: Progress | None = None
    on_tokens: Callable[[Tensors], None] | None = None
    submitted_s: float = field(default_factory=time.monotonic)
    sent_s: float | None = None
    """When it was last sent to its worker; None while that is away."""

    @property
    def left_s(self) -> float | None:
        """What is left of its time, in seconds; None without a limit."""
        return None if self.within_s is None else self.submitted_s + self.within_s - time.monotonic()


class SourceHandle:
    """Accepts the samples of one source; created by :meth:`LiveSession.source`.

    Each sample belongs to the run to which it was submitted, and ends there; another plan gets those that come later.
    """

    def __init__(self, name: str, limit: int) -> None:
        self._desk: Desk | None = None
        """The run that takes new samples; None while no plan has this source."""
        self.name = name
        self.limit = limit
        self._slots = threading.BoundedSemaphore(limit)
        self._lock = threading.Lock()
        self._submitted = 0
        self._pending: dict[int, _InFlight] = {}
        self._away: set[Desk] = set()
        """The runs in which the source's worker is not."""
        self._given_up: set[Desk] = set()
        """The runs in which that worker is no longer awaited."""
        self._given_up_sequences: deque[int] = deque()
        self._last_end_s = time.monotonic()

    @property
    def _open_desk(self) -> Desk:
        if self._desk is None:
            raise ExecuteError("the plan has no such source any more", where="source", value=self.name)
        return self._desk

    @property
    def inputs(self) -> Sequence[TensorSpec]:
        """Inputs of the source's model."""
        return self._open_desk.inputs(self.name)

    def move(self, desk: Desk | None) -> None:
        """Give samples to another run from now on, or take none any more."""
        with self._lock:
            self._desk = desk

    def in_flight(self, desk: Desk) -> int:
        """Return the number of samples of a run that have not ended."""
        with self._lock:
            return sum(waiting.desk is desk for waiting in self._pending.values())

    @property
    def outputs(self) -> Sequence[TensorSpec]:
        """Outputs of the source's model; of several models of the same task, those of the first."""
        return self._open_desk.outputs(self.name)

    @property
    def pending(self) -> list[Future[Result]]:
        """Futures of the in-flight samples."""
        with self._lock:
            return [sample.future for sample in self._pending.values()]

    def warm_up(self, inputs: Mapping[str, NDArray[Any]]) -> None:
        """Let the agents warm up with a sample instead of a drawn input; only before the session is entered.

        Raises
        ------
        ExecuteError
            If an input is missing or unknown, or has another dtype or shape.
        """
        self._open_desk.warm_up(self.name, fitting(self.inputs, inputs, self.name))

    def submit(
        self,
        inputs: Mapping[str, NDArray[Any]],
        *,
        block: bool = True,
        timeout_s: float | None = None,
        priority: float | None = None,
        within_s: float | None = None,
        further: Further | None = None,
        progress: Progress | None = None,
        on_tokens: Callable[[Tensors], None] | None = None,
    ) -> Future[Result]:
        """Submit a sample.

        Parameters
        ----------
        inputs
            The model's inputs by name; the leading axis of length 1 may be missing. They must not be modified later.
        block, timeout_s
            Whether to wait, and how long, while ``limit`` samples are in flight.
        priority
            Priority of one of the sources, with which the sample is served in place of that of its own.
        within_s
            Time for the result, in seconds: the sample is dropped if a block of it would start later.
        further
            Steps of a sequence that follow it; see :meth:`generate`.
        progress
            How far its sequence is.
        on_tokens
            Called with tokens and their times while further steps follow, in a thread of the session; must not wait.

        Returns
        -------
        concurrent.futures.Future
            Future of a :class:`Result`, which raises :class:`SampleError` if the sample fails. Its callbacks must not
            wait for other samples.

        Raises
        ------
        ExecuteError
            If an input is missing or unknown, or has another dtype or shape, or no source has the priority, or the
            session is closed or has failed, or its plan has no such source any more.
        BusyError
            If ``limit`` samples are still in flight.
        AbsentError
            If the source's worker has left, or has not connected yet, and is no longer awaited.
        """
        expected = self.inputs
        arrays = fitting(expected, inputs, self.name)
        if priority is not None:
            self._open_desk.check_priority(self.name, priority)
        if not self._slots.acquire(blocking=block, timeout=timeout_s if block else None):
            raise BusyError("too many in-flight samples", where=self.name, expected=f"at most {self.limit}")
        future: Future[Result] = Future()
        future.set_running_or_notify_cancel()
        # Under the lock, so that samples are sent in the order of their numbers.
        with self._lock:
            try:
                desk, sample = self._open_desk, self._submitted
                desk.refuse_failed()
                if desk.inputs(self.name) != expected:  # of another plan, which came while this waited
                    arrays = fitting(desk.inputs(self.name), inputs, self.name)
                if desk in self._given_up:
                    home = desk.home(self.name)
                    raise AbsentError("the worker of the source is absent", where=self.name, value=home)
                waiting = _InFlight(future, arrays, desk, priority, within_s, further, progress, on_tokens)
                self._send(sample, waiting)
            except BaseException:
                self._slots.release()
                raise
            self._submitted += 1
            self._pending[sample] = waiting
        return future

    @property
    def decode(self) -> DecodeSpec | None:
        """How the source generates, by its scenario; None if that does not say."""
        return self._open_desk.decode(self.name)

    def next_sequence(self) -> int:
        """Return the number of a new sequence of a model with state, which no other source of the session has.

        Raises
        ------
        ExecuteError
            If the source's model has exits.
        """
        return self._open_desk.next_sequence(self.name)

    def give_up_sequence(self, number: int) -> None:
        """Take note that a sequence will not go on, in any thread: its state is dropped with the next sample."""
        self._given_up_sequences.append(number)

    def generate(
        self,
        tokens: Sequence[int],
        *,
        max_new: int | None = None,
        stop: Collection[int] | None = None,
        chunk: int | None = None,
        temperature: float | None = None,
        seed: int = 0,
    ) -> Generation:
        """Generate tokens after a prompt.

        What is not given is that of ``decode:`` of the source in the scenario, if it has that.

        Parameters
        ----------
        tokens
            The prompt.
        max_new
            Largest number of tokens to generate; if it is not given, the scenario's, or 256, but no more than the model
            can take.
        stop
            Tokens after which the sequence ends; none if the scenario says nothing.
        chunk
            Largest number of tokens of the prompt in one run; all if the scenario says nothing. Urgent samples of other
            sources get their turn between the runs.
        temperature, seed
            Temperature of the distribution from which tokens are drawn, and the seed of the draws. At 0, and if the
            scenario says nothing, the likeliest is taken.

        Returns
        -------
        Generation
            Iterator of the tokens; it runs the model when it is asked for the next one.

        Raises
        ------
        ModelError
            If the source's model keeps no state, or has inputs of unknown meaning.
        ExecuteError
            If it has exits, or the prompt is empty or has a token outside the vocabulary, or the sequence is longer
            than the model can take.
        """
        from planner.execution.session.generation import Generation
        from planner.model.tokens import longest_context, roles

        decode = self.decode
        if max_new is None:
            max_new = decode.max_new if decode is not None else MAX_NEW
            most = longest_context(roles(self.inputs, self.name))
            if most is not None and len(tokens) < most:
                max_new = min(max_new, most - len(tokens))
        if stop is None:
            stop = decode.stop if decode is not None else ()
        if temperature is None:
            temperature = decode.drawn_temperature if decode is not None else 0.0
        if chunk is None and decode is not None:
            chunk = decode.chunk
        return Generation(self, tokens, max_new, stop, chunk, temperature, seed)

    def _send(self, sample: int, waiting: _InFlight) -> None:
        """Send a sample to its worker, unless that is away."""
        if waiting.desk not in self._away:
            left_s = None if waiting.left_s is None else max(waiting.left_s, 0.0)
            given_up = min(len(self._given_up_sequences), MAX_GIVEN_UP)
            waiting.desk.send(
                self.name,
                sample,
                waiting.inputs,
                priority=waiting.priority,
                within_s=left_s,
                further=waiting.further,
                progress=waiting.progress,
                given_up=[self._given_up_sequences.popleft() for _ in range(given_up)],
            )
            waiting.sent_s = waiting.submitted_s if waiting.sent_s is None else time.monotonic()

    def home_left(self, desk: Desk) -> None:
        """Keep the samples of a run until the source's worker is back."""
        with self._lock:
            self._away.add(desk)

    def home_joined(self, desk: Desk) -> None:
        """Send the samples that wait for the source's worker, in order, those that it had before once more."""
        with self._lock:
            self._away.discard(desk)
            self._given_up.discard(desk)
            self._last_end_s = time.monotonic()
            late = [
                sample
                for sample, waiting in self._pending.items()
                if waiting.desk is desk and waiting.left_s is not None and waiting.left_s <= 0
            ]
            for sample, waiting in self._pending.items():
                if waiting.desk is desk and sample not in late:
                    self._send(sample, waiting)
                    waiting.sent_s = time.monotonic()
        for sample in late:
            reason = f"its time was up before {desk.home(self.name)} was back"
            self.end(sample, SampleError(self.name, sample, reason, dropped=True))

    def give_up(self, desk: Desk, reason: str) -> None:
        """Fail all samples of a run, and accept none for it until the source's worker is back."""
        with self._lock:
            self._given_up.add(desk)
        self.fail_all(reason, desk)

    def forget(self, desk: Desk) -> None:
        """Take note that a run is over."""
        with self._lock:
            self._away.discard(desk)
            self._given_up.discard(desk)

    def waited_s(self, sample: int) -> float:
        """Return the time from the submission of a sample until it was last sent, in seconds."""
        with self._lock:
            waiting = self._pending.get(sample)
        return waiting.sent_s - waiting.submitted_s if waiting is not None and waiting.sent_s is not None else 0.0

    def take_tokens(self, sample: int, tokens: Tensors) -> None:
        """Give tokens of a sample that goes on to whoever waits for them."""
        with self._lock:
            waiting = self._pending.get(sample)
            self._last_end_s = time.monotonic()
        if waiting is not None and waiting.on_tokens is not None:
            waiting.on_tokens(tokens)

    def end(self, sample: int, outcome: Result | SampleError) -> bool:
        """Complete the future of a sample; return whether this is its first end."""
        with self._lock:
            ended = self._pending.pop(sample, None)
            self._last_end_s = time.monotonic()
        if ended is None:
            return False
        self._slots.release()
        if isinstance(outcome, Result):
            ended.future.set_result(outcome)
        else:
            ended.future.set_exception(outcome)
        return True

    def fail_all(self, reason: str, desk: Desk | None = None) -> None:
        """Fail the in-flight samples of a run, or of all runs."""
        with self._lock:
            samples = [sample for sample, waiting in self._pending.items() if desk in {None, waiting.desk}]
        for sample in samples:
            self.end(sample, SampleError(self.name, sample, reason))

    def fail_stalled(self) -> None:
        """Fail the samples in flight if none of the source has ended for :data:`STALLED_S`."""
        with self._lock:
            sent_s = [waiting.sent_s for waiting in self._pending.values() if waiting.sent_s is not None]
            stalled = bool(sent_s) and time.monotonic() - max(min(sent_s), self._last_end_s) > STALLED_S
        if stalled:
            self.fail_all(f"no end was reported within {STALLED_S:g} s")
