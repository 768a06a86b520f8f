"""The clearance hand-shake of PA-MDI: request to compute (RTC), clearance to compute (CTC) or refusal (NACK).

1.  A worker that holds a task asks other workers (RTC), and waits until all have answered or its patience ends.
2.  A worker that is asked gathers requests for a window: 1 ms, or its round trip to the first that asks where that is
    longer. At its end it clears the request of the highest priority (CTC), the oldest among equals, with its expected
    completion, unless a task of higher priority waits here or another clearance is open; it refuses all others (NACK).
3.  A clearance reserves this worker until the task comes, or a window and two round trips have passed.

The paper's own timing is not public; this is our reading (design in :mod:`planner.policy.pa_mdi`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from planner.policy.types import Ask, SampleKey, Task, View, WorkerState
from planner.worker.events import AnswerMessage, RequestMessage, SetTimer, StepOutput, Tell, Timer

SHORTEST_WINDOW_S: Final = 1e-3


@dataclass(slots=True)
class _Open:
    """A task whose answers are awaited."""

    task: Task
    ask: Ask
    awaited: set[str]
    until_s: float
    offers: dict[str, float] = field(default_factory=dict)


class Settled(NamedTuple):
    """A task whose answers are in."""

    task: Task
    ask: Ask
    offers: dict[str, float]


def window_s(view: View, other: str) -> float:
    """Return how long requests are gathered when ``other`` asks first, in seconds."""
    return max(SHORTEST_WINDOW_S, 2 * view.costs.latency_s(view.worker, other))


def patience_s(view: View, other: str) -> float:
    """Return how long an answer of ``other``, or a task that it was cleared for, is awaited, in seconds."""
    return window_s(view, other) + 4 * view.costs.latency_s(view.worker, other)


class ClearanceHandshake:
    """Both sides of one worker's hand-shakes.

    Parameters
    ----------
    output
        Takes what the driver is to do.
    """

    def __init__(self, state: WorkerState, output: StepOutput) -> None:
        self._view = state.view
        self._output = output
        self._open: dict[SampleKey, _Open] = {}
        self._requests: list[tuple[str, RequestMessage]] = []
        self._reserved: SampleKey | None = None
        self._reserved_until_s = 0.0

    def ask(self, task: Task, ask: Ask) -> None:
        """Send requests for a task (rule 1)."""
        self._output.effects.extend(Tell(worker, RequestMessage(task, ask.last_block)) for worker in ask.workers)
        until_s = self._view.now_s + max(patience_s(self._view, worker) for worker in ask.workers)
        self._open[task.key] = _Open(task, ask, set(ask.workers), until_s)
        self._output.effects.append(SetTimer(Timer("answers", task.key), until_s))

    def answered(self, sender: str, answer: AnswerMessage) -> Settled | None:
        """Take an answer; return the task when it was the last one. A late one, about earlier blocks, says nothing."""
        request = self._open.get(answer.key)
        if request is None or sender not in request.awaited or answer.next_block != request.task.next_block:
            return None
        request.awaited.discard(sender)
        if answer.completion_s is not None:
            request.offers[sender] = answer.completion_s
        return None if request.awaited else self._settle(answer.key)

    def overdue(self, key: SampleKey) -> Settled | None:
        """Settle for the answers that are there; None when that was done before, or the timer was of earlier blocks."""
        request = self._open.get(key)
        return None if request is None or self._view.now_s < request.until_s else self._settle(key)

    def _settle(self, key: SampleKey) -> Settled:
        request = self._open.pop(key)
        return Settled(request.task, request.ask, request.offers)

    def requested(self, sender: str, request: RequestMessage) -> None:
        """Gather a request (rule 2)."""
        if not self._requests:
            end_s = self._view.now_s + window_s(self._view, sender)
            self._output.effects.append(SetTimer(Timer("window", request.key), end_s))
        self._requests.append((sender, request))

    def close_window(self) -> None:
        """Clear one of the gathered requests and refuse the others (rules 2 and 3)."""
        requests, self._requests = self._requests, []
        asked = [request.task for _, request in requests]
        best = min(asked, key=lambda task: (-task.priority, task.created_s), default=None)
        for sender, request in requests:
            completion_s = None
            if request.task is best and self._reserved is None and not self._outranked(request.task.priority):
                completion_s = self._completion_s(request)
                self._reserved = request.key
                self._reserved_until_s = self._view.now_s + patience_s(self._view, sender)
                self._output.effects.append(SetTimer(Timer("reservation", request.key), self._reserved_until_s))
            self._output.effects.append(Tell(sender, AnswerMessage(request.key, completion_s, request.task.next_block)))

    def release(self, key: SampleKey) -> None:
        """End a reservation whose task has come (rule 3)."""
        if self._reserved == key:
            self._reserved = None

    def expire(self, key: SampleKey) -> None:
        """End a reservation whose time is over (rule 3); a timer of an earlier one ends nothing."""
        if self._view.now_s >= self._reserved_until_s:
            self.release(key)

    def forget(self, worker: str) -> list[Settled]:
        """Do without the answers of a worker that left; return the tasks that waited for nothing else."""
        waiting = [key for key, request in self._open.items() if worker in request.awaited]
        settled = (self.answered(worker, AnswerMessage(key, None, self._open[key].task.next_block)) for key in waiting)
        return [entry for entry in settled if entry is not None]

    def _outranked(self, priority: float) -> bool:
        return any(other > priority and waits_s > 0 for other, waits_s in self._view.backlog_s.items())

    def _completion_s(self, request: RequestMessage) -> float:
        task, view = request.task, self._view
        return view.ahead_s(task.priority) + view.costs.stage_s(
            task.model, view.worker, task.next_block, request.last_block
        )
