"""Samples that run as one batch on a worker.

1.  When a task is chosen to run, tasks behind it in its queue that have its priority and the same blocks of the same
    model left run with it, as many as their sources allow and the profile says take the least time per sample.
    Sequences, and samples that have to start by a certain time, run alone.
2.  An idle worker with nothing else to do waits for a larger batch until the first of it has waited as long as its
    source allows. Samples of the highest of several priorities do not wait, and none waits again between blocks.
3.  A batch is put together again between blocks wherever the policy looks for other work. Where a batch fails, its
    samples run alone from there on, so that one that cannot be computed takes no other with it.
"""

from __future__ import annotations

from math import inf

from planner.policy.types import Policy, SampleKey, Task, Waiting, WorkerState
from planner.worker.events import SetTimer, StepOutput, Timer
from planner.worker.queues import Queues


class Batches:
    """Puts together what runs as one batch on one worker.

    Parameters
    ----------
    output
        Takes the timers of rule 2.
    """

    def __init__(self, state: WorkerState, queues: Queues, policy: Policy, output: StepOutput) -> None:
        self._state, self._queues, self._output = state, queues, output
        instance = state.instance
        self._specs = {name: spec for name, spec in instance.scenario.sources.items() if spec.max_batch > 1}
        self._models = frozenset(
            model for model in instance.profiles if instance.profile(model, state.worker).batches is not None
        )
        self.on = policy.batches and bool(self._specs and self._models)
        """Whether any samples may run as batches here."""
        self._awaited: SampleKey | None = None

    def gather(self, waiting: Waiting) -> bool:
        """Gather the batch of a task that was taken to run next; return False if it is to wait for a larger one."""
        if not self._may_share(waiting):
            return True
        task, most = waiting.task, self._specs[waiting.task.key.source].max_batch
        ready = self._queues.behind(waiting, most - 1, lambda other: self._fits(task, waiting, other))
        size = self._size(waiting, 1 + len(ready))
        if 1 + len(ready) < most and self._waits(waiting, len(ready)) and self._size(waiting, most) > size:
            self._queues.put_back(waiting)
            return False
        waiting.others = tuple(ready[: size - 1])
        self._queues.withdraw(waiting.others)
        return True

    def _size(self, waiting: Waiting, most: int) -> int:
        state, model = self._state, waiting.task.model
        return state.costs.batch_size(model, state.worker, waiting.next_block, waiting.last_block, most)

    def _may_share(self, waiting: Waiting) -> bool:
        task = waiting.task
        return (
            task.key.source in self._specs
            and task.model in self._models
            and task.sequence is None
            and waiting.latest_s == inf
            and not waiting.alone
        )

    def _fits(self, task: Task, waiting: Waiting, other: Waiting) -> bool:
        mate = other.task
        return (
            mate.model == task.model
            and mate.priority == task.priority
            and (other.next_block, other.last_block) == (waiting.next_block, waiting.last_block)
            and other.joined == waiting.joined
            and self._may_share(other)
        )

    def _waits(self, waiting: Waiting, ready: int) -> bool:
        """Return whether a task waits for a larger batch (rule 2); make sure that it is looked at again."""
        until_s = waiting.since_s + self._specs[waiting.task.key.source].max_batch_wait_s
        others = sum(self._state.queued.values()) > ready
        if waiting.begun or others or self._state.now_s >= until_s or self._urgent(waiting.task.priority):
            return False
        if self._awaited != waiting.task.key:
            self._awaited = waiting.task.key
            self._output.effects.append(SetTimer(Timer("batch", waiting.task.key), until_s))
        return True

    def _urgent(self, priority: float) -> bool:
        known = self._state.priorities.values()
        return priority > min(known) and priority >= max(known)
