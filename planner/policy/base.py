"""What most policies share: routes known when a sample starts, one queue, first come first served, no gossip."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from math import inf

from planner.plan.types import PlanSpec, Route
from planner.policy.candidate_routes import whole_model_at_home
from planner.policy.types import Ask, Compute, Decision, Forward, Refuse, Status, Task, View, Waiting


class BasePolicy:
    """Every sample is computed where it arrives, first come, first served: the policy ``local``."""

    batches = False
    looks_between_blocks = False
    keeps_order = False
    gossips = False

    def priority(self, view: View, source: str) -> float:
        """Return the current priority of the source."""
        return view.priorities[source]

    def route(self, view: View, source: str) -> Route | Refuse | float | None:
        """Return the whole model at the source."""
        return whole_model_at_home(view.instance, source)

    def place(self, view: View, task: Task) -> Decision:
        """Compute the current stage if it is this worker's, else send the task to the worker it belongs to."""
        stage = task.stages[0]
        return Compute(stage.last_block) if stage.worker == view.worker else Forward(stage.worker)

    def settle(self, view: View, task: Task, ask: Ask, offers: Mapping[str, float]) -> Compute | Forward:  # noqa: ARG002
        """Compute here."""
        return Compute(ask.last_block)

    def queue(self, task: Task) -> Hashable:  # noqa: ARG002
        """Put all tasks into one queue."""
        return ""

    def rank(self, task: Task) -> float:  # noqa: ARG002
        """First come, first served."""
        return 0.0

    def choose(self, view: View, heads: Mapping[Hashable, Waiting]) -> Hashable | None:  # noqa: ARG002
        """Serve the only queue."""
        return next(iter(heads))

    def ran(self, view: View, done: Waiting) -> None:
        """Record nothing."""

    def replanned(self, view: View, plan: PlanSpec) -> None:
        """Follow no plan."""

    def status(self, view: View) -> Status:  # noqa: ARG002
        """Return a status that says nothing."""
        return Status()

    def listeners(self, view: View) -> Iterable[str]:  # noqa: ARG002
        """Return no listeners."""
        return ()

    def heard(self, view: View, status: Status) -> None:
        """Record nothing beyond the status itself."""


class PriorityPolicy(BasePolicy):
    """Serves by priority, first come first served within a class."""

    def queue(self, task: Task) -> Hashable:
        """Put each priority class into a queue of its own."""
        return task.priority

    def choose(self, view: View, heads: Mapping[Hashable, Waiting]) -> Hashable | None:  # noqa: ARG002
        """Serve the highest priority."""
        if len(heads) == 1:
            return next(iter(heads))
        best: Hashable | None = None
        highest = -inf
        for queue, head in heads.items():  # a loop, since ``max`` with a key takes twice as long, once a block
            if head.task.priority > highest:
                best, highest = queue, head.task.priority
        return best
