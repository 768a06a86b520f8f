"""Until when a sample may go on: its own limit, and the rules ``late: drop`` and ``queue_timeout`` of its source.

A sample whose source says ``late: drop`` cannot meet its deadline when its remaining work and transfers, without any
waiting, take longer than the time that is left. They are expected by the profiles and by the speeds measured since:
along its route where that is known, else at the fastest worker for each block without transfers. Of a sample that may
leave at an exit, only the work up to there counts.
"""

from __future__ import annotations

from math import inf

from planner.policy.types import Task, WorkerState
from planner.units import format_quantity


class Lateness:
    """The latest times of the tasks at one worker; reads the state and changes nothing."""

    def __init__(self, state: WorkerState) -> None:
        self._state = state
        sources = state.instance.scenario.sources
        self._deadline_s = {source: spec.deadline_s for source, spec in sources.items()}
        self._due_s = {
            source: spec.deadline_s for source, spec in sources.items() if spec.late == "drop" and spec.deadline_s
        }
        self._timeout_s = {source: spec.queue_timeout_s for source, spec in sources.items() if spec.queue_timeout_s}
        self._limited = self._due_s.keys() | self._timeout_s.keys()
        self._known_s: dict[tuple[object, ...], float] = {}
        self._least_at_start_s = {source: self._least_of_models_s(source) for source in self._limited}

    def latest_s(self, task: Task, next_block: int) -> float:
        """Return the latest time at which a task at this worker may start a block or be sent on; infinite without."""
        source = task.key.source
        own_s = inf if task.latest_s is None else task.latest_s
        if source not in self._limited:
            return own_s
        due_s, timeout_s = self._due_s.get(source), self._timeout_s.get(source)
        latest_s = inf if due_s is None else task.created_s + due_s - self._least_s(task, next_block)
        if timeout_s is not None and not next_block:
            latest_s = min(latest_s, task.created_s + timeout_s)
        return min(latest_s, own_s)

    def latest_start_s(self, source: str, created_s: float, own_s: float | None = None) -> float:
        """Return the latest time at which a sample may leave the reservoir of its source, whatever its route."""
        own_s = inf if own_s is None else own_s
        if source not in self._limited:
            return own_s
        due_s = self._due_s.get(source, inf) - self._least_at_start_s[source]
        return min(created_s + min(due_s, self._timeout_s.get(source, inf)), own_s)

    def due_s(self, task: Task, next_block: int) -> float:
        """Return the latest time at which a task can go on and meet its deadline; infinite without one."""
        deadline_s = self._deadline_s[task.key.source]
        return inf if deadline_s is None else task.created_s + deadline_s - self._least_s(task, next_block)

    def late_s(self, task: Task, next_block: int, ahead_s: float = 0.0) -> float | None:
        """Return by how much a task would miss its deadline at least, if it waited for ``ahead_s`` more, in seconds."""
        return self._missed_by_s(task.key.source, task.created_s, ahead_s + self._least_s(task, next_block))

    def late_start_s(self, source: str, created_s: float) -> float | None:
        """Return by how much a sample in the reservoir would miss its deadline at least, in seconds."""
        return self._missed_by_s(source, created_s, self._least_at_start_s[source])

    def reason(
        self,
        source: str,
        created_s: float,
        late_s: float | None,
        *,
        own_s: float | None = None,
        refused: bool = False,
    ) -> str:
        """Return in words why a sample is dropped now."""
        if refused:
            return f"refused, expected to miss its deadline by {format_quantity(late_s or 0.0, 'time')}"
        if own_s is not None and self._state.now_s >= own_s:
            return f"its time of {format_quantity(own_s - created_s, 'time')} is up"
        timeout_s, waited_s = self._timeout_s.get(source), self._state.now_s - created_s
        if timeout_s is not None and (source not in self._due_s or not late_s) and waited_s >= timeout_s:
            limit = format_quantity(timeout_s, "time")
            return f"waited {format_quantity(waited_s, 'time')} for its first block, queue_timeout is {limit}"
        return f"would miss its deadline by {format_quantity(late_s or 0.0, 'time')} or more"

    def _missed_by_s(self, source: str, created_s: float, left_s: float) -> float | None:
        deadline_s = self._deadline_s[source]
        return None if deadline_s is None else max(self._state.now_s + left_s - created_s - deadline_s, 0.0)

    def _least_s(self, task: Task, next_block: int) -> float:
        key = (task.key.source, task.model, task.operating_point, task.stages, next_block)
        if self._state.slowness:
            return self._left_s(task, next_block)
        if key not in self._known_s:
            self._known_s[key] = self._left_s(task, next_block)
        return self._known_s[key]

    def _left_s(self, task: Task, next_block: int) -> float:
        """Return the time of what is left of a task, without waiting, in seconds."""
        costs, here = self._state.costs, self._state.worker
        home = self._state.instance.home(task.key.source)
        end, result_bytes = self._first_end(task.model, task.operating_point, next_block)
        if not task.stages and next_block <= end:
            return self._fastest_s(task.model, next_block, end)
        left_s, block = 0.0, next_block
        for stage in task.stages:
            last = min(stage.last_block, end)
            if last >= block:
                left_s += self._sent_s(here, stage.worker, costs.cut_bytes[task.model][block])
                left_s += costs.compute_s(task.model, stage.worker, block, last, stage=stage)
                here, block = stage.worker, last + 1
        return left_s + self._sent_s(here, home, result_bytes)

    def _sent_s(self, sender: str, receiver: str, size_bytes: float) -> float:
        """Return the time of a transfer; 0 without a path, for to send there is an error and no question of time."""
        sent_s = self._state.costs.transfer_s(sender, receiver, size_bytes)
        return sent_s if sent_s < inf else 0.0

    def _first_end(self, model: str, point: int, next_block: int) -> tuple[int, int]:
        """Return the block after which a sample may end first, and the bytes of its result then."""
        instance = self._state.instance
        reach = (*instance.operating_points(model)[point].reach, 0.0)
        for exit_ in instance.any_profile(model).exits:
            if exit_.cut > next_block and reach[exit_.cut - 1] > reach[exit_.cut]:
                return exit_.cut - 1, exit_.result_bytes
        return instance.length(model) - 1, instance.cut_bytes(model)[-1]

    def _fastest_s(self, model: str, first: int, last: int) -> float:
        costs, workers = self._state.costs, self._state.instance.workers
        blocks = range(first, last + 1)
        return sum([min([costs.least_s(model, worker, block) for worker in workers]) for block in blocks], 0.0)

    def _least_of_models_s(self, source: str) -> float:
        instance = self._state.instance
        return min(
            self._fastest_s(model, 0, self._first_end(model, point, 0)[0])
            for model in instance.scenario.sources[source].models
            for point in range(len(instance.operating_points(model)))
        )
