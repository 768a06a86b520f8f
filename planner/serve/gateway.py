"""Requests to sources and their results, whatever the protocol.

A source of the plan is a model of the service. A request is one sample of it; up to ``limit`` samples of a source are
in flight, and further requests are refused at once. All methods belong to the thread of the service's event loop,
except where they say otherwise.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol

from numpy.typing import NDArray

from planner.errors import PlannerError, explain
from planner.execution.session.source import AbsentError, BusyError, Result, SampleError, SourceHandle
from planner.model.chain import TensorSpec
from planner.scenario.instance import Instance
from planner.serve.refusals import Reason, RefusalError
from planner.serve.watch import Watch

_LOG = logging.getLogger(__name__)

VERSION: Final = "1"
"""The only version of every model: a plan that changes changes how a model is run, not what it computes."""

_US: Final = 1e-6


class Sources(Protocol):
    """A session, as far as requests are concerned."""

    def source(self, name: str) -> SourceHandle:
        """Return the handle of a source."""
        ...


@dataclass(frozen=True)
class InferenceRequest:
    """A request for one inference.

    Parameters
    ----------
    outputs
        Names of the outputs to return; None for all.
    priority
        0: as the plan says; 1: as the most important source, 2: as the next, and so on.
    timeout_us
        Time for the result, in microseconds; 0 without such a limit.
    received_s
        When it was received, by the monotonic clock.
    """

    model: str
    version: str
    id: str
    inputs: Mapping[str, NDArray[Any]]
    outputs: Sequence[str] | None = None
    priority: int = 0
    timeout_us: float = 0.0
    received_s: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class ServedModel:
    """A source as a model of the service."""

    handle: SourceHandle
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    known_outputs: frozenset[str]
    """All outputs that a request may name, exits included."""


class Gateway:
    """Takes requests and gives their results.

    Parameters
    ----------
    watch
        Counts the samples, and knows which workers are present.
    """

    def __init__(self, instance: Instance, session: Sources, watch: Watch) -> None:
        self.watch = watch
        self._session = session
        self.models: Mapping[str, ServedModel] = {}
        self._levels: Sequence[float] = ()
        self._home: Mapping[str, str] = {}
        self.follow(instance)
        watch.followers.append(self.follow)
        self.closing = False
        """Whether new requests are refused."""
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def follow(self, instance: Instance) -> None:
        """Serve the sources of another scenario, which the session has begun to follow; in any thread."""
        self._home = {name: instance.home(name) for name in instance.sources}
        self._levels = sorted({spec.priority for spec in instance.scenario.sources.values()}, reverse=True)
        self.models = {name: _served(instance, self._session, name) for name in instance.sources}

    @property
    def ready(self) -> bool:
        """Whether some model is ready."""
        return any(map(self.is_ready, self.models))

    def is_ready(self, name: str) -> bool:
        """Return whether a model takes requests: the worker of its source is present."""
        return not self.closing and self.watch.error is None and self.watch.present(self._home[name])

    def model(self, name: str, version: str = "") -> ServedModel:
        """Return a model.

        Raises
        ------
        RefusalError
            If there is no such model or version.
        """
        if name not in self.models:
            known = ", ".join(self.models)
            raise RefusalError(Reason.NOT_FOUND, f"no such model; found {name!r}; expected one of {known}")
        if version not in {"", VERSION}:
            message = f"no such version of {name}; found {version!r}; expected {VERSION!r}"
            raise RefusalError(Reason.NOT_FOUND, message)
        return self.models[name]

    async def idle(self) -> None:
        """Wait until no request is in flight."""
        await self._idle.wait()

    async def infer(self, request: InferenceRequest) -> Mapping[str, NDArray[Any]]:
        """Return the outputs of a request.

        Raises
        ------
        RefusalError
            If there is no result.
        """
        model = self._checked(request)
        with self.request():
            result = await self._result(model, request)
        return _wanted(request, result)

    @contextmanager
    def request(self) -> Iterator[None]:
        """Count a request that is in flight, whose end is awaited when the service ends."""
        self._in_flight += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._idle.set()

    def _checked(self, request: InferenceRequest) -> ServedModel:
        model = self.model(request.model, request.version)
        if self.closing or self.watch.error is not None:
            why = f": {explain(self.watch.error)}" if self.watch.error is not None else " is ending"
            raise RefusalError(Reason.UNAVAILABLE, f"the service takes no more requests{why}")
        unknown = [name for name in request.outputs or () if name not in model.known_outputs]
        if unknown:
            known = ", ".join(sorted(model.known_outputs))
            message = f"{request.model}: not an output of the model; found {unknown[0]!r}; expected one of {known}"
            raise RefusalError(Reason.INVALID, message)
        if request.priority < 0 or request.timeout_us < 0 or not math.isfinite(request.timeout_us):
            message = f"negative or infinite: priority {request.priority}, timeout {request.timeout_us}"
            raise RefusalError(Reason.INVALID, message)
        return model

    async def _result(self, model: ServedModel, request: InferenceRequest) -> Result:
        within_s = _time_left_s(request)
        future = self._submit(model.handle, request, within_s)
        await _ended(future, within_s)
        if not future.done():
            raise _late(request)
        try:
            return future.result()
        except SampleError as error:
            raise RefusalError(Reason.LATE if error.dropped else Reason.FAILED, str(error)) from error
        except PlannerError as error:
            raise RefusalError(Reason.UNAVAILABLE, str(error)) from error

    def _submit(self, handle: SourceHandle, request: InferenceRequest, within_s: float | None) -> Future[Result]:
        try:
            future = handle.submit(
                request.inputs, block=False, priority=self._priority(request.priority), within_s=within_s
            )
        except BusyError as error:
            retry_s = max(math.ceil(self.watch.mean_delay_s(handle.name) or 0.0), 1)
            raise RefusalError(Reason.BUSY, str(error), retry_s) from error
        except AbsentError as error:
            raise RefusalError(Reason.UNAVAILABLE, str(error)) from error
        except PlannerError as error:
            reason = Reason.INVALID if self.watch.error is None else Reason.UNAVAILABLE
            raise RefusalError(reason, str(error)) from error
        future.add_done_callback(partial(self.watch.on_done, handle.name))
        return future

    def _priority(self, level: int) -> float | None:
        return self._levels[min(level, len(self._levels)) - 1] if level else None


async def _ended(future: Future[Result], within_s: float | None) -> None:
    """Wait until a sample has ended, or its time is up; in fewer steps than by a future of :mod:`asyncio` for it."""
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not waiter.done():
            waiter.set_result(None)

    def tell(_ended: Future[Result]) -> None:
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(wake)

    future.add_done_callback(tell)
    timer = None if within_s is None else loop.call_later(within_s, wake)
    try:
        await waiter
    finally:
        if timer is not None:
            timer.cancel()


def _served(instance: Instance, session: Sources, name: str) -> ServedModel:
    handle = session.source(name)
    outputs = tuple(handle.outputs)
    exits = {
        point.name for model in instance.scenario.sources[name].models for point in instance.any_profile(model).exits
    }
    return ServedModel(handle, tuple(handle.inputs), outputs, frozenset({spec.name for spec in outputs} | exits))


def _time_left_s(request: InferenceRequest) -> float | None:
    if not request.timeout_us:
        return None
    left_s = request.received_s + request.timeout_us * _US - time.monotonic()
    if left_s <= 0:
        raise _late(request)
    return left_s


def _late(request: InferenceRequest) -> RefusalError:
    return RefusalError(Reason.LATE, f"{request.model}: no result within {request.timeout_us:g} microseconds")


def _wanted(request: InferenceRequest, result: Result) -> Mapping[str, NDArray[Any]]:
    """Return the requested outputs, as far as the sample has them: at an exit it leaves with that of the exit alone."""
    if request.outputs is None:
        return result.outputs
    wanted = {name: result.outputs[name] for name in request.outputs if name in result.outputs}
    if not wanted:
        found = ", ".join(result.outputs)
        message = f"{request.model}: the sample left the model with another output; name {found} as well, or none"
        raise RefusalError(Reason.FAILED, message)
    return wanted
