"""States of one real worker, named by what they hold, so that equal ones are explored once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Final, NamedTuple

from planner.plan.types import PlanSpec, Route
from planner.policy.costs import CostTable
from planner.policy.types import SampleKey, View, Waiting
from planner.scenario.instance import Instance
from planner.worker.event_checks import EventChecks
from planner.worker.events import Effect, Event, StepOutput
from planner.worker.worker import Worker

_SHARED: Final = (Instance, CostTable, PlanSpec, Route, View, EventChecks, StepOutput)
"""What never changes, or shows what is held elsewhere."""

_LEFT_OUT: Final = frozenset((
    *("_sequence", "starts", "changes", "_gossiped", "_heard", "status_numbers", "_known"),
    *("_last_s", "running_until_s"),
))  # fmt: skip
"""What only tells that something happened since the last step, and times that say nothing while time stands still."""


class Local(NamedTuple):
    """A state of a worker: how it came about, and what an observer sees.

    Parameters
    ----------
    history
        The worker's steps since it started.
    running
        Sample and block.
    kept
        What it would leave behind if nothing came any more; empty if nothing.
    """

    worker: str
    history: tuple[tuple[float, Event], ...]
    running: tuple[SampleKey, int] | None
    pending: tuple[SampleKey, ...]
    kept: str


class Locals:
    """All states of workers that were met.

    Parameters
    ----------
    make
        Creates a worker that has done nothing yet.
    """

    def __init__(self, make: Callable[[str], Worker]) -> None:
        self._make = make
        self._numbers: dict[tuple[str, str], int] = {}
        self._steps: dict[tuple[int, float, str], tuple[int, tuple[Effect, ...]]] = {}
        self.states: list[Local] = []

    def new(self, name: str) -> int:
        """Return the state of a worker that has done nothing yet."""
        return self._number(self._make(name), ())

    def step(self, number: int, at_s: float, event: Event) -> tuple[int, tuple[Effect, ...]]:
        """Return the state after an event at a time, or now if that has passed, and what the worker asks for."""
        local = self.states[number]
        now_s = max(at_s, local.history[-1][0] if local.history else 0.0)
        asked = number, now_s, repr(event)
        found = self._steps.get(asked)
        if found is None:
            worker = self._make(local.worker)
            for before_s, earlier in local.history:
                worker.step(before_s, earlier)
            effects = tuple(worker.step(now_s, event))
            found = self._number(worker, (*local.history, (now_s, event))), effects
            self._steps[asked] = found
        return found

    def _number(self, worker: Worker, history: tuple[tuple[float, Event], ...]) -> int:
        holds = worker.name, repr(_content(worker))
        number = self._numbers.get(holds)
        if number is None:
            number = self._numbers[holds] = len(self.states)
            running = worker._running
            kept: dict[str, object] = {
                "running": worker.running,
                "queued": worker.queued,
                "pending": tuple(worker.pending),
                "asking": tuple(worker._handshake._open),
                "requests": tuple(worker._handshake._requests),
                "reserved": worker._handshake._reserved,
                "backlog": tuple(worker._view.backlog_s),
            }
            self.states.append(
                Local(
                    worker.name,
                    history,
                    None if running is None else (running.task.key, running.next_block),
                    tuple(worker.pending),
                    ", ".join(f"{name} {value}" for name, value in kept.items() if value),
                )
            )
        return number


def _content(worker: Worker) -> Any:
    """Return what a worker holds as nested tuples; places in queues are counted from the first."""
    waiting = [entry for heap in worker._queues._heaps.values() for _, entry in heap]
    waiting += [worker._running] if worker._running is not None else []
    places = {entry.place: index for index, entry in enumerate(sorted(waiting, key=lambda entry: entry.place))}

    def flat(value: Any) -> Any:
        if value is None or isinstance(value, (str, int, float, Enum, *_SHARED)) or callable(value):
            return value if isinstance(value, (str, int, float, Enum)) else ""
        if isinstance(value, Waiting):
            fields = (value.next_block, value.last_block, value.since_s, value.place[0], places.get(value.place))
            return (flat(value.task), *fields)
        if isinstance(value, Mapping):
            return tuple(sorted(((repr(flat(key)), flat(entry)) for key, entry in value.items()), key=repr))
        if isinstance(value, (set, frozenset)):
            return tuple(sorted(map(repr, value)))
        if isinstance(value, (list, deque, tuple)):
            return tuple(map(flat, value))
        slots = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
        names = sorted({*getattr(value, "__dict__", {}), *slots} - _LEFT_OUT)
        return tuple((name, flat(getattr(value, name, None))) for name in names)

    heaps = {queue: sorted(heap) for queue, heap in worker._queues._heaps.items() if heap}
    own = {
        "heaps": {queue: [entry for _, entry in heap] for queue, heap in heaps.items()},
        "running": worker._running,
        "state": worker._state,
        "home": worker._home,
        "handshake": worker._handshake,
        "pace": worker._pace,
        "policy": worker._policy,
        "told": worker._told,
    }
    return flat(own)
