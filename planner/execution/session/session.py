"""A live run used by a program, which submits samples and receives futures of their results.

Each source has at most ``limit`` in-flight samples; if there are as many, :meth:`SourceHandle.submit` waits for one of
them to end, or raises :class:`BusyError`. So a slow worker slows the caller down, and memory is bounded. Futures are
those of :mod:`concurrent.futures`; ``await asyncio.wrap_future(future)`` waits for one in a coroutine.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

from numpy.typing import NDArray

from planner.errors import ExecuteError, PlannerError, explain
from planner.execution.coordinator.coordinator import READY_TIMEOUT_S, Coordinator
from planner.execution.coordinator.deployment import Deployment
from planner.execution.coordinator.run_result import Observer
from planner.execution.session.samples import fitting
from planner.execution.wire.frames import Tensors
from planner.execution.wire.messages import Load
from planner.execution.wire.threads import start_thread
from planner.model.chain import TensorSpec
from planner.trace.records import Incident, SampleRecord

LIMIT: Final = 4
"""Default maximum number of in-flight samples of a source."""

_Self = TypeVar("_Self", bound="LiveSession")


class BusyError(ExecuteError):
    """The maximum number of samples of a source is in flight."""


class AbsentError(ExecuteError):
    """The worker of a source is not in the run."""


class SampleError(ExecuteError):
    """A sample failed; the message names it and the reason."""

    def __init__(self, source: str, sample: int, reason: str) -> None:
        super().__init__(f"the sample failed: {reason}", where=f"{source}, sample {sample}")
        self.source, self.sample, self.reason = source, sample, reason


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
        Time from the sample's arrival at the source's worker to the arrival of its result there, in seconds.
    """

    source: str
    sample: int
    outputs: Mapping[str, NDArray[Any]]
    delay_s: float


class SourceHandle:
    """Accepts the samples of one source; created by :meth:`LiveSession.source`."""

    def __init__(self, desk: _Desk, name: str, limit: int) -> None:
        self._desk = desk
        self.name = name
        self.limit = limit
        self._slots = threading.BoundedSemaphore(limit)
        self._lock = threading.Lock()
        self._submitted = 0
        self._pending: dict[int, Future[Result]] = {}

    @property
    def inputs(self) -> Sequence[TensorSpec]:
        """Inputs of the source's model."""
        return self._desk.inputs(self.name)

    @property
    def pending(self) -> list[Future[Result]]:
        """Futures of the in-flight samples."""
        with self._lock:
            return list(self._pending.values())

    def warm_up(self, inputs: Mapping[str, NDArray[Any]]) -> None:
        """Let the agents warm up with a sample instead of a drawn input; only before the session is entered.

        Raises
        ------
        ExecuteError
            If an input is missing or unknown, or has another dtype or shape.
        """
        self._desk.warm_up(self.name, fitting(self.inputs, inputs, self.name))

    def submit(
        self, inputs: Mapping[str, NDArray[Any]], *, block: bool = True, timeout_s: float | None = None
    ) -> Future[Result]:
        """Submit a sample.

        Parameters
        ----------
        inputs
            The model's inputs by name; the leading axis of length 1 may be missing. They must not be modified later.
        block, timeout_s
            Whether to wait, and how long, while ``limit`` samples are in flight, and for the source's worker if it may
            connect later.

        Returns
        -------
        concurrent.futures.Future
            Future of a :class:`Result`, which raises :class:`SampleError` if the sample fails. Its callbacks must not
            wait for other samples.

        Raises
        ------
        ExecuteError
            If an input is missing or unknown, or has another dtype or shape, or the session is closed or has failed.
        BusyError
            If ``limit`` samples are still in flight.
        AbsentError
            If the source's worker has left, or has not connected yet.
        """
        arrays = fitting(self.inputs, inputs, self.name)
        self._desk.await_home(self.name, timeout_s if block else 0.0)
        if not self._slots.acquire(blocking=block, timeout=timeout_s if block else None):
            raise BusyError("too many in-flight samples", where=self.name, expected=f"at most {self.limit}")
        future: Future[Result] = Future()
        future.set_running_or_notify_cancel()
        # Under the lock, so that samples are sent in the order of their numbers.
        with self._lock:
            sample = self._submitted
            try:
                self._desk.send(self.name, sample, arrays)
            except BaseException:
                self._slots.release()
                raise
            self._submitted += 1
            self._pending[sample] = future
        return future

    def end(self, sample: int, outcome: Result | SampleError) -> None:
        """Complete the future of a sample."""
        with self._lock:
            future = self._pending.pop(sample, None)
        if future is None:
            return
        self._slots.release()
        if isinstance(outcome, Result):
            future.set_result(outcome)
        else:
            future.set_exception(outcome)

    def fail_all(self, reason: str) -> None:
        """Fail all in-flight samples."""
        with self._lock:
            samples = list(self._pending)
        for sample in samples:
            self.end(sample, SampleError(self.name, sample, reason))


