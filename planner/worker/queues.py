"""The tasks that wait at a worker, and the computation that they amount to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Hashable
from heapq import heapify, heappop, heappush, nsmallest
from itertools import count
from math import inf
from types import MappingProxyType
from typing import Final

from planner.policy.types import Policy, SampleKey, Task, Waiting, WorkerState

_ROUNDING_S: Final = 1e-9
"""Sums of floats do not come back to zero by themselves."""


class Queues:
    """The queues that the policy names.

    Parameters
    ----------
    state
        Its ``queued``, ``backlog_s`` and ``running_until_s`` are kept here.
    """

    def __init__(self, state: WorkerState, policy: Policy) -> None:
        self._state = state
        self._policy = policy
        self._heaps: dict[Hashable, list[tuple[tuple[float, int], Waiting]]] = defaultdict(list)
        self._heads: dict[Hashable, Waiting] = {}
        self._shown_heads = MappingProxyType(self._heads)
        self._sequence = count()
        self._limited: dict[SampleKey, Waiting] = {}
        self.changes = 0
        """Number of changes to what waits or runs here."""
        self.running_s = 0.0
        """Expected time of the session that runs, or ran last, in seconds."""

    def add(self, task: Task, last_block: int, latest_s: float = inf) -> Waiting:
        """Add a task to be computed up to ``last_block``, which has to start until ``latest_s``; return it."""
        state, first, joined = self._state, task.next_block, task.joined
        work_s = state.costs.stage_s(task.model, state.worker, first, last_block, task.operating_point, stage=joined)
        self._raise(task.priority, work_s)
        place = self._policy.rank(task), next(self._sequence)
        waiting = Waiting(task, first, last_block, state.now_s, place, latest_s=latest_s, joined=joined)
        self._put(waiting)
        return waiting

    def come_back(self, waiting: Waiting) -> None:
        """Add a task that has blocks left; among equals it keeps the place it had."""
        task = waiting.task
        if not self._policy.keeps_order:
            waiting.place = self._policy.rank(task.at(waiting.next_block, task.stages)), waiting.place[1]
        self._put(waiting)

    def put_back(self, waiting: Waiting) -> None:
        """Put a task back that was taken and does not run yet."""
        self._put(waiting)

    def first(self, most: int, fits: Callable[[Waiting], bool]) -> list[Waiting]:
        """Return the first ``most`` tasks that wait here and that ``fits``, in the order of their places."""
        entries = (entry for heap in self._heaps.values() for entry in heap if fits(entry[1]))
        return [other for _, other in nsmallest(most, entries)]

    def withdraw(self, tasks: Collection[Waiting]) -> None:
        """Take tasks that run with one that was taken before."""
        places: dict[Hashable, set[tuple[float, int]]] = defaultdict(set)
        for waiting in tasks:
            self._limited.pop(waiting.task.key, None)
            places[self._policy.queue(waiting.task)].add(waiting.place)
        for queue, taken in places.items():
            self._heaps[queue] = heap = [entry for entry in self._heaps[queue] if entry[0] not in taken]
            heapify(heap)
            self._show(queue)

    def _put(self, waiting: Waiting) -> None:
        self.changes += 1
        queue = self._policy.queue(waiting.task)
        heap = self._heaps[queue]
        heappush(heap, (waiting.place, waiting))
        self._heads[queue] = heap[0][1]
        self._state.queued[queue] = len(heap)
        if waiting.latest_s < inf:
            self._limited[waiting.task.key] = waiting

    def take(self) -> Waiting | None:
        """Take the first task of the queue that the policy chooses; None when it chooses none or all are empty."""
        if not self._heads:
            return None
        chosen = self._policy.choose(self._state.view, self._shown_heads)
        if chosen is None:
            return None
        waiting = heappop(self._heaps[chosen])[1]
        self._limited.pop(waiting.task.key, None)
        self._show(chosen)
        return waiting

    def limited(self, key: SampleKey) -> Waiting | None:
        """Return the task of a sample that waits here and has a latest time; None without one."""
        return self._limited.get(key)

    def ahead_s(self, waiting: Waiting) -> float:
        """Return the computation that is served before a task that waits here, as far as its queue tells."""
        state = self._state
        before = [other for place, other in self._heaps[self._policy.queue(waiting.task)] if place < waiting.place]
        return sum(map(self._left_s, before), 0.0) + max(state.running_until_s - state.now_s, 0.0)

    def remove(self, waiting: Waiting) -> None:
        """Remove a task that waits here and will not be computed."""
        queue = self._policy.queue(waiting.task)
        heap = self._heaps[queue]
        heap.remove((waiting.place, waiting))
        heapify(heap)
        del self._limited[waiting.task.key]
        self._show(queue)
        self.forget(waiting)

    def forget(self, waiting: Waiting) -> None:
        """Do not count the blocks left of a task that will not be computed."""
        self.changes += 1
        self._reduce(waiting.task.priority, self._left_s(waiting))

    def _show(self, queue: Hashable) -> None:
        """Show the first task of a queue and its length, after a task was taken from it."""
        heap = self._heaps[queue]
        if heap:
            self._heads[queue] = heap[0][1]
            self._state.queued[queue] = len(heap)
        else:
            del self._heads[queue], self._heaps[queue], self._state.queued[queue]

    def _left_s(self, waiting: Waiting) -> float:
        """Return the computation left of a task that waits here, in seconds."""
        costs, task = self._state.costs, waiting.task
        expect = costs.compute_s if waiting.begun else costs.stage_s
        first, last = waiting.next_block, waiting.last_block
        return expect(task.model, self._state.worker, first, last, task.operating_point, stage=waiting.joined)

    def begin(self, waiting: Waiting) -> None:
        """Count the next session of a task as running, and of those that run with it."""
        self.changes += 1
        state, task = self._state, waiting.task
        alone_s = block_s = self._session_s(waiting)
        if waiting.others:
            first, end, size = waiting.next_block, waiting.session_end, len(waiting.batch)
            block_s += state.costs.batch_s(task.model, state.worker, first, end, size)
            alone_s += sum(map(self._session_s, waiting.others), 0.0)
        self.running_s = block_s
        state.running_until_s = state.now_s + block_s
        self._reduce(task.priority, alone_s)

    def _session_s(self, waiting: Waiting) -> float:
        """Return the expected time of the next session of a task by itself, in seconds."""
        costs, worker, model = self._state.costs, self._state.worker, waiting.task.model
        first, end, stage = waiting.next_block, waiting.session_end, waiting.joined
        if waiting.begun:
            return costs.compute_s(model, worker, first, end, stage=stage)
        return costs.stage_s(model, worker, first, end, stage=stage)

    def drop_rest(self, waiting: Waiting) -> None:
        """Do not count the blocks after the session that ran: they will not be computed here."""
        task, first, end = waiting.task, waiting.next_block, waiting.session_end
        if end < waiting.last_block:
            costs, worker, stage = self._state.costs, self._state.worker, waiting.joined
            whole_s = costs.compute_s(task.model, worker, first, waiting.last_block, task.operating_point, stage=stage)
            self._reduce(task.priority, whole_s - costs.compute_s(task.model, worker, first, end, stage=stage))

    def expect_rest(self, waiting: Waiting) -> None:
        """Count the blocks after the session that ran, after :meth:`drop_rest`: the sample did not leave there."""
        task, after, last = waiting.task, waiting.session_end + 1, waiting.last_block
        if after <= last:
            compute_s, point = self._state.costs.compute_s, task.operating_point
            self._raise(
                task.priority, compute_s(task.model, self._state.worker, after, last, point, stage=waiting.joined)
            )

    def expect_again(self, waiting: Waiting) -> None:
        """Count a session again that was begun and has failed."""
        self._raise(waiting.task.priority, self._session_s(waiting))

    def rescale(self, factor: float) -> None:
        """Multiply the expected time of what waits by a factor."""
        if factor != 1.0:
            for priority in self._state.backlog_s:
                self._state.backlog_s[priority] *= factor

    def _raise(self, priority: float, work_s: float) -> None:
        backlog_s = self._state.backlog_s
        backlog_s[priority] = backlog_s.get(priority, 0.0) + work_s

    def _reduce(self, priority: float, work_s: float) -> None:
        left_s = self._state.backlog_s.pop(priority, 0.0) - work_s
        if left_s > _ROUNDING_S:
            self._state.backlog_s[priority] = left_s
