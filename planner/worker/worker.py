"""The worker: a state machine without clock or I/O, driven in virtual time by the simulator and in real time by agents.

The rules, in the order in which :meth:`Worker.step` applies them:

1.  A worker runs one block at a time. It is idle, or it waits for the :class:`BlockEnded` of the block it asked for.
2.  A sample that arrives is kept by its source until its result is back. Its policy names the route; the task is then
    placed (rule 4). A timer is set; when it goes off first, the sample starts again as a new attempt. After
    ``max_attempts`` it is given up. Every sample ends once: as :class:`Complete` or as :class:`Fail`.
3.  The result of *any* attempt completes its sample; a block that could not be run gives it up. What comes for a
    sample that has ended is a duplicate, and is dropped.
4.  A task is placed by the policy: computed here, then it waits in a queue of the policy's naming; or sent on, then
    this worker forgets it.
5.  An idle worker serves the queue its policy chooses, and runs the first task's next block.
6.  When a block ends and its task has blocks left here, the task goes on at once, unless the policy looks between
    blocks: then it stands first in its queue, and rule 5 applies.
7.  When a task ends, the result goes home if no block is left; else the rest is placed (rule 4).
8.  When a worker leaves, every sample that was on a route through it starts again as a new attempt.

An event that does not fit the state raises :class:`ProtocolError` and changes nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from planner.policy.types import Compute, Policy, SampleKey, Task, View
from planner.scenario.instance import Instance
from planner.worker.events import (
    Arrived,
    BlockEnded,
    BlockFailed,
    Complete,
    Discard,
    Effect,
    Event,
    Fail,
    FailureMessage,
    Joined,
    Left,
    Received,
    ResultMessage,
    RunBlock,
    Send,
    SetTimer,
    TaskMessage,
    TimedOut,
)


class ProtocolError(Exception):
    """An event that cannot happen in this state: a fault of the driver, not of the user."""


@dataclass(frozen=True)
class Patience:
    """How long a source waits for a result before it tries again, and how often it tries."""

    first_s: float = 30.0
    """Wait for the first attempt; each further one waits twice as long."""
    max_attempts: int = 4

    def wait_s(self, attempt: int) -> float:
        """Give the wait for attempt 0, 1, … in seconds."""
        return self.first_s * 2.0**attempt


@dataclass(slots=True)
class _Pending:
    """A sample of this worker's own sources whose result is not back yet."""

    created_s: float
    attempt: int = 0
    via: frozenset[str] = field(default_factory=frozenset)


class _Waiting(NamedTuple):
    """A task to be computed here, up to and including ``last_block``."""

    task: Task
    last_block: int
    begun: bool = False