class _Desk(Observer):
    """Sends submitted samples to the run, and completes their futures in the coordinator's thread."""

    def __init__(self, deployment: Deployment, limit: int, also: Observer) -> None:
        self._deployment = deployment
        self._also = also
        self._changed = threading.Condition()
        self._submit: Callable[[str, int, Tensors], None] | None = None
        self._error: Exception | None = None
        self._absent: set[str] = set()
        self.open = threading.Event()
        """Set once samples may be submitted, or the run has failed."""
        self.sources = {name: SourceHandle(self, name, limit) for name in deployment.instance.sources}

    def inputs(self, source: str) -> Sequence[TensorSpec]:
        model = self._deployment.instance.scenario.sources[source].models[0]
        return self._deployment.models[model].cuts[0]

    def warm_up(self, source: str, inputs: Tensors) -> None:
        self._deployment.warm_up.first[source] = inputs

    def await_home(self, source: str, timeout_s: float | None) -> None:
        """Wait for the worker of a source if it is absent and may connect later."""
        home = self._deployment.instance.home(source)
        if home in self._deployment.later:
            with self._changed:
                self._changed.wait_for(lambda: self._error is not None or home not in self._absent, timeout_s)

    def send(self, source: str, sample: int, inputs: Tensors) -> None:
        self.refuse_failed()
        home = self._deployment.instance.home(source)
        if home in self._absent or self._submit is None:
            raise AbsentError("the worker of the source is absent", where=source, value=home)
        self._submit(source, sample, inputs)

    def refuse_failed(self) -> None:
        """Raise the error that has ended the session, as a new exception for each caller."""
        if isinstance(self._error, PlannerError):
            raise ExecuteError(self._error.faults) from self._error
        if self._error is not None:
            raise ExecuteError(f"the session failed: {explain(self._error)}", where="session") from self._error

    def close(self, error: Exception) -> None:
        """Accept no more samples, and fail those in flight."""
        with self._changed:
            self._error = self._error or error
            self._changed.notify_all()
        self.open.set()
        for source in self.sources.values():
            source.fail_all(explain(error))

    def on_started(self, submit: Callable[[str, int, Tensors], None]) -> None:
        self._submit = submit
        self.open.set()
        self._also.on_started(submit)

    def on_ended(self, sample: SampleRecord, outputs: Tensors) -> None:
        source, number = sample.source, sample.sample
        if sample.status == "completed":
            self.sources[source].end(number, Result(source, number, outputs, sample.delay_s))
        else:
            self.sources[source].end(number, SampleError(source, number, sample.reason))
        self._also.on_ended(sample, outputs)

    def on_load(self, load: Load) -> None:
        self._also.on_load(load)

    def on_left(self, worker: str) -> None:
        self._absent.add(worker)
        for name, source in self.sources.items():
            if self._deployment.instance.home(name) == worker:
                source.fail_all(f"{worker} left")
        self._also.on_left(worker)

    def on_joined(self, worker: str) -> None:
        with self._changed:
            self._absent.discard(worker)
            self._changed.notify_all()
        self._also.on_joined(worker)

    def on_incident(self, incident: Incident) -> None:
        self._also.on_incident(incident)


def check_limit(limit: int) -> None:
    """Check a maximum number of in-flight samples.

    Raises
    ------
    ExecuteError
        If it is less than 1.
    """
    if limit < 1:
        raise ExecuteError("too few in-flight samples", where="limit", value=limit, expected="1 or more")


class LiveSession(AbstractContextManager["LiveSession"]):
    """A live run that accepts samples; use it as a context manager.

    On exit it waits for the in-flight samples; after an exception it fails them instead.

    Parameters
    ----------
    deployment
        A live deployment.
    agents
        Context manager that returns a coordinator which has found all agents.
    limit
        Maximum number of in-flight samples of a source.
    observer
        Informed of events, in addition to the futures.
    ready_timeout_s
        Maximum time in seconds for all agents to load their blocks.

    Raises
    ------
    PlannerError
        On entry, if an agent does not connect or does not become ready.
    """

    def __init__(
        self,
        deployment: Deployment,
        agents: AbstractContextManager[Coordinator],
        *,
        limit: int = LIMIT,
        observer: Observer | None = None,
        ready_timeout_s: float = READY_TIMEOUT_S,
    ) -> None:
        check_limit(limit)
        self._deployment = deployment
        self._agents = agents
        self._ready_timeout_s = ready_timeout_s
        self._desk = _Desk(deployment, limit, observer or Observer())
        self._stack = ExitStack()

    def __enter__(self: _Self) -> _Self:
        with ExitStack() as stack:
            coordinator = stack.enter_context(self._agents)
            thread = start_thread("session", partial(self._run, coordinator), self._desk.close)
            stack.callback(thread.join)
            stack.callback(coordinator.stop)
            self._desk.open.wait()
            self._desk.refuse_failed()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            wait([future for source in self._desk.sources.values() for future in source.pending])
        self._desk.close(ExecuteError("the session is closed", where="session"))
        self._stack.close()

    def source(self, name: str) -> SourceHandle:
        """Return the handle of a source.

        Raises
        ------
        ExecuteError
            If the scenario has no such source.
        """
        if name not in self._desk.sources:
            known = ", ".join(self._desk.sources)
            raise ExecuteError("no such source", where="source", value=name, expected=f"one of {known}")
        return self._desk.sources[name]

    def _run(self, coordinator: Coordinator) -> None:
        try:
            coordinator.run(self._deployment, ready_timeout_s=self._ready_timeout_s, observer=self._desk)
        except PlannerError as error:  # raised in the threads that submit samples: nothing to log
            self._desk.close(error)
        else:
            self._desk.close(ExecuteError("the run has ended", where="session"))
