"""``pa-mdi``: priority-aware MDI by request and clearance, block by block.

A reconstruction. Li and Seferoglu (Priority-Aware Model-Distributed Inference at Edge Networks, arXiv 2412.12371)
describe its aim, its convex structure, and that a worker asks neighbours with a request to compute (RTC) and is
answered with a clearance to compute (CTC); equations and timing are not public. Our reading:

-   A task is one block. On its arrival its worker asks the neighbours that would finish it sooner if they were idle.
-   The hand-shake of :mod:`planner.worker.clearance_handshake` clears the request of the highest priority.
-   The task goes where the sum of its transfer, its expected completion and, after the last block, the transfer of the
    result home is least, this worker included.
-   If no answer comes in time, or there is nobody to ask, the task is computed here.
-   Queues are served by priority, then age.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping

from planner.plan.types import Route
from planner.policy.base import PriorityPolicy
from planner.policy.candidate_routes import whole_model_at_home
from planner.policy.types import Ask, Compute, Decision, Forward, Task, View


class PaMdi(PriorityPolicy):
    """Block by block to the cleared neighbour that is done first.

    Parameters
    ----------
    priorities
        Whether queues are served by priority; otherwise the oldest sample first (for ablation). Clearance goes by
        priority in either case.
    clearance
        Whether neighbours are asked; otherwise everything is computed at home (for ablation).
    blocks
        Number of blocks of a task; 0 for all that are left, which chooses no cuts (for ablation).
    """

    def __init__(self, *, priorities: bool = True, clearance: bool = True, blocks: int = 1) -> None:
        self._priorities = priorities
        self._clearance = clearance
        self._blocks = blocks

    def route(self, view: View, source: str) -> Route | None:
        """Return the whole model at home: where its blocks run is decided one task at a time."""
        return whole_model_at_home(view.instance, source)

    def place(self, view: View, task: Task) -> Decision:
        """Ask the neighbours that would finish sooner than this worker if they were idle."""
        end = view.costs.length(task.model) - 1
        last_block = end if self._blocks == 0 else min(task.next_block + self._blocks - 1, end)
        neighbours = view.present(view.costs.neighbours(view.worker)) if self._clearance else []
        here_s = _done_s(view, task, view.worker, last_block, _completion_here_s(view, task, last_block))
        sooner = tuple(
            worker
            for worker in neighbours
            if _done_s(view, task, worker, last_block, _work_s(view, task, worker, last_block)) < here_s
        )
        return Ask(sooner, last_block) if sooner else Compute(last_block)

    def settle(self, view: View, task: Task, ask: Ask, offers: Mapping[str, float]) -> Compute | Forward:
        """Choose the worker that is done first; this one among equals."""
        last_block = ask.last_block
        completions_s = {view.worker: _completion_here_s(view, task, last_block), **offers}
        best = min(completions_s, key=lambda worker: _done_s(view, task, worker, last_block, completions_s[worker]))
        return Compute(last_block) if best == view.worker else Forward(best, last_block)

    def queue(self, task: Task) -> Hashable:
        """Put each priority class into a queue of its own, unless priorities are off."""
        return task.priority if self._priorities else ""

    def rank(self, task: Task) -> float:
        """Put the oldest first."""
        return task.created_s


def _work_s(view: View, task: Task, worker: str, last_block: int) -> float:
    return view.costs.stage_s(task.model, worker, task.next_block, last_block, task.operating_point)


def _completion_here_s(view: View, task: Task, last_block: int) -> float:
    return view.ahead_s(task.priority) + _work_s(view, task, view.worker, last_block)


def _done_s(view: View, task: Task, worker: str, last_block: int, completion_s: float) -> float:
    """Return the expected time until a worker is done with a task, in seconds.

    It includes the transfer to the worker and, after the last block, the transfer of the result home.
    """
    costs, sizes = view.costs, view.costs.cut_bytes[task.model]
    done_s = costs.transfer_s(view.worker, worker, sizes[task.next_block]) + completion_s
    if last_block == costs.length(task.model) - 1:
        done_s += costs.transfer_s(worker, view.instance.home(task.key.source), sizes[-1])
    return done_s
