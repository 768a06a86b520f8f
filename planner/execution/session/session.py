"""A live run for a program: samples in, futures of their results out.

A source has at most ``limit`` samples in flight: then :meth:`SourceHandle.submit` waits until one of them has ended,
or raises :class:`BusyError`. So a slow worker slows the caller down, and memory stays bounded. A future belongs to
:mod:`concurrent.futures`; ``await asyncio.wrap_future(future)`` waits for it in a coroutine.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from numpy.typing import NDArray

from planner.errors import ExecuteError
from planner.execution.coordinator.coordinator import READY_TIMEOUT_S, Coordinator
from planner.execution.coordinator.deployment import Deployment
from planner.execution.coordinator.run_result import Observer
from planner.execution.session.samples import fitting
from planner.execution.wire.frames import Tensors
from planner.execution.wire.messages import Load
from planner.model.chain import TensorSpec
from planner.trace.records import SampleRecord

LIMIT: Final = 4
"""How many samples of a source are on their way at most, unless one says otherwise."""

_Self = TypeVar("_Self", bound="LiveSession")


class BusyError(ExecuteError):
    """As many samples of a source are on their way as may be."""


class AbsentError(ExecuteError):
    """The worker of a source is not in the run."""


class SampleError(ExecuteError):
    """A sample has no result; the message names it and says why."""

    def __init__(self, source: str, sample: int, reason: str) -> None:
        super().__init__(f"the sample failed: {reason}", where=f"{source}, sample {sample}")
        self.source, self.sample, self.reason = source, sample, reason


@dataclass(frozen=True)
class Result:
    """What became of a sample.

    Parameters
    ----------
    sample
        Its number: the source's samples are counted from 0.
    outputs
        The model's outputs by name.
    delay_s
        From its arrival at the source's worker until its result was back there, in seconds of that worker's clock.
    """

    source: str
    sample: int
    outputs: Mapping[str, NDArray[Any]]
    delay_s: float


class SourceHandle:
    """Takes the samples of one source; made by :meth:`LiveSession.source`."""

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
        """What the source's model takes."""
        return self._desk.inputs(self.name)

    @property
    def pending(self) -> list[Future[Result]]:
        """The futures of the samples on their way."""
        with self._lock:
            return list(self._pending.values())

    def submit(
        self, inputs: Mapping[str, NDArray[Any]], *, block: bool = True, timeout_s: float | None = None
    ) -> Future[Result]:
        """Hand in a sample.

        Parameters
        ----------
        inputs
            The model's inputs by name; the leading axis of length 1 may be missing. They must not change any more.
        block, timeout_s
            Whether to wait, and how long, while ``limit`` samples are on their way, and for the source's worker if it
            may come later.

        Returns
        -------
        concurrent.futures.Future
            Of a :class:`Result`; raises :class:`SampleError` where there is none. What is called when it is done must
            not wait for other samples.

        Raises
        ------
        ExecuteError
            An input is missing or unknown, or has another dtype or shape; or the session is closed or has failed.
        BusyError
            ``limit`` samples are still on their way.
        AbsentError
            The source's worker is gone, or has not come yet.
        """
        arrays = fitting(self.inputs, inputs, self.name)
        self._desk.await_home(self.name, timeout_s if block else 0.0)
        if not self._slots.acquire(blocking=block, timeout=timeout_s if block else None):
            raise BusyError("too many samples on their way", where=self.name, expected=f"at most {self.limit}")
        future: Future[Result] = Future()
        future.set_running_or_notify_cancel()
        # Under the lock, so that samples go in the order of their numbers.
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
        """Settle the future of a sample."""
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
        """Settle the futures of all samples on their way."""
        with self._lock:
            samples = list(self._pending)
        for sample in samples:
            self.end(sample, SampleError(self.name, sample, reason))


