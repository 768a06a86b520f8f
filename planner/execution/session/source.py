"""The samples of one source of a live run, from their submission until their futures are done."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from numpy.typing import NDArray

from planner.errors import ExecuteError
from planner.execution.session.samples import fitting
from planner.execution.wire.frames import Tensors
from planner.model.chain import TensorSpec

STALLED_S: Final = 900.0
"""The samples in flight of a source fail if none of them ends for this time. Their worker gives each up before."""


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
    """What a source needs of its session."""

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
        self, source: str, sample: int, inputs: Tensors, *, priority: float | None = None, within_s: float | None = None
    ) -> None:
        """Send a sample to the worker of its source."""
        ...

    def refuse_failed(self) -> None:
        """Raise the error that has ended the session, if any."""
        ...


@dataclass(slots=True)
class _InFlight:
    """A sample without a result; the times are those of the monotonic clock."""

    future: Future[Result]
    inputs: Tensors
    priority: float | None = None
    within_s: float | None = None
    submitted_s: float = field(default_factory=time.monotonic)
    sent_s: float | None = None
    """When it was last sent to its worker; None while that is away."""

    @property
    def left_s(self) -> float | None:
        """What is left of its time, in seconds; None without a limit."""
        return None if self.within_s is None else self.submitted_s + self.within_s - time.monotonic()


class SourceHandle:
    """Accepts the samples of one source; created by :meth:`LiveSession.source`."""

    def __init__(self, desk: Desk, name: str, limit: int) -> None:
        self._desk = desk
        self.name = name
        self.limit = limit
        self._slots = threading.BoundedSemaphore(limit)
        self._lock = threading.Lock()
        self._submitted = 0
        self._pending: dict[int, _InFlight] = {}
        self._away = False
        """Whether the source's worker is not in the run."""
        self._given_up = False
        """Whether the worker is no longer awaited."""
        self._last_end_s = time.monotonic()

    @property
    def inputs(self) -> Sequence[TensorSpec]:
        """Inputs of the source's model."""
        return self._desk.inputs(self.name)

    @property
    def outputs(self) -> Sequence[TensorSpec]:
        """Outputs of the source's model; of several models of the same task, those of the first."""
        return self._desk.outputs(self.name)

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
        self._desk.warm_up(self.name, fitting(self.inputs, inputs, self.name))

    def submit(
        self,
        inputs: Mapping[str, NDArray[Any]],
        *,
        block: bool = True,
        timeout_s: float | None = None,
        priority: float | None = None,
        within_s: float | None = None,
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

        Returns
        -------
        concurrent.futures.Future
            Future of a :class:`Result`, which raises :class:`SampleError` if the sample fails. Its callbacks must not
            wait for other samples.

        Raises
        ------
        ExecuteError
            If an input is missing or unknown, or has another dtype or shape, or no source has the priority, or the
            session is closed or has failed.
        BusyError
            If ``limit`` samples are still in flight.
        AbsentError
            If the source's worker has left, or has not connected yet, and is no longer awaited.
        """
        arrays = fitting(self.inputs, inputs, self.name)
        if priority is not None:
            self._desk.check_priority(self.name, priority)
        if not self._slots.acquire(blocking=block, timeout=timeout_s if block else None):
            raise BusyError("too many in-flight samples", where=self.name, expected=f"at most {self.limit}")
        future: Future[Result] = Future()
        future.set_running_or_notify_cancel()
        # Under the lock, so that samples are sent in the order of their numbers.
        with self._lock:
            sample, waiting = self._submitted, _InFlight(future, arrays, priority, within_s)
            try:
                self._desk.refuse_failed()
                if self._given_up:
                    home = self._desk.home(self.name)
                    raise AbsentError("the worker of the source is absent", where=self.name, value=home)
                self._send(sample, waiting)
            except BaseException:
                self._slots.release()
                raise
            self._submitted += 1
            self._pending[sample] = waiting
        return future

    def _send(self, sample: int, waiting: _InFlight) -> None:
        """Send a sample to its worker, unless that is away."""
        if not self._away:
            left_s = None if waiting.left_s is None else max(waiting.left_s, 0.0)
            self._desk.send(self.name, sample, waiting.inputs, priority=waiting.priority, within_s=left_s)
            waiting.sent_s = waiting.submitted_s if waiting.sent_s is None else time.monotonic()

    def home_left(self) -> None:
        """Keep samples until the source's worker is back."""
        with self._lock:
            self._away = True

    def home_joined(self) -> None:
        """Send the samples that wait for the source's worker, in order, those that it had before once more."""
        with self._lock:
            self._away = self._given_up = False
            self._last_end_s = time.monotonic()
            late = [
                sample
                for sample, waiting in self._pending.items()
                if waiting.left_s is not None and waiting.left_s <= 0
            ]
            for sample, waiting in self._pending.items():
                if sample not in late:
                    self._send(sample, waiting)
                    waiting.sent_s = time.monotonic()
        for sample in late:
            reason = f"its time was up before {self._desk.home(self.name)} was back"
            self.end(sample, SampleError(self.name, sample, reason, dropped=True))

    def give_up(self, reason: str) -> None:
        """Fail all samples, and accept none until the source's worker is back."""
        with self._lock:
            self._given_up = True
        self.fail_all(reason)

    def waited_s(self, sample: int) -> float:
        """Return the time from the submission of a sample until it was last sent, in seconds."""
        with self._lock:
            waiting = self._pending.get(sample)
        return waiting.sent_s - waiting.submitted_s if waiting is not None and waiting.sent_s is not None else 0.0

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

    def fail_all(self, reason: str) -> None:
        """Fail all in-flight samples."""
        with self._lock:
            samples = list(self._pending)
        for sample in samples:
            self.end(sample, SampleError(self.name, sample, reason))

    def fail_stalled(self) -> None:
        """Fail the samples in flight if none of the source has ended for :data:`STALLED_S`."""
        with self._lock:
            sent_s = [waiting.sent_s for waiting in self._pending.values() if waiting.sent_s is not None]
            stalled = bool(sent_s) and time.monotonic() - max(min(sent_s), self._last_end_s) > STALLED_S
        if stalled:
            self.fail_all(f"no end was reported within {STALLED_S:g} s")
