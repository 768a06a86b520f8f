"""``ddi``: data-distributed inference: the whole model at every worker, each sample to where it is done first."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Final

from planner.plan.types import Route, Stage
from planner.policy.base import BasePolicy
from planner.policy.types import Status, View

QUANTUM_S: Final = 1e-3
"""A backlog is told when it has changed by this much."""


class Ddi(BasePolicy):
    """Each sample goes to the worker with the shortest expected completion: transfer, backlog there, whole model.

    A source knows another worker's backlog from its last status, and adds what it has sent there since.
    """

    gossips = True

    def __init__(self) -> None:
        self._sent_s: dict[str, float] = defaultdict(float)
        self._known: dict[str, int | None] = {}

    def route(self, view: View, source: str) -> Route | None:
        """Return the whole model at the worker that is expected to return the result first."""
        spec = view.instance.scenario.sources[source]
        model = spec.models[0]
        best = min(
            view.present(view.instance.workers), key=lambda worker: self.completion_s(view, model, worker, spec.worker)
        )
        last = view.costs.length(model) - 1
        if best != view.worker:
            self._sent_s[best] += view.costs.stage_s(model, best, 0, last)
        return Route(model=model, stages=(Stage(worker=best, first_block=0, last_block=last),))

    def completion_s(self, view: View, model: str, worker: str, home: str) -> float:
        """Return the expected time until the result of a new sample is back from a worker, in seconds."""
        sizes = view.costs.cut_bytes[model]
        there_s = view.costs.transfer_s(home, worker, sizes[0])
        back_s = view.costs.transfer_s(worker, home, sizes[-1])
        work_s = view.costs.stage_s(model, worker, 0, view.costs.length(model) - 1)
        return max(there_s, self._backlog_s(view, worker)) + work_s + back_s

    def _backlog_s(self, view: View, worker: str) -> float:
        if worker == view.worker:
            return view.ahead_s(0.0)
        number = view.status_numbers.get(worker)
        if self._known.get(worker) != number:
            self._known[worker] = number
            self._sent_s[worker] = 0.0
        status = view.statuses.get(worker)
        told_s = sum([backlog_s for _, backlog_s in status.backlog_s], 0.0) if status is not None else 0.0
        return told_s + self._sent_s[worker]

    def status(self, view: View) -> Status:
        """Return the backlog."""
        return Status(backlog_s=((0.0, round(view.ahead_s(0.0) / QUANTUM_S) * QUANTUM_S),))

    def listeners(self, view: View) -> Iterable[str]:
        """Return the homes of the sources."""
        return dict.fromkeys(spec.worker for spec in view.instance.scenario.sources.values())
