"""``ms-mdi``: multi-source MDI by queue lengths (Li, Seferoglu and Koyuncu, section 4).

Each source has a reservoir and a queue q_l for samples that its worker computes whole; each worker n has a queue q_n^j
for each source j of samples that go round the ring by AR-MDI's segments. A worker serves the queue with the largest
term of the paper's equation (2),

    max { q_l, max_j ( q_n^j − q_{n+1}^j ) }

that is its local queue or the largest back-pressure.

Our reading, where the paper leaves it open or prints what can stop all work:

-   Only non-empty queues are candidates: a back-pressure may be negative, and waiting for it to turn helps nobody.
-   The last worker's successor counts 0: the paper's modulo subtracts the source's own queue, which no sample joins
    from there.
-   A worker that is no source has no local queue: the paper's −M, under another symbol.
-   At each arrival or completion at the source one sample moves from the reservoir to the shorter of q_l^i and q_i^i,
    while that is under a limit.
-   γ is averaged over all of a source's tasks here, those computed whole included.

With ``literal`` the last worker's successor is the source, and a worker idles while an empty queue has the largest
term.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Final

from planner.plan.types import Route
from planner.policy.ar_mdi import ArMdi
from planner.policy.candidate_routes import whole_model_at_home
from planner.policy.types import Status, Task, View, Waiting

LOCAL: Final = "local"


class MsMdi(ArMdi):
    """Queue-driven choice between local computation and the ring; see the module.

    Parameters
    ----------
    reservoir_limit
        A queue at the source takes samples from the reservoir while it is shorter than this; the paper names no number.
    literal
        Whether equation (2) is taken as printed.
    """

    def __init__(self, *, reservoir_limit: int, literal: bool) -> None:
        super().__init__()
        self._limit = reservoir_limit
        self._literal = literal

    def route(self, view: View, source: str) -> Route | None:
        """Send the next sample of the reservoir to the shorter queue, while that is under the limit."""
        local, ring = view.queued.get((LOCAL, source), 0), view.queued.get(("ring", source), 0)
        if min(local, ring) >= self._limit:
            return None
        return whole_model_at_home(view.instance, source) if local <= ring else super().route(view, source)

    def queue(self, task: Task) -> Hashable:
        """Separate samples computed whole at their source from those that go round the ring."""
        whole = task.next_block == 0 and len(task.stages) == 1
        return (LOCAL if whole else "ring", task.key.source)

    def choose(self, view: View, heads: Mapping[Hashable, Waiting]) -> Hashable | None:
        """Serve the queue with the largest term of equation (2); among equals the one whose first task came first."""
        terms = {queue: self.pressure(view, queue, head) for queue, head in heads.items()}
        best = max(heads, key=lambda queue: (terms[queue], -heads[queue].since_s))
        return None if self._literal and terms[best] < self._largest_empty(view, heads) else best

    def pressure(self, view: View, queue: Hashable, head: Waiting) -> int:
        """Return the term of equation (2) of a non-empty queue."""
        length = view.queued[queue]
        kind, source = queue if isinstance(queue, tuple) else ("", "")
        if kind == LOCAL:
            return length
        if len(head.task.stages) > 1:
            return length - self._queued_at(view, head.task.stages[1].worker, source)
        return length - self._queued_at(view, view.instance.home(source), source) if self._literal else length

    def _largest_empty(self, view: View, heads: Mapping[Hashable, Waiting]) -> int:
        """Return the largest term of this worker's empty queues: 0 if local, minus the successor's length else."""
        specs = view.instance.scenario.sources
        ring = view.costs.ring(view.worker)
        after = ring[1 % len(ring)] if ring else view.worker
        terms = [0 for source, spec in specs.items() if spec.worker == view.worker and (LOCAL, source) not in heads]
        terms += [-self._queued_at(view, after, source) for source in specs if ("ring", source) not in heads]
        return max(terms, default=-len(heads))

    @staticmethod
    def _queued_at(view: View, worker: str, source: str) -> int:
        if worker == view.worker:
            return view.queued.get(("ring", source), 0)
        status = view.statuses.get(worker)
        return dict(status.queued).get(source, 0) if status is not None else 0

    def status(self, view: View) -> Status:
        """Return γ, and the length of each queue of samples that go round the ring."""
        queued = sorted((key[1], n) for key, n in view.queued.items() if isinstance(key, tuple) and key[0] == "ring")
        return Status(per_parameter_s=super().status(view).per_parameter_s, queued=tuple(queued))

    def listeners(self, view: View) -> Iterable[str]:
        """Return the worker before this one in the ring, and the homes of the sources."""
        before = view.costs.ring(view.worker)[-1:]
        return dict.fromkeys([*before, *super().listeners(view)])
