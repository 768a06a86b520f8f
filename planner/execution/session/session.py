"""A live run used by a program, which submits samples and receives futures of their results.

Each source has at most ``limit`` in-flight samples; if there are as many, :meth:`SourceHandle.submit` waits for one of
them to end, or raises :class:`BusyError`. So a slow worker slows the caller down, and memory is bounded. Futures are
those of :mod:`concurrent.futures`; ``await asyncio.wrap_future(future)`` waits for one in a coroutine.

Another plan can replace the one at hand (:meth:`LiveSession.apply`): a run of its own
(:mod:`planner.execution.session.live_run`) that takes the samples from then on, while those in flight end in the run
before.

A source keeps the inputs of its in-flight samples. While its worker is away, those and new ones wait here, within the
same limit; when it is back they are sent to it, again where they had been. If it is away for longer than the deployment
allows, they fail.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import wait
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from types import TracebackType
from typing import Final, TypeVar

from planner.errors import ExecuteError
from planner.execution.coordinator.coordinator import READY_TIMEOUT_S, Coordinator
from planner.execution.coordinator.deployment import Deployment
from planner.execution.coordinator.room import with_room
from planner.execution.coordinator.run_result import Observer
from planner.execution.session.live_run import LiveRun
from planner.execution.session.program_end import ProgramEnd
from planner.execution.session.source import SourceHandle
from planner.execution.wire.diagnostics import LinkSpeed

_LOG = logging.getLogger(__name__)

LIMIT: Final = 4
"""Default maximum number of in-flight samples of a source."""

_Self = TypeVar("_Self", bound="LiveSession")


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
    share
        The share of the agents that the coordinator holds; None for all.
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
        share: float | None = None,
        observer: Observer | None = None,
        ready_timeout_s: float = READY_TIMEOUT_S,
    ) -> None:
        check_limit(limit)
        self._agents = agents
        self._limit = limit
        self._share = share
        self._observer = observer or Observer()
        self._ready_timeout_s = ready_timeout_s
        self._handles: dict[str, SourceHandle] = {}
        self._runs: list[LiveRun] = []
        """The runs that are not over, the one that takes new samples last; replaced as a whole, under the lock."""
        self._lock = threading.Lock()
        self._changing = threading.Lock()
        """Held while a plan is applied."""
        self._error: Exception | None = None
        self._stack = ExitStack()
        self._program_end = ProgramEnd(self._leave_at_end)
        self._first = self._new_run(deployment)
        self._switch(self._first)

    def __enter__(self: _Self) -> _Self:
        self._program_end = ProgramEnd(self._leave_at_end)
        with ExitStack() as stack:
            coordinator = stack.enter_context(self._agents)
            stack.push(self._end_runs)
            self._start(self._runs[0], coordinator)
            self._stack = stack.pop_all()
        self._program_end.watch()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                wait([future for source in self._handles.values() for future in source.pending])
        except BaseException:
            self._close(*sys.exc_info())
            raise
        self._close(kind, error, trace)

    def _leave_at_end(self) -> None:
        """Leave a session that the program has not left."""
        _LOG.warning("a session was not left before the program ended; use it as a context manager")
        error = ExecuteError("the program ended", where="session", expected="`with` around the session's use")
        self._close(type(error), error, None)

    def _close(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._program_end.stop()
        self._error = self._error or ExecuteError("the session is closed", where="session")
        for run in self._runs:
            run.fail(self._error)
        self._stack.__exit__(kind, error, trace)

    def source(self, name: str) -> SourceHandle:
        """Return the handle of a source.

        Raises
        ------
        ExecuteError
            If the scenario has no such source.
        """
        if name not in self._handles:
            known = ", ".join(self._handles)
            raise ExecuteError("no such source", where="source", value=name, expected=f"one of {known}")
        return self._handles[name]

    @property
    def links(self) -> Mapping[tuple[str, str], LinkSpeed]:
        """Speed of the links from one worker to another, by the samples' own transfers."""
        return dict(self._runs[-1].links)

    def apply(self, deployment: Deployment) -> None:
        """Replace the plan: samples submitted from now on follow the new one, those in flight end on their old routes.

        The agents load the blocks that they need for it while the old plan goes on. Sources that the deployment lacks
        take no more samples. Returns once the new plan takes samples.

        Parameters
        ----------
        deployment
            A live deployment.

        Raises
        ------
        ExecuteError
            If a worker lacks the memory for the blocks of both plans, if an agent does not connect, leaves meanwhile or
            cannot load its blocks, or the session is not open; the old plan goes on.
        """
        with self._changing:
            old = self._runs[-1]
            old.refuse_failed()
            deployment = with_room([run.deployment for run in self._runs], deployment, self._share)
            coordinator = old.coordinator.another()
            try:
                away = {name for name in deployment.instance.workers if name in old.absent}
                deployment = replace(deployment, later=deployment.later | away)
                coordinator.find_agents([name for name in deployment.instance.workers if name not in deployment.later])
                run = self._new_run(deployment)
                self._start(run, coordinator)
            except BaseException:
                coordinator.close()
                raise
            self._switch(run)
            self._observer.on_applied(deployment.instance, deployment.plan)
            old.drain()
            if self._error is not None:  # the session has ended meanwhile
                run.fail(self._error)
                run.abandon()
            run.refuse_failed()

    def _new_run(self, deployment: Deployment) -> LiveRun:
        names = deployment.instance.sources
        return LiveRun(
            deployment,
            {name: self._handles.get(name) or SourceHandle(name, self._limit) for name in names},
            self._observer,
            ready_timeout_s=self._ready_timeout_s,
            first=not self._runs,
            on_over=self._on_over,
        )

    @staticmethod
    def _start(run: LiveRun, coordinator: Coordinator) -> None:
        """Return once a run is ready for samples."""
        run.start(coordinator)
        try:
            run.open.wait()
            run.refuse_failed()
        except BaseException:
            run.abandon()
            run.join()
            raise

    def _switch(self, run: LiveRun) -> None:
        """Let a run take the new samples."""
        with self._lock:
            self._runs = [*self._runs, run]
        self._handles = {**self._handles, **run.handles}
        for name, handle in self._handles.items():
            handle.move(run if name in run.handles else None)

    def _on_over(self, run: LiveRun) -> None:
        """Forget a run that is over, in its thread; the newest one still tells what has ended it."""
        for handle in run.handles.values():
            handle.forget(run)
        with self._lock:
            if self._runs[-1] is not run:
                self._runs = [each for each in self._runs if each is not run]
        if run is not self._first:  # whose coordinator belongs to the caller
            run.coordinator.close()

    def _end_runs(self, kind: type[BaseException] | None, *_: object) -> None:
        """End the runs: in order, or at once after an exception or an interruption."""
        runs = self._runs
        for run in runs:
            if kind is None:
                run.stop()
            else:
                run.abandon()
        try:
            for run in runs:
                run.join()
        except BaseException:
            for run in runs:
                run.abandon()
            for run in runs:
                run.join()
            raise
