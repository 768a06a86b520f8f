"""The state of sequences on its way from the workers of one route to those of another.

1.  A task may say on which stages the state of its sequence is. The worker that is to compute it asks the workers of
    those stages that are not itself, and puts the task aside.
2.  A worker that is asked sends the state of each block, and keeps it no longer; or it says that it has none.
3.  The task joins its queue when all answers are there; or when a worker that was asked has left, or :data:`WAIT_S` has
    passed. A block that lacks its state then refuses the run, and the sequence starts again.
4.  A later attempt at the same task takes its place, and asks for nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from planner.policy.types import SampleKey, Task, WorkerState
from planner.worker.events import Send, SetTimer, StateMessage, StateRequest, StepOutput, Tell, Timer

WAIT_S: Final = 60.0
"""For how long a task waits for the state of its sequence."""


@dataclass(slots=True)
class _Open:
    """A task whose state is on its way."""

    task: Task
    last_block: int
    awaited: dict[int, str]
    """Who sends the state of each block."""


class StateTransfers:
    """Both sides of one worker's transfers.

    Parameters
    ----------
    output
        Takes what the driver is to do.
    """

    def __init__(self, state: WorkerState, output: StepOutput) -> None:
        self._view = state.view
        self._output = output
        self._open: dict[tuple[str, int], _Open] = {}
        """By source and sample."""

    def expects(self, sender: str, message: StateMessage) -> bool:
        """Return whether a task waits for what a message brings."""
        waiting = self._open.get(message.key[:2])
        return (
            waiting is not None
            and (waiting.task.model, waiting.task.sequence) == (message.model, message.sequence)
            and waiting.awaited.get(message.block) == sender
        )

    def fetch(self, task: Task, last_block: int) -> bool:
        """Ask for the state that a task needs here (rule 1); return whether the task has to wait for it."""
        own, view, sequence = self._view.worker, self._view, task.sequence
        before = self._open.get(task.key[:2])
        if before is not None and before.task.next_block == task.next_block:
            before.task, before.last_block = task, last_block
            return True
        awaited: dict[int, str] = {}
        for stage in task.state_at:
            first, last = max(stage.first_block, task.next_block), min(stage.last_block, last_block)
            if sequence is None or first > last or stage.worker == own or view.broken(own, stage.worker) is not None:
                continue
            request = StateRequest(task.key, task.model, first, last, sequence, task.priority)
            self._output.effects.append(Tell(stage.worker, request))
            awaited |= dict.fromkeys(range(first, last + 1), stage.worker)
        if not awaited:
            return False
        self._open[task.key[:2]] = _Open(task, last_block, awaited)
        self._output.effects.append(SetTimer(Timer("state", task.key), view.now_s + WAIT_S))
        return True

    def asked(self, sender: str, request: StateRequest) -> None:
        """Send the state of some blocks (rule 2); the driver knows whether and how much there is."""
        for block in range(request.first_block, request.last_block + 1):
            message = StateMessage(request.key, request.model, block, request.sequence)
            self._output.effects.append(Send(sender, message, block, 0, request.priority))

    def came(self, sender: str, message: StateMessage) -> tuple[Task, int] | None:
        """Take an answer; return the task, and the last block to compute, when it was the last one (rule 3)."""
        if not self.expects(sender, message):
            return None
        waiting = self._open[message.key[:2]]
        del waiting.awaited[message.block]
        return None if waiting.awaited else self.give_up(message.key)

    def give_up(self, key: SampleKey) -> tuple[Task, int] | None:
        """Wait no longer; return the task, and the last block to compute, if it has waited."""
        waiting = self._open.pop(key[:2], None)
        return None if waiting is None else (waiting.task, waiting.last_block)

    def forget(self, worker: str) -> list[tuple[Task, int]]:
        """Wait no longer for a worker that left; return the tasks, and the last block of each to compute."""
        keys = [waiting.task.key for waiting in self._open.values() if worker in waiting.awaited.values()]
        return [given_up for key in keys if (given_up := self.give_up(key)) is not None]
