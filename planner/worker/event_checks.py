"""Which events fit the state of a worker: checked before a step, so that one that does not fit changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import Any, Final, NoReturn, get_args

from planner.policy.base import BasePolicy
from planner.policy.types import Policy, Task, View, Waiting
from planner.worker.events import (
    Arrived,
    BlockEnded,
    BlockFailed,
    Event,
    ForgetMessage,
    Joined,
    Left,
    Purpose,
    Received,
    Replanned,
    Reprioritised,
    RequestMessage,
    ResultMessage,
    SequenceEnded,
    StateMessage,
    StateRequest,
    StatusMessage,
    TaskMessage,
    TimedOut,
    Transferred,
)
from planner.worker.home import Home

_PURPOSES: Final = frozenset(get_args(Purpose))


class ProtocolError(Exception):
    """An event that cannot happen in this state: a fault of the driver, not of the user."""


class EventChecks:
    """Lets in the events that fit one worker's state; reads the state and changes nothing."""

    def __init__(self, view: View, home: Home, policy: Policy) -> None:
        instance = view.instance
        self._view = view
        self._home = home
        self._follows_stages = type(policy).place is BasePolicy.place
        # As sets and numbers, for each of the millions of events of a run is looked at.
        self._workers = frozenset(instance.scenario.workers)
        self._sources = frozenset(instance.scenario.sources)
        self._lengths = {model: instance.length(model) for model in instance.profiles}
        self._points = {model: len(instance.operating_points(model)) for model in instance.profiles}
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
            SequenceEnded: self._sequence_ended,
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
        if not (isfinite(event.priority or 0.0) and isfinite(event.within_s or 0.0)):
            raise ProtocolError(f"a sample of priority {event.priority}, to be done within {event.within_s} s")

    def _received(self, event: Received, _: Waiting | None) -> None:
        message = event.message
        if event.sender not in self._workers:
            self._refuse("worker", event.sender)
        if isinstance(message, StatusMessage):
            return
        source = message.source if isinstance(message, ForgetMessage) else message.key.source
        if source not in self._sources:
            self._refuse("source", source)
        if isinstance(message, ResultMessage):
            return
        if isinstance(message, (TaskMessage, RequestMessage)):  # a union takes several times as long
            self._task(message.task, message.last_block)
        elif isinstance(message, StateRequest):
            self._blocks(message.model, message.first_block, message.last_block)
            if not isfinite(message.priority):
                raise ProtocolError(f"a request for state of priority {message.priority}")
        elif isinstance(message, StateMessage):
            self._blocks(message.model, message.block, message.block)

    def _blocks(self, model: str, first: int, last: int) -> None:
        length = self._lengths.get(model)
        if length is None:
            self._refuse("model", model)
        elif not 0 <= first <= last < length:
            raise ProtocolError(f"no blocks {first} to {last} of {model}, which has {length}")

    def _task(self, task: Task, last_block: int | None) -> None:
        length = self._lengths.get(task.model)
        if length is None:
            self._refuse("model", task.model)
        elif not (0 <= task.next_block <= length and (last_block is None or task.next_block <= last_block < length)):
            raise ProtocolError(f"no blocks {task.next_block} to {last_block} of {task.model}, which has {length}")
        elif not 0 <= task.operating_point < self._points[task.model]:
            raise ProtocolError(f"no operating point {task.operating_point} of {task.model}")
        elif not (isfinite(task.created_s) and isfinite(task.priority)):
            raise ProtocolError(f"a task of priority {task.priority}, created at {task.created_s} s")
        elif not isfinite(task.latest_s or 0.0):
            raise ProtocolError(f"a task to be started by {task.latest_s} s")
        elif self._follows_stages and last_block is None and not task.stages:
            raise ProtocolError(f"a task without stages, from block {task.next_block} of {task.model} on")
        self._stages(task, length)

    def _stages(self, task: Task, length: int) -> None:
        next_block = task.next_block
        for stage in task.stages:
            if stage.worker not in self._workers:
                self._refuse("worker", stage.worker)
            if self._follows_stages and not next_block <= stage.last_block < length:
                raise ProtocolError(f"no stage from block {next_block} to {stage.last_block} of {task.model}")
            next_block = stage.last_block + 1
        self._decoding(task, length)
        for stage in (*task.again, *task.state_at):
            if stage.worker not in self._workers:
                self._refuse("worker", stage.worker)

    def _decoding(self, task: Task, length: int) -> None:
        """Check what says how a sequence goes on after a run."""
        decoding, again = task.decoding, task.again
        if again and (decoding is None or task.sequence is None or again[-1].last_block != length - 1):
            raise ProtocolError(f"a next run of {task.key} that is no step of a sequence")
        if decoding is not None and not (isfinite(decoding.temperature) and decoding.temperature >= 0):
            raise ProtocolError(f"tokens drawn at temperature {decoding.temperature}")

    def _block_ended(self, event: BlockEnded, running: Waiting | None) -> None:
        block, before_s = event.block, event.before_s
        if running is None or running.task.key != event.key:
            self._refuse_block(event)
        if before_s or block != running.session_end:  # most often the only session that was asked for has ended
            ends = running.session_ends
            if block not in ends:
                self._refuse_block(event)
            if len(before_s) != ends.index(block):
                raise ProtocolError(f"times of {len(before_s)} sessions before that which ends with {block}")
        if not isfinite(event.service_s) or (before_s and not all(map(isfinite, before_s))):
            raise ProtocolError(f"block {block} of {event.key} took {event.service_s} s, after {before_s}")

    def _block_failed(self, event: BlockFailed, running: Waiting | None) -> None:
        if running is None or running.task.key != event.key or not running.next_block <= event.block <= running.unasked:
            self._refuse_block(event)

    def _refuse_block(self, event: BlockEnded | BlockFailed) -> NoReturn:
        raise ProtocolError(f"{self._view.worker} is not running block {event.block} of {event.key}")

    def _timed_out(self, event: TimedOut, _: Waiting | None) -> None:
        purpose, key = event.timer
        if purpose not in _PURPOSES:
            raise ProtocolError(f"{self._view.worker} sets no timer for {purpose}")
        if key.source not in self._sources:
            self._refuse("source", key.source)
        if purpose in {"route", "result"} and not self._home.owns(key.source):
            raise ProtocolError(
                f"{self._view.worker} is not the home of {key.source}, and waits for no {purpose} of it"
            )

    def _transferred(self, event: Transferred, _: Waiting | None) -> None:
        if event.to not in self._workers:
            self._refuse("worker", event.to)
        if not (event.size_bytes > 0 and isfinite(event.took_s)):
            raise ProtocolError(f"a transfer to {event.to} of {event.size_bytes} bytes that took {event.took_s} s")

    def _other(self, event: Left | Joined, _: Waiting | None) -> None:
        if event.worker not in self._workers:
            self._refuse("worker", event.worker)

    def _replanned(self, event: Replanned, _: Waiting | None) -> None:
        for source, entry in event.plan.sources.items():
            if source not in self._sources:
                self._refuse("source", source)
            for route in entry.routes:
                if route.model not in self._lengths:
                    self._refuse("model", route.model)
                for stage in route.stages:
                    if stage.worker not in self._workers:
                        self._refuse("worker", stage.worker)

    def _sequence_ended(self, event: SequenceEnded, _: Waiting | None) -> None:
        if not self._home.owns(event.source):
            raise ProtocolError(f"{self._view.worker} is not the home of {event.source}, whose sequence ends")

    def _reprioritised(self, event: Reprioritised, _: Waiting | None) -> None:
        if event.source not in self._sources:
            self._refuse("source", event.source)
        if not isfinite(event.priority):
            raise ProtocolError(f"{event.source} is given priority {event.priority}")

    def _refuse(self, what: str, name: str) -> NoReturn:
        raise ProtocolError(f"no {what} {name}, of which {self._view.worker} is told")
