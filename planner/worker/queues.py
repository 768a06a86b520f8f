"""The tasks that wait at a worker, and the computation they amount to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable
from heapq import heappop, heappush
from itertools import count

from planner.policy.types import Policy, Task, View, Waiting


class Queues:
    """Queues of the policy's naming; what the view says of them is kept here, and nowhere else."""

    def __init__(self, view: View, policy: Policy) -> None:
        self._view = view
        self._policy = policy
        self._heaps: dict[Hashable, list[tuple[tuple[float, int], Waiting]]] = defaultdict(list)
        self._heads: dict[Hashable, Waiting] = {}
        self._sequence = count()
        self.changes = 0
        """How often what waits or runs here has changed."""
        self.running_s = 0.0
        """What the block that runs, or ran last, was expected to take, in seconds."""

    def add(self, task: Task, last_block: int) -> None:
        """Add a task to be computed up to ``last_block``."""
        view, first = self._view, task.next_block
        work_s = view.costs.stage_s(task.model, view.worker, first, last_block, task.operating_point)
        self._raise(task.priority, work_s)
        place = self._policy.rank(task), next(self._sequence)
        self.put_back(Waiting(task, first, last_block, view.now_s, place))

    def put_back(self, waiting: Waiting) -> None:
        """Add a task that has blocks left, with the place it had."""
        self.changes += 1
        queue = self._policy.queue(waiting.task)
        heap = self._heaps[queue]
        heappush(heap, (waiting.place, waiting))
        self._heads[queue] = heap[0][1]
        self._view.queued[queue] = len(heap)

    def take(self) -> Waiting | None:
        """Take the first task of the queue that the policy chooses; None when it chooses none or all are empty."""
        if not self._heads:
            return None
        chosen = self._policy.choose(self._view, self._heads)
        if chosen is None:
            return None
        heap = self._heaps[chosen]
        waiting = heappop(heap)[1]
        if heap:
            self._heads[chosen] = heap[0][1]
            self._view.queued[chosen] = len(heap)
        else:
            del self._heads[chosen], self._view.queued[chosen]
        return waiting

    def begin(self, waiting: Waiting) -> None:
        """Count the next block of a task as running."""
        self.changes += 1
        view, task, block = self._view, waiting.task, waiting.next_block
        expect = view.costs.compute_s if waiting.begun else view.costs.stage_s
        self.running_s = block_s = expect(task.model, view.worker, block, block)
        view.running_until_s = view.now_s + block_s
        self._reduce(task.priority, block_s)

    def drop_rest(self, waiting: Waiting) -> None:
        """Do not count the blocks behind the one that ran: they will not be computed here."""
        task, block = waiting.task, waiting.next_block
        if block < waiting.last_block:
            costs, worker = self._view.costs, self._view.worker
            whole_s = costs.compute_s(task.model, worker, block, waiting.last_block, task.operating_point)
            self._reduce(task.priority, whole_s - costs.compute_s(task.model, worker, block, block))

    def expect_rest(self, waiting: Waiting) -> None:
        """Count the blocks behind the one that ran for sure, after :meth:`drop_rest`: the sample stayed at its exit."""
        task, after = waiting.task, waiting.next_block + 1
        if after <= waiting.last_block:
            costs, worker = self._view.costs, self._view.worker
            self._raise(
                task.priority, costs.compute_s(task.model, worker, after, waiting.last_block, task.operating_point)
            )

    def rescale(self, factor: float) -> None:
        """Count what waits as taking so many times longer."""
        if factor != 1.0:
            for priority in self._view.backlog_s:
                self._view.backlog_s[priority] *= factor

    def _raise(self, priority: float, work_s: float) -> None:
        self._view.backlog_s[priority] = self._view.backlog_s.get(priority, 0.0) + work_s

    def _reduce(self, priority: float, work_s: float) -> None:
        left_s = self._view.backlog_s.pop(priority, 0.0) - work_s
        if left_s > 1e-9:  # sums of floats do not come back to zero by themselves
            self._view.backlog_s[priority] = left_s
