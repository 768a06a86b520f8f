"""What every method gives back, and what it is asked for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from planner.plan.types import Status
from planner.plan.verify import relative_gap
from planner.solvers.core.problem import Choices, Problem
from planner.solvers.core.resource_prices import Prices

Progress = Callable[[float, float, float], None]
"""Called with the seconds since the start, the best objective and the bound so far."""


@dataclass(frozen=True)
class Options:
    """How to solve.

    ``gap`` is the relative gap that counts as optimal, ``start`` are routes known beforehand, and ``stop`` ends a
    search from outside.
    """

    time_limit_s: float = 60.0
    gap: float = 1e-4
    seed: int = 0
    threads: int = 1
    start: tuple[Choices, ...] = ()
    progress: Progress | None = None
    stop: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True)
class Outcome:
    """Result of a method: incumbents in any order, the bound on the surrogate objective, and why there is none.

    Methods whose problem is convex give the ``prices`` of its optimum, too.
    """

    status: Status
    incumbents: tuple[Choices, ...] = ()
    bound: float = 0.0
    blame: tuple[str, ...] = ()
    prices: Prices | None = None


@dataclass
class Search:
    """What a running method has found: its clock, its distinct feasible incumbents and its best bound."""

    problem: Problem
    options: Options
    bound: float = 0.0
    incumbents: dict[Choices, float] = field(default_factory=dict)
    started_s: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        for choices in self.options.start:
            self.offer(choices)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the search began."""
        return time.monotonic() - self.started_s

    @property
    def left_s(self) -> float:
        """Seconds left, at least a little, so that a solver started with them can stop by itself."""
        return max(0.01, self.options.time_limit_s - self.elapsed_s)

    @property
    def out_of_time(self) -> bool:
        """Whether the time limit has passed, or someone wants an end."""
        return self.options.stop.is_set() or self.elapsed_s >= self.options.time_limit_s

    @property
    def best(self) -> float:
        """Objective of the best incumbent; infinite without one."""
        return min(self.incumbents.values(), default=float("inf"))

    @property
    def gap(self) -> float:
        """Relative gap of the best incumbent; infinite without one."""
        return relative_gap(self.best, self.bound) if self.incumbents else float("inf")

    def offer(self, choices: Choices) -> None:
        """Take an incumbent if it is feasible."""
        if choices in self.incumbents:
            return
        objective = self.problem.objective(choices)
        if objective < float("inf") and self.problem.feasible(choices):
            self.incumbents[choices] = objective

    def raise_bound(self, bound: float) -> None:
        """Take a bound if it is better, and report progress."""
        self.bound = max(self.bound, bound)
        self.report()

    def report(self) -> None:
        """Tell whoever wants to know how far it is."""
        if self.options.progress:
            self.options.progress(self.elapsed_s, self.best, self.bound)

    def outcome(self) -> Outcome:
        """Give the result as it stands."""
        interrupted = self.options.stop.is_set()
        if not self.incumbents:
            status: Status = "no_solution"
        elif self.gap <= self.options.gap:
            status = "optimal"
        else:
            status = "interrupted" if interrupted else "feasible"
        return Outcome(status, tuple(self.incumbents), min(self.bound, self.best))
