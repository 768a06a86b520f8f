"""``edf`` and ``least-laxity``: the worker that is expected to be done first, and there the most urgent sample.

Both send each sample, whole, as ``ddi`` does, and look between blocks; priorities say nothing. ``edf`` serves the
sample whose deadline is next; ``least-laxity`` the one with the least time to spare, that is the time to its deadline
less the computation that is left. The laxities of all samples that wait shrink alike, so their order changes only when
one has been computed in part. Samples of sources without a deadline come last, the oldest first.

References
----------
C. L. Liu, J. W. Layland, "Scheduling algorithms for multiprogramming in a hard-real-time environment", Journal of the
ACM 20 (1973).
M. L. Dertouzos, A. K. Mok, "Multiprocessor on-line scheduling of hard-real-time tasks", IEEE Transactions on Software
Engineering 15 (1989).
"""

from __future__ import annotations

from typing import Final

from planner.policy.costs import CostTable
from planner.policy.ddi import Ddi
from planner.policy.types import Task
from planner.scenario.instance import Instance

_NEVER_S: Final = 1e12
"""A deadline later than any real one."""


class Edf(Ddi):
    """Earliest deadline first, at the worker with the shortest expected completion."""

    looks_between_blocks = True

    def __init__(self, instance: Instance) -> None:
        super().__init__()
        self._deadline_s = {source: spec.deadline_s or _NEVER_S for source, spec in instance.scenario.sources.items()}

    def rank(self, task: Task) -> float:
        """Put the earliest deadline first."""
        return task.created_s + self._deadline_s[task.key.source]


class LeastLaxity(Edf):
    """Least laxity first, at the worker with the shortest expected completion."""

    def __init__(self, instance: Instance) -> None:
        super().__init__(instance)
        self._costs = CostTable(instance)

    def rank(self, task: Task) -> float:
        """Put the one first that has to start first."""
        stage = task.stages[0]
        left_s = self._costs.compute_s(task.model, stage.worker, task.next_block, stage.last_block)
        return super().rank(task) - left_s
