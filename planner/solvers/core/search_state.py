"""The state of a search: options, incumbents, lower bound and optimality gap, and the outcome of a method."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from planner.plan.types import Status
from planner.plan.verify import relative_gap
from planner.solvers.core.deadline import Deadline
from planner.solvers.core.problem import Choice, Choices, Problem
from planner.solvers.core.resource_prices import Prices

Progress = Callable[[float, float, float], None]
"""Called with the seconds since the start, the best objective and the lower bound so far."""


class Pool(Protocol):
    """Prices routes in parallel, see :mod:`planner.solvers.routes.pool`."""

    def cheapest_routes(
        self, problem: Problem, prices: Prices, near: Mapping[int, Choice]
    ) -> list[tuple[float, Choice]]:
        """Return each source's cheapest route and its price, given routes that may be ``near`` the cheapest."""
        ...


@dataclass(frozen=True)
class Options:
    """Options of a method.

    Parameters
    ----------
    time_limit_s
        Seconds from the construction of these options until the search ends; unlimited by default.
    gap
        Relative optimality gap that counts as optimal.
    start
        Routes to start from (warm start).
    known
        Further routes than which the outcome is never worse, such as those of simple rules.
    brief
        End a local search early, because another method follows.
    threshold
        End as soon as an incumbent has at most this objective, or the bound is above it.
    deadline
        When the search ends. A replaced ``time_limit_s`` can bring it forward, but not delay it.
    pool
        Prices the routes of many sources in parallel.
    """

    time_limit_s: float = float("inf")
    gap: float = 1e-4
    seed: int = 0
    threads: int = 1
    start: tuple[Choices, ...] = ()
    known: tuple[Choices, ...] = ()
    progress: Progress | None = None
    brief: bool = False
    threshold: float | None = None
    deadline: Deadline = field(default_factory=Deadline)
    pool: Pool | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "deadline", self.deadline.within(self.time_limit_s))

    @property
    def stop(self) -> threading.Event:
        """Ends a search from outside, with its best incumbent."""
        return self.deadline.stop

    @property
    def left_s(self) -> float:
        """Seconds left; always positive, so that a solver started with this time limit can stop by itself."""
        return max(0.01, self.deadline.left_s)


@dataclass(frozen=True)
class Outcome:
    """Result of a method.

    Parameters
    ----------
    incumbents
        Feasible routes, in any order.
    bound
        Lower bound on the surrogate objective.
    reasons
        Why there is no incumbent, in words.
    prices
        Shadow prices at the optimum, by methods that solve a convex problem.
    """

    status: Status
    incumbents: tuple[Choices, ...] = ()
    bound: float = 0.0
    reasons: tuple[str, ...] = ()
    prices: Prices | None = None


@dataclass
class Search:
    """A running search: its clock, its distinct feasible incumbents and its best lower bound."""

    problem: Problem
    options: Options
    bound: float = 0.0
    incumbents: dict[Choices, float] = field(default_factory=dict)
    started_s: float = field(init=False)

    def __post_init__(self) -> None:
        self.started_s = self.options.deadline.now_s()
        for choices in (*self.options.start, *self.options.known):
            self.offer(choices)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the search began."""
        return self.options.deadline.now_s() - self.started_s

    @property
    def left_s(self) -> float:
        """Seconds left; always positive, so that a solver started with this time limit can stop by itself."""
        return self.options.left_s

    @property
    def out_of_time(self) -> bool:
        """Whether the time limit has passed or a stop was requested."""
        return self.options.deadline.passed

    @property
    def best(self) -> float:
        """Objective of the best incumbent; infinite without one."""
        return min(self.incumbents.values(), default=float("inf"))

    @property
    def ends(self) -> bool:
        """Whether the gap is closed, the threshold is decided or the time is over."""
        options, most = self.options, self.options.threshold
        decided = most is not None and (self.bound > most or self.best <= most)
        return decided or self.gap <= options.gap or self.out_of_time

    @property
    def gap(self) -> float:
        """Relative optimality gap of the best incumbent; infinite without one."""
        return relative_gap(self.best, self.bound) if self.incumbents else float("inf")

    def offer(self, choices: Choices) -> None:
        """Add an incumbent if it is feasible; where a source has no route, it is none."""
        if choices in self.incumbents or not all(choices):
            return
        objective = self.problem.objective(choices)
        if objective < float("inf") and self.problem.feasible(choices):
            self.incumbents[choices] = objective

    def raise_bound(self, bound: float) -> None:
        """Raise the lower bound if the new one is better, and report progress."""
        self.bound = max(self.bound, bound)
        self.report()

    def report(self) -> None:
        """Report progress to the callback, if there is one."""
        if self.options.progress:
            self.options.progress(self.elapsed_s, self.best, self.bound)

    def outcome(self) -> Outcome:
        """Return the result so far."""
        interrupted = self.options.stop.is_set()
        if not self.incumbents:
            status: Status = "no_solution"
        elif self.gap <= self.options.gap:
            status = "optimal"
        else:
            status = "interrupted" if interrupted else "feasible"
        return Outcome(status, tuple(self.incumbents), min(self.bound, self.best))
