"""``pa-mdi``: priority-aware MDI by request and clearance, block by block.

A reconstruction. Li and Seferoglu (Priority-Aware Model-Distributed Inference at Edge Networks, arXiv 2412.12371)
describe its aim, its convex structure, and that a worker asks neighbours with a request to compute (RTC) and is
answered with a clearance to compute (CTC); equations and timing are not public. What follows is our reading: a task is
one block; on its arrival its worker asks all neighbours; the hand-shake of :mod:`planner.worker.handshake` clears the
request of the highest priority; the task goes where transfer and expected completion sum to the least, this worker
included; when nothing comes in time, or there are no neighbours, it is computed here. Queues are served by priority,
then age.
"""

from __future__ import annotations

from collections.abc import Hashable

from planner.plan.types import Route
from planner.policy.base import PriorityPolicy
from planner.policy.menu import whole_model_at_home
from planner.policy.types import Ask, Compute, Decision, Task, View


class PaMdi(PriorityPolicy):
    """Block by block to whichever neighbour is cleared and soonest done.

    Parameters
    ----------
    priorities
        Whether service and clearance go by priority; without, all are one class (for ablation).
    clearance
        Whether neighbours are asked; without, everything is computed at home (for ablation).
    blocks
        Blocks of a task; 0 for all that are left, that is without choosing cuts (for ablation).
    """

    def __init__(self, *, priorities: bool = True, clearance: bool = True, blocks: int = 1) -> None:
        self._priorities = priorities
        self._clearance = clearance
        self._blocks = blocks

    def route(self, view: View, source: str) -> Route | None:
        """Name the model; where its blocks run is decided one task at a time."""
        return whole_model_at_home(view.instance, source)

    def place(self, view: View, task: Task) -> Decision:
        """Ask the neighbours, if there are any."""
        end = view.costs.length(task.model) - 1
        last_block = end if self._blocks == 0 else min(task.next_block + self._blocks - 1, end)
        neighbours = tuple(view.present(view.costs.neighbours(view.worker))) if self._clearance else ()
        return Ask(neighbours, last_block) if neighbours else Compute(last_block)

    def queue(self, task: Task) -> Hashable:
        """Put each priority class into a queue of its own, unless priorities are off."""
        return task.priority if self._priorities else ""

    def rank(self, task: Task) -> float:
        """Put the oldest first."""
        return task.created_s