class _Desk(Observer):
    """Where samples are handed in, and what ended is handed out by the coordinator's thread."""

    def __init__(self, deployment: Deployment, limit: int, also: Observer) -> None:
        self._deployment = deployment
        self._also = also
        self._changed = threading.Condition()
        self._submit: Callable[[str, int, Tensors], None] | None = None
        self._error: Exception | None = None
        self._gone: set[str] = set()
        self.open = threading.Event()
        """Set once samples may come, or never will."""
        self.sources = {name: SourceHandle(self, name, limit) for name in deployment.instance.sources}

    def inputs(self, source: str) -> Sequence[TensorSpec]:
        model = self._deployment.instance.scenario.sources[source].models[0]
        return self._deployment.models[model].cuts[0]

    def await_home(self, source: str, timeout_s: float | None) -> None:
        """Wait while the worker of a source is not there and may come later."""
        home = self._deployment.instance.home(source)
        if home in self._deployment.later:
            with self._changed:
                self._changed.wait_for(lambda: self._error is not None or home not in self._gone, timeout_s)

    def send(self, source: str, sample: int, inputs: Tensors) -> None:
        self.refuse_failed()
        home = self._deployment.instance.home(source)
        if home in self._gone or self._submit is None:
            raise AbsentError("the worker of the source is gone", where=source, value=home)
        self._submit(source, sample, inputs)

    def refuse_failed(self) -> None:
        if self._error is not None:
            raise self._error

    def close(self, error: Exception) -> None:
        """Take no more samples, and fail those on their way."""
        with self._changed:
            self._error = self._error or error
            self._changed.notify_all()
        self.open.set()
        for source in self.sources.values():
            source.fail_all(str(error))

    def started(self, submit: Callable[[str, int, Tensors], None]) -> None:
        self._submit = submit
        self.open.set()
        self._also.started(submit)

    def ended(self, sample: SampleRecord, outputs: Tensors) -> None:
        source, number = sample.source, sample.sample
        if sample.status == "completed":
            self.sources[source].end(number, Result(source, number, outputs, sample.delay_s))
        else:
            self.sources[source].end(number, SampleError(source, number, sample.reason))
        self._also.ended(sample, outputs)

    def told(self, load: Load) -> None:
        self._also.told(load)

    def left(self, worker: str) -> None:
        self._gone.add(worker)
        for name, source in self.sources.items():
            if self._deployment.instance.home(name) == worker:
                source.fail_all(f"{worker} left")
        self._also.left(worker)

    def joined(self, worker: str) -> None:
        with self._changed:
            self._gone.discard(worker)
            self._changed.notify_all()
        self._also.joined(worker)


def check_limit(limit: int) -> None:
    """Check a maximum number of samples in flight.

    Raises
    ------
    ExecuteError
        If it is less than 1.
    """
    if limit < 1:
        raise ExecuteError("too few samples on their way", where="limit", value=limit, expected="1 or more")


class LiveSession(AbstractContextManager["LiveSession"]):
    """A live run that takes samples, as a context manager.

    Leaving it waits for the samples on their way; after an exception it does not, and they fail.

    Parameters
    ----------
    deployment
        What is run; a live one.
    agents
        Brings up a coordinator that has found all agents, and lets them go.
    limit
        How many samples of a source may be on their way at once.
    observer
        Is told what goes on, beside the futures.
    ready_timeout_s
        Time within which all agents must have loaded their blocks, in seconds.

    Raises
    ------
    PlannerError
        On entering: an agent did not come, or could not make ready.
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
            thread = threading.Thread(target=self._run, args=(coordinator,), name="session", daemon=True)
            thread.start()
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
        """Give what takes the samples of a source.

        Raises
        ------
        ExecuteError
            The scenario has no such source.
        """
        if name not in self._desk.sources:
            known = ", ".join(self._desk.sources)
            raise ExecuteError("no such source", where="source", value=name, expected=f"one of {known}")
        return self._desk.sources[name]

    def _run(self, coordinator: Coordinator) -> None:
        error: Exception = ExecuteError("the run has ended", where="session")
        try:
            coordinator.run(self._deployment, ready_timeout_s=self._ready_timeout_s, observer=self._desk)
        except Exception as caught:  # noqa: BLE001 - whatever it is, who waits for a result must learn it
            error = caught
        self._desk.close(error)
