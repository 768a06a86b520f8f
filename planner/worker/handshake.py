"""The hand-shake of PA-MDI: request to compute (RTC), clearance (CTC) or refusal (NACK).

1.  Who holds a task asks some workers, and waits for their answers until all are there or its patience is over.
2.  Who is asked gathers requests for a window of the larger of 1 ms and its round trip to the first that asks. At its
    end it clears the request of the highest priority, the oldest among equals, with its expected completion, unless a
    task of higher priority waits here or a clearance is out; it refuses all others.
3.  A clearance reserves this worker until the task comes, or a window and two round trips have passed.

The paper's own timing is not public; this is our reading (design in :mod:`planner.policy.pa_mdi`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from planner.policy.types import Ask, SampleKey, Task, View
from planner.worker.events import AnswerMessage, Effect, RequestMessage, SetTimer, Tell, Timer

SHORTEST_WINDOW_S: Final = 1e-3


@dataclass(slots=True)
class _Open:
    """A task whose answers are awaited."""

    task: Task
    ask: Ask
    awaited: set[str]
    offers: dict[str, float] = field(default_factory=dict)


class Settled(NamedTuple):
    """A task whose answers are in."""

    task: Task
    ask: Ask
    offers: dict[str, float]


def window_s(view: View, other: str) -> float:
    """Give how long requests are gathered, in seconds, when ``other`` asks first."""
    return max(SHORTEST_WINDOW_S, 2 * view.costs.latency_s(view.worker, other))


def patience_s(view: View, other: str) -> float:
    """Give how long an answer of ``other``, or a task it was cleared for, is waited for, in seconds."""
    return window_s(view, other) + 4 * view.costs.latency_s(view.worker, other)


class Handshake:
    """Both sides of one worker's hand-shakes; effects go to the list it is given."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._open: dict[SampleKey, _Open] = {}
        self._requests: list[tuple[str, RequestMessage]] = []
        self._reserved: SampleKey | None = None

    def ask(self, task: Task, ask: Ask, effects: list[Effect]) -> None:
        """Ask for a task (rule 1)."""
        self._open[task.key] = _Open(task, ask, set(ask.workers))
        effects.extend(Tell(worker, RequestMessage(task, ask.last_block)) for worker in ask.workers)
        wait_s = max(patience_s(self._view, worker) for worker in ask.workers)
        effects.append(SetTimer(Timer("answers", task.key), self._view.now_s + wait_s))

    def answered(self, sender: str, answer: AnswerMessage) -> Settled | None:
        """Take an answer; give the task when it was the last one."""
        found = self._open.get(answer.key)
        if found is None or sender not in found.awaited:
            return None
        found.awaited.discard(sender)
        if answer.completion_s is not None:
            found.offers[sender] = answer.completion_s
        return None if found.awaited else self.overdue(answer.key)

    def overdue(self, key: SampleKey) -> Settled | None:
        """Settle for the answers that are there; None when that was done before."""
        found = self._open.pop(key, None)
        return None if found is None else Settled(found.task, found.ask, found.offers)

    def requested(self, sender: str, request: RequestMessage, effects: list[Effect]) -> None:
        """Gather a request (rule 2)."""
        if not self._requests:
            end_s = self._view.now_s + window_s(self._view, sender)
            effects.append(SetTimer(Timer("window", request.key), end_s))
        self._requests.append((sender, request))

    def close_window(self, effects: list[Effect]) -> None:
        """Clear one of the gathered requests and refuse the others (rules 2 and 3)."""
        requests, self._requests = self._requests, []
        best = min(requests, key=lambda entry: (-entry[1].task.priority, entry[1].task.created_s), default=None)
        for entry in requests:
            sender, request = entry
            completion_s = None
            if entry is best and self._reserved is None and not self._outranked(request.task.priority):
                completion_s = self._completion_s(request)
                self._reserved = request.key
                until_s = self._view.now_s + patience_s(self._view, sender)
                effects.append(SetTimer(Timer("reservation", request.key), until_s))
            effects.append(Tell(sender, AnswerMessage(request.key, completion_s)))

    def release(self, key: SampleKey) -> None:
        """End a reservation: its task has come, or its time is over (rule 3)."""
        if self._reserved == key:
            self._reserved = None

    def forget(self, worker: str) -> list[Settled]:
        """Do without the answers of a worker that left; give the tasks that waited for nothing else."""
        waiting = [key for key, found in self._open.items() if worker in found.awaited]
        settled = (self.answered(worker, AnswerMessage(key, None)) for key in waiting)
        return [entry for entry in settled if entry is not None]

    def _outranked(self, priority: float) -> bool:
        return any(other > priority and waits_s > 0 for other, waits_s in self._view.backlog_s.items())

    def _completion_s(self, request: RequestMessage) -> float:
        task, view = request.task, self._view
        return view.ahead_s(task.priority) + view.costs.stage_s(
            task.model, view.worker, task.next_block, request.last_block
        )