class Worker:
    """One worker's state.

    Parameters
    ----------
    name
        This worker, as the instance's scenario names it.
    policy
        Makes the decisions; belongs to this worker alone.
    """

    def __init__(self, name: str, instance: Instance, policy: Policy, patience: Patience | None = None) -> None:
        self._policy = policy
        self._patience = patience or Patience()
        self._view = View(worker=name, instance=instance)
        self._queues: dict[Hashable, deque[_Waiting]] = {}
        self._running: _Waiting | None = None
        self._pending: dict[tuple[str, int], _Pending] = {}
        self._effects: list[Effect] = []
        self._handlers: dict[type, Callable[[Any], None]] = {
            Arrived: self._on_arrived,
            Received: self._on_received,
            BlockEnded: self._on_block_ended,
            BlockFailed: self._on_block_failed,
            TimedOut: self._on_timed_out,
            Left: self._on_left,
            Joined: self._on_joined,
        }

    @property
    def name(self) -> str:
        """The worker's name in the scenario."""
        return self._view.worker

    @property
    def queued(self) -> int:
        """Number of tasks that wait here, the one that runs not counted."""
        return sum(len(queue) for queue in self._queues.values())

    def step(self, now_s: float, event: Event) -> list[Effect]:
        """Take one event and give what the driver is to do, in order.

        Raises
        ------
        ProtocolError
            The event does not fit the state, which is left as it was.
        """
        if now_s < self._view.now_s:
            raise ProtocolError(f"time runs backwards at {self.name}: {now_s} s after {self._view.now_s} s")
        self._view.now_s = now_s
        self._effects = []
        self._handlers[type(event)](event)
        return self._effects

    # ---- a source's samples (rules 2, 3, 8) -----------------------------------------------------------------------

    def _on_arrived(self, event: Arrived) -> None:
        identity = (event.source, event.sample)
        if identity in self._pending:
            raise ProtocolError(f"sample {event.sample} of {event.source} arrived twice")
        if self._view.instance.home(event.source) != self.name:
            raise ProtocolError(f"a sample of {event.source} arrived at {self.name}, which is not its home")
        self._pending[identity] = _Pending(created_s=self._view.now_s)
        self._start(identity)
        self._serve()

    def _start(self, identity: tuple[str, int]) -> None:
        pending = self._pending[identity]
        source, sample = identity
        route = self._policy.route(self._view, source)
        pending.via = frozenset(stage.worker for stage in route.stages) - {self.name}
        task = Task(
            key=SampleKey(source, sample, pending.attempt),
            model=route.model,
            operating_point=route.operating_point,
            priority=self._view.instance.scenario.sources[source].priority,
            next_block=0,
            stages=route.stages,
        )
        self._effects.append(SetTimer(task.key, self._view.now_s + self._patience.wait_s(pending.attempt)))
        self._place(task)

    def _retry(self, identity: tuple[str, int]) -> None:
        pending = self._pending[identity]
        pending.attempt += 1
        if pending.attempt < self._patience.max_attempts:
            self._start(identity)
        else:
            self._give_up(identity, f"no result after {pending.attempt} attempts")

    def _give_up(self, identity: tuple[str, int], reason: str) -> None:
        pending = self._pending.pop(identity)
        self._effects.append(Fail(SampleKey(*identity, pending.attempt), pending.created_s, reason))

    def _finish(self, key: SampleKey) -> None:
        pending = self._pending.pop((key.source, key.sample), None)
        if pending is None:
            self._effects.append(Discard(key))
        else:
            self._effects.append(Complete(key, pending.created_s))

    def _on_timed_out(self, event: TimedOut) -> None:
        identity = (event.key.source, event.key.sample)
        pending = self._pending.get(identity)
        if pending is not None and pending.attempt == event.key.attempt:
            self._retry(identity)
            self._serve()

    def _on_left(self, event: Left) -> None:
        self._view.absent.add(event.worker)
        for identity in [identity for identity, pending in self._pending.items() if event.worker in pending.via]:
            self._retry(identity)
        self._serve()

    def _on_joined(self, event: Joined) -> None:
        self._view.absent.discard(event.worker)

    # ---- tasks (rules 4 to 7) -------------------------------------------------------------------------------------

    def _on_received(self, event: Received) -> None:
        message = event.message
        if isinstance(message, TaskMessage):
            self._place(message.task)
            self._serve()
        elif isinstance(message, ResultMessage):
            self._finish(message.key)
        else:
            self._on_failure(message)

    def _on_failure(self, message: FailureMessage) -> None:
        identity = (message.key.source, message.key.sample)
        if identity in self._pending:
            self._give_up(identity, message.reason)

    def _place(self, task: Task) -> None:
        decision = self._policy.place(self._view, task)
        if isinstance(decision, Compute):
            waiting = _Waiting(task, decision.last_block)
            self._queues.setdefault(self._policy.queue(task), deque()).append(waiting)
        else:
            size = self._view.instance.cut_bytes(task.model)[task.next_block]
            self._effects.append(Send(decision.worker, TaskMessage(task), task.next_block, size, task.priority))
            self._effects.append(Discard(task.key))

    def _serve(self) -> None:
        if self._running is not None or not self._queues:
            return
        heads = {name: queue[0].task for name, queue in self._queues.items()}
        chosen = self._policy.choose(self._view, heads)
        queue = self._queues[chosen]
        waiting = queue.popleft()
        if not queue:
            del self._queues[chosen]
        self._run(waiting)

    def _run(self, waiting: _Waiting) -> None:
        task = waiting.task
        self._running = waiting._replace(begun=True)
        self._effects.append(RunBlock(task.key, task.model, task.next_block, begins_stage=not waiting.begun))

    def _take_running(self, key: SampleKey, block: int) -> _Waiting:
        running = self._running
        if running is None or running.task.key != key or running.task.next_block != block:
            raise ProtocolError(f"{self.name} is not running block {block} of {key}")
        self._running = None
        return running

    def _on_block_ended(self, event: BlockEnded) -> None:
        running = self._take_running(event.key, event.block)
        running = running._replace(task=replace(running.task, next_block=event.block + 1))
        task = running.task
        if event.block == running.last_block:
            self._end_task(task)
            self._serve()
        elif self._policy.looks_between_blocks:
            self._queues.setdefault(self._policy.queue(task), deque()).appendleft(running)
            self._serve()
        else:
            self._run(running)

    def _end_task(self, task: Task) -> None:
        if task.next_block < self._view.instance.length(task.model):
            self._place(replace(task, stages=task.stages[1:]))
            return
        home = self._view.instance.home(task.key.source)
        if home == self.name:
            self._finish(task.key)
            return
        size = self._view.instance.cut_bytes(task.model)[-1]
        message = ResultMessage(task.key, task.next_block)
        self._effects.append(Send(home, message, task.next_block, size, task.priority))
        self._effects.append(Discard(task.key))

    def _on_block_failed(self, event: BlockFailed) -> None:
        task = self._take_running(event.key, event.block).task
        self._effects.append(Discard(task.key))
        message = FailureMessage(task.key, f"{self.name}, block {event.block}: {event.reason}")
        home = self._view.instance.home(task.key.source)
        if home == self.name:
            self._on_failure(message)
        else:
            self._effects.append(Send(home, message, event.block, 0, task.priority))
        self._serve()
