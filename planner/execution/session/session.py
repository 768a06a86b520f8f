"""A live run used by a program, which submits samples and receives futures of their results.

Each source has at most ``limit`` in-flight samples; if there are as many, :meth:`SourceHandle.submit` waits for one of
them to end, or raises :class:`BusyError`. So a slow worker slows the caller down, and memory is bounded. Futures are
those of :mod:`concurrent.futures`; ``await asyncio.wrap_future(future)`` waits for one in a coroutine.

A source keeps the inputs of its in-flight samples. While its worker is away, those and new ones wait here, within the
same limit; when it is back they are sent to it, again where they had been. If it is away for longer than the deployment
allows, they fail.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from concurrent.futures import wait
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Final, TypeVar

from planner.errors import ExecuteError, PlannerError, explain
from planner.execution.coordinator.coordinator import READY_TIMEOUT_S, Coordinator
from planner.execution.coordinator.deployment import Deployment
from planner.execution.coordinator.run_result import Observer, SendSample
from planner.execution.session.source import Result, SampleError, SourceHandle
from planner.execution.wire.frames import Tensors
from planner.execution.wire.messages import Load
from planner.execution.wire.threads import start_thread
from planner.model.chain import TensorSpec
from planner.plan.types import PlanSpec
from planner.trace.records import Incident, SampleRecord

LIMIT: Final = 4
"""Default maximum number of in-flight samples of a source."""

_Self = TypeVar("_Self", bound="LiveSession")


class _Desk(Observer):
    """Sends submitted samples to the run, and completes their futures in the coordinator's thread."""

    def __init__(self, deployment: Deployment, limit: int, also: Observer) -> None:
        self._deployment = deployment
        self._also = also
        self._submit: SendSample | None = None
        self._error: Exception | None = None
        self.open = threading.Event()
        """Set once samples may be submitted, or the run has failed."""
        self.sources = {name: SourceHandle(self, name, limit) for name in deployment.instance.sources}

    def inputs(self, source: str) -> Sequence[TensorSpec]:
        return self._cuts(source)[0]

    def outputs(self, source: str) -> Sequence[TensorSpec]:
        return self._cuts(source)[-1]

    def _cuts(self, source: str) -> Sequence[Sequence[TensorSpec]]:
        model = self._deployment.instance.scenario.sources[source].models[0]
        return self._deployment.models[model].cuts

    def check_priority(self, source: str, priority: float) -> None:
        known = {spec.priority for spec in self._deployment.instance.scenario.sources.values()}
        if priority not in known:
            expected = f"one of {', '.join(f'{own:g}' for own in sorted(known))}"
            raise ExecuteError("no source has this priority", where=source, value=priority, expected=expected)

    def warm_up(self, source: str, inputs: Tensors) -> None:
        self._deployment.warm_up.first[source] = inputs

    def home(self, source: str) -> str:
        return self._deployment.instance.home(source)

    def _at(self, worker: str) -> list[SourceHandle]:
        """Return the sources of a worker."""
        return [source for name, source in self.sources.items() if self.home(name) == worker]

    def send(
        self, source: str, sample: int, inputs: Tensors, *, priority: float | None = None, within_s: float | None = None
    ) -> None:
        if self._submit is None:
            raise ExecuteError("the session is not open", where="session", expected="`with` around its use")
        self._submit(source, sample, inputs, priority=priority, within_s=within_s)

    def refuse_failed(self) -> None:
        """Raise the error that has ended the session, as a new exception for each caller."""
        if isinstance(self._error, PlannerError):
            raise type(self._error)(self._error.faults) from self._error
        if self._error is not None:
            raise ExecuteError(f"the session failed: {explain(self._error)}", where="session") from self._error

    def close(self, error: Exception) -> None:
        """Accept no more samples, and fail those in flight."""
        self._error = self._error or error
        self.open.set()
        for source in self.sources.values():
            source.fail_all(explain(error))
        self._also.on_closed(self._error)

    def on_started(self, submit: SendSample) -> None:
        self._submit = submit
        self.open.set()
        self._also.on_started(submit)

    def on_ended(self, sample: SampleRecord, outputs: Tensors) -> None:
        source, number = sample.source, sample.sample
        handle = self.sources[source]
        sample = replace(sample, created_s=sample.created_s - handle.waited_s(number))
        if sample.status == "completed":
            first = handle.end(number, Result(source, number, outputs, sample.delay_s))
        else:
            dropped = sample.status == "dropped"
            first = handle.end(number, SampleError(source, number, sample.reason, dropped=dropped))
        if first:  # it may have ended twice if it was sent again
            self._also.on_ended(sample, outputs)

    def on_load(self, load: Load) -> None:
        for source in self._at(load.worker):
            source.fail_stalled()
        self._also.on_load(load)

    def on_left(self, worker: str) -> None:
        for source in self._at(worker):
            source.home_left()
        self._also.on_left(worker)

    def on_joined(self, worker: str) -> None:
        for source in self._at(worker):
            source.home_joined()
        self._also.on_joined(worker)

    def on_given_up(self, worker: str) -> None:
        for source in self._at(worker):
            source.give_up(f"{worker} left, and did not come back within {self._deployment.home_timeout_s:g} s")
        self._also.on_given_up(worker)

    def on_incident(self, incident: Incident) -> None:
        self._also.on_incident(incident)

    def on_replanned(self, plan: PlanSpec) -> None:
        self._also.on_replanned(plan)


def _end(coordinator: Coordinator, kind: type[BaseException] | None, *_: object) -> None:
    """End the run: in order, or at once after an exception."""
    if kind is None:
        coordinator.stop()
    else:
        coordinator.abandon()


def _join(thread: threading.Thread, coordinator: Coordinator) -> None:
    """Wait for the end of the run; an interruption ends it at once."""
    try:
        thread.join()
    except BaseException:
        coordinator.abandon()
        thread.join()
        raise


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

    On exit it waits for the in-flight samples and the agents' reports; after an exception it fails them instead, and
    waits for nothing.

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
            stack.callback(_join, thread, coordinator)
            stack.push(partial(_end, coordinator))
            self._desk.open.wait()
            self._desk.refuse_failed()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                wait([future for source in self._desk.sources.values() for future in source.pending])
        except BaseException:
            self._close(*sys.exc_info())
            raise
        self._close(kind, error, trace)

    def _close(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._desk.close(ExecuteError("the session is closed", where="session"))
        self._stack.__exit__(kind, error, trace)

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
