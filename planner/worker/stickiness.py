"""What was decided for each sequence of a model with state, so that its later runs find the state where it is.

The first run of a sequence is decided by the policy as any other sample. Its home remembers the route, and each worker
what it did with the task at which block; later runs do the same again, whatever the policy would choose by then. So
every policy can run such models. A decision that cannot be followed any more, because a worker has left or a hop is
broken, is forgotten, and the policy decides anew. Where a new plan lacks a sequence's route, or the route is broken,
its home weighs what is to become of it (:mod:`planner.policy.state_moves`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

from planner.plan.types import Route, Stage
from planner.policy.types import Compute, Forward, Task

MAX_SEQUENCES: Final = 1024
"""Number of sequences that a worker remembers; of more, those that were continued last."""


class SequenceRoutes:
    """The last routes of sequences, shared by the runs of an agent: a plan may replace another in their midst."""

    def __init__(self) -> None:
        self._routes: OrderedDict[tuple[str, int], Route] = OrderedDict()

    def get(self, source: str, sequence: int) -> Route | None:
        """Return the route of a sequence; None if none is known."""
        return self._routes.get((source, sequence))

    def pop(self, source: str, sequence: int) -> Route | None:
        """Return the route of a sequence, and forget it."""
        return self._routes.pop((source, sequence), None)

    def put(self, source: str, sequence: int, route: Route) -> None:
        """Keep the route of a sequence."""
        self._routes[source, sequence] = route
        self._routes.move_to_end((source, sequence))
        while len(self._routes) > MAX_SEQUENCES:
            self._routes.popitem(last=False)


@dataclass(slots=True)
class _Decided:
    route: Route | None = None
    state_at: tuple[Stage, ...] = ()
    """Stages of the route before, until a run on this one has ended."""
    tasks: dict[tuple[int, tuple[Stage, ...]], Compute | Forward] = field(default_factory=dict)
    """What was done with a task, by its next block and the stages ahead."""


class Stickiness:
    """The decisions of one worker about the sequences that it sees.

    Parameters
    ----------
    routes
        Those of sequences that other runs may have begun.
    """

    def __init__(self, routes: SequenceRoutes | None = None) -> None:
        self._routes = routes or SequenceRoutes()
        self._decided: OrderedDict[tuple[str, int], _Decided] = OrderedDict()
        self._fed_back: dict[str, frozenset[tuple[Stage, ...]]] = {}
        """By source, the stages of routes of the last plan whose last worker begins the next run."""

    def route(self, source: str, sequence: int | None) -> Route | None:
        """Return the route of a sequence of this worker's own that stands; None if it has none yet."""
        decided = self._decided.get((source, sequence)) if sequence is not None else None
        return decided.route if decided is not None else None

    def last_route(self, source: str, sequence: int | None) -> Route | None:
        """Return the route that a sequence took last, on which its state is; None before its first run."""
        return self._routes.get(source, sequence) if sequence is not None else None

    def state_at(self, source: str, sequence: int | None) -> tuple[Stage, ...]:
        """Return the stages from which the state of a sequence is to be fetched; empty if it is on its route."""
        decided = self._decided.get((source, sequence)) if sequence is not None else None
        return decided.state_at if decided is not None else ()

    def take_route(self, source: str, sequence: int | None, route: Route) -> None:
        """Keep the route on which a run of a sequence has started."""
        if sequence is not None:
            self._of(source, sequence).route = route
            self._routes.put(source, sequence, route)

    def move(self, source: str, sequence: int | None, stages: tuple[Stage, ...]) -> None:
        """Let the next run of a sequence fetch its state from these stages."""
        if sequence is not None:
            self._of(source, sequence).state_at = stages

    def moved(self, source: str, sequence: int | None) -> None:
        """Take note that a run of a sequence has ended, so that its state is on its route."""
        if sequence is not None:
            self._of(source, sequence).state_at = ()

    def keep_routes(self, source: str, routes: Collection[Route]) -> None:
        """Let the routes of a source's sequences stand no longer, except those on the stages of some of these."""
        kept = {(route.model, route.operating_point, route.stages): route for route in routes}
        self._fed_back[source] = frozenset(route.stages for route in routes if route.loop == "last")
        for (name, _), decided in self._decided.items():
            route = decided.route
            if name == source and route:
                decided.route = kept.get((route.model, route.operating_point, route.stages))

    def stands(self, source: str, sequence: int, stages: tuple[Stage, ...]) -> bool:
        """Return whether the worker of the last block may begin the next run of a sequence that has not ended."""
        fed_back = self._fed_back.get(source)
        return (source, sequence) in self._decided and (fed_back is None or stages in fed_back)

    def forget(self, source: str, sequence: int) -> frozenset[str]:
        """Forget a sequence that has ended; return the workers to which its tasks went, as far as is known here."""
        route, decided = self._routes.pop(source, sequence), self._decided.pop((source, sequence), None)
        done = decided.tasks.values() if decided is not None else ()
        sent = frozenset(decision.worker for decision in done if isinstance(decision, Forward))
        return sent if route is None else sent | route.workers

    def decision(self, task: Task) -> Compute | Forward | None:
        """Return what was done with the same task of an earlier run of its sequence; None if there was none."""
        decided = self._decided.get((task.key.source, task.sequence)) if task.sequence is not None else None
        return decided.tasks.get((task.next_block, task.stages)) if decided is not None else None

    def take_decision(self, task: Task, decision: Compute | Forward) -> None:
        """Keep what is done with a task of a sequence."""
        if task.sequence is not None:
            self._of(task.key.source, task.sequence).tasks[task.next_block, task.stages] = decision

    def _of(self, source: str, sequence: int) -> _Decided:
        decided = self._decided.setdefault((source, sequence), _Decided())
        self._decided.move_to_end((source, sequence))
        while len(self._decided) > MAX_SEQUENCES:
            self._decided.popitem(last=False)
        return decided
