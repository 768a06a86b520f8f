"""Samples that run as one batch on a worker.

1.  When a task is chosen to run, the first of those that wait with its priority and the same blocks of the same model
    left run with it, as many as their source, the worker and the plan's stage allow and the profile says take the
    least time per sample. Sequences run alone.
2.  A sample that is dropped if it starts too late is in no batch that would make it too late, were it to wait no more
    afterwards. Others are in any: smaller batches would carry fewer samples, and more of them would be late in the end.
3.  An idle worker with nothing else to do waits for a larger batch until the first of it has waited as long as its
    source, or the worker, allows. Samples of the highest of several priorities do not wait, nor does any that would
    then miss its deadline, and none waits again between blocks.
4.  A batch is put together again between blocks wherever the policy looks for other work. Where a batch fails, its
    samples run alone from there on, so that one that cannot be computed takes no other with it.
"""

from __future__ import annotations

from math import inf

from planner.policy.types import Policy, Task, Waiting, WorkerState
from planner.worker.events import SetTimer, StepOutput, Timer
from planner.worker.lateness import Lateness
from planner.worker.queues import Queues


class Batches:
    """Puts together what runs as one batch on one worker.

    Parameters
    ----------
    output
        Takes the timers of rule 3.
    """

    def __init__(
        self, state: WorkerState, queues: Queues, policy: Policy, lateness: Lateness, output: StepOutput
    ) -> None:
        self._state, self._queues, self._lateness, self._output = state, queues, lateness, output
        instance, worker = state.instance, state.worker
        self._most_of = {
            (source, model): instance.max_batch(model, worker)
            for source, spec in instance.scenario.sources.items()
            for model in spec.models
            if spec.max_batch > 1 and instance.max_batch(model, worker) > 1
        }
        self._wait_s = {source: instance.max_batch_wait_s(source, worker) for source, _ in self._most_of}
        self.on = policy.batches and bool(self._most_of)
        """Whether any samples may run as batches here."""
        self._awaited: Timer | None = None
        self._awaited_s = inf

    def gather(self, waiting: Waiting) -> bool:
        """Gather the batch of a task that was taken to run next; return False if it is to wait for a larger one."""
        most = self._most(waiting)
        if most == 1:
            return True
        task = waiting.task
        ready = self._queues.first(most - 1, lambda other: self._fits(task, waiting, other))
        size = self._size(waiting, self._in_time(waiting, ready))
        if 1 + len(ready) < most and self._waits(waiting, ready, most) and self._size(waiting, most) > size:
            self._queues.put_back(waiting)
            return False
        waiting.others = tuple(ready[: size - 1])
        self._queues.withdraw(waiting.others)
        return True

    def _most(self, waiting: Waiting) -> int:
        """Return the size of the largest batch that a task may be in."""
        task = waiting.task
        most = self._most_of.get((task.key.source, task.model), 1)
        if most == 1 or task.sequence is not None or waiting.alone or waiting.latest_s < self._state.now_s:
            return 1
        limit = task.stages[0].max_batch if task.stages else None
        return most if limit is None else min(most, limit)

    def _size(self, waiting: Waiting, most: int) -> int:
        state, model = self._state, waiting.task.model
        return state.costs.batch_size(model, state.worker, waiting.next_block, waiting.last_block, most)

    def _in_time(self, waiting: Waiting, ready: list[Waiting]) -> int:
        """Return the size of the largest batch of a task and those behind it in which none comes too late (rule 2)."""
        latest_s = waiting.latest_s
        for size, other in enumerate(ready, start=2):
            latest_s = min(latest_s, other.latest_s)
            if latest_s < inf and self._state.now_s + self._longer_s(waiting, size) > latest_s:
                return size - 1
        return 1 + len(ready)

    def _longer_s(self, waiting: Waiting, size: int) -> float:
        """Return how much longer the blocks left here take for a batch, in seconds."""
        state, task = self._state, waiting.task
        return state.costs.batch_s(task.model, state.worker, waiting.next_block, waiting.last_block, size)

    def _fits(self, task: Task, waiting: Waiting, other: Waiting) -> bool:
        mate = other.task
        return (
            mate.model == task.model
            and mate.priority == task.priority
            and (other.next_block, other.last_block) == (waiting.next_block, waiting.last_block)
            and other.joined == waiting.joined
            and self._most(other) > 1
        )

    def _waits(self, waiting: Waiting, ready: list[Waiting], most: int) -> bool:
        """Return whether a task waits for a larger batch (rule 3); make sure that it is looked at again."""
        others = sum(self._state.queued.values()) > len(ready)
        if waiting.begun or others or self._urgent(waiting.task.priority):
            return False
        until_s = waiting.since_s + self._wait_s[waiting.task.key.source]
        dues_s = [min(each.latest_s, self._lateness.due_s(each.task, each.next_block)) for each in (waiting, *ready)]
        if min(dues_s) < inf:
            until_s = min(until_s, min(dues_s) - self._longer_s(waiting, most))
        if self._state.now_s >= until_s:
            return False
        timer = Timer("batch", waiting.task.key)
        if (timer, until_s) != (self._awaited, self._awaited_s):
            self._awaited, self._awaited_s = timer, until_s
            self._output.effects.append(SetTimer(timer, until_s))
        return True

    def _urgent(self, priority: float) -> bool:
        known = self._state.priorities.values()
        return priority > min(known) and priority >= max(known)
