"""Which events fit the state of a worker: checked before a step, so that one that does not fit changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import Any

from planner.plan.types import Route
from planner.policy.types import Task, View, Waiting
from planner.worker.events import (
    Arrived,
    BlockEnded,
    BlockFailed,
    Event,
    Joined,
    Left,
    Received,
    Replanned,
    Reprioritised,
    RequestMessage,
    StatusMessage,
    TaskMessage,
    TimedOut,
    Transferred,
)
from planner.worker.home import Home


class ProtocolError(Exception):
    """An event that cannot happen in this state: a fault of the driver, not of the user."""


class EventChecks:
    """Lets in the events that fit one worker's state; reads the state and changes nothing."""

    def __init__(self, view: View, home: Home) -> None:
        self._view = view
        self._home = home
        self._checks: dict[type, Callable[[Any, Waiting | None], None]] = {
            Arrived: self._arrived,
            Received: self._received,
            BlockEnded: self._block_ended,
            BlockFailed: self._block_failed,
            TimedOut: self._timed_out,
            Transferred: self._transferred,
            Left: self._other,
            Joined: self._other,
            Replanned: self._replanned,
            Reprioritised: self._reprioritised,
        }

    def check(self, now_s: float, event: Event, running: Waiting | None) -> None:
        """Refuse an event that does not fit.

        Raises
        ------
        ProtocolError
            Says why.
        """
        if not now_s >= self._view.now_s:  # nor is a time that is no number
            raise ProtocolError(f"time runs backwards at {self._view.worker}: {now_s} s after {self._view.now_s} s")
        check = self._checks.get(type(event))
        if check is None:
            raise ProtocolError(f"not an event: {event!r}")
        check(event, running)

    def _arrived(self, event: Arrived, _: Waiting | None) -> None:
        if not self._home.owns(event.source):
            raise ProtocolError(f"a sample of {event.source} arrived at {self._view.worker}, which is not its home")
        if self._home.holds(event.source, event.sample):
            raise ProtocolError(f"sample {event.sample} of {event.source} arrived twice")

    def _received(self, event: Received, _: Waiting | None) -> None:
        self._worker(event.sender)
        message = event.message
        if isinstance(message, StatusMessage):
            return
        self._source(message.key.source)
        if isinstance(message, TaskMessage | RequestMessage):
            self._task(message.task, message.last_block)

    def _task(self, task: Task, last_block: int | None) -> None:
        instance = self._view.instance
        if task.model not in instance.profiles:
            raise ProtocolError(f"no model {task.model}, of which a task came to {self._view.worker}")
        length = self._view.costs.length(task.model)
        if not (0 <= task.next_block <= length and (last_block is None or task.next_block <= last_block < length)):
            raise ProtocolError(f"no blocks {task.next_block} to {last_block} of {task.model}, which has {length}")
        if not 0 <= task.operating_point < len(instance.operating_points(task.model)):
            raise ProtocolError(f"no operating point {task.operating_point} of {task.model}")
        for stage in task.stages:
            self._worker(stage.worker)

    def _block_ended(self, event: BlockEnded, running: Waiting | None) -> None:
        self._runs(event, running)
        if not isfinite(event.service_s):
            raise ProtocolError(f"block {event.block} of {event.key} took {event.service_s} s")

    def _block_failed(self, event: BlockFailed, running: Waiting | None) -> None:
        self._runs(event, running)

    def _runs(self, event: BlockEnded | BlockFailed, running: Waiting | None) -> None:
        if running is None or (running.task.key, running.next_block) != (event.key, event.block):
            raise ProtocolError(f"{self._view.worker} is not running block {event.block} of {event.key}")

    def _timed_out(self, event: TimedOut, _: Waiting | None) -> None:
        purpose, key = event.timer
        if purpose not in {"route", "result", "answers", "window", "reservation"}:
            raise ProtocolError(f"{self._view.worker} sets no timer for {purpose}")
        self._source(key.source)
        if purpose in {"route", "result"} and not self._home.owns(key.source):
            raise ProtocolError(
                f"{self._view.worker} is not the home of {key.source}, and waits for no {purpose} of it"
            )

    def _transferred(self, event: Transferred, _: Waiting | None) -> None:
        self._worker(event.to)
        if not (event.size_bytes > 0 and isfinite(event.took_s)):
            raise ProtocolError(f"a transfer to {event.to} of {event.size_bytes} bytes that took {event.took_s} s")

    def _other(self, event: Left | Joined, _: Waiting | None) -> None:
        self._worker(event.worker)

    def _replanned(self, event: Replanned, _: Waiting | None) -> None:
        for source, entry in event.plan.sources.items():
            self._source(source)
            for route in entry.routes:
                self._route(route)

    def _route(self, route: Route) -> None:
        if route.model not in self._view.instance.profiles:
            raise ProtocolError(f"no model {route.model}, of which a plan has a route")
        for stage in route.stages:
            self._worker(stage.worker)

    def _reprioritised(self, event: Reprioritised, _: Waiting | None) -> None:
        self._source(event.source)
        if not isfinite(event.priority):
            raise ProtocolError(f"{event.source} is given priority {event.priority}")

    def _source(self, source: str) -> None:
        if source not in self._view.instance.scenario.sources:
            raise ProtocolError(f"no source {source}, of which {self._view.worker} is told")

    def _worker(self, worker: str) -> None:
        if worker not in self._view.instance.scenario.workers:
            raise ProtocolError(f"no worker {worker}, of which {self._view.worker} is told")
