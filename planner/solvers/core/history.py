"""How objective and bound approached each other during a search."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Final

from planner.plan.types import SearchStep
from planner.solvers.core.search_state import Progress

MAX_STEPS: Final = 64
"""Maximum number of steps kept; of more, every second one is dropped."""


@dataclass
class History:
    """Records the best objective and the lower bound whenever one of them improves, and passes all reports on.

    Methods that run in turn count their time from their own starts; the record counts it from ``started_s``.

    Parameters
    ----------
    started_s
        Start of the search by :func:`time.monotonic`.
    progress
        Also called with each report.
    """

    started_s: float
    progress: Progress | None = None
    best: float = math.inf
    bound: float = 0.0
    steps: list[SearchStep] = field(default_factory=list)

    def __call__(self, elapsed_s: float, best: float, bound: float) -> None:
        """Receive a report of a search."""
        self.add(best, bound)
        if self.progress is not None:
            self.progress(elapsed_s, best, bound)

    def add(self, best: float, bound: float) -> None:
        """Record an objective (infinite without an incumbent) and a lower bound, if one of them is better.

        An infinite bound tells that some problem within the search has no solution, and is none of the whole.
        """
        bound = bound if math.isfinite(bound) else self.bound
        if best >= self.best and bound <= self.bound and self.steps:
            return
        self.best, self.bound = min(best, self.best), max(bound, self.bound)
        if len(self.steps) == MAX_STEPS:
            del self.steps[1::2]
        self.steps.append(
            (
                round(time.monotonic() - self.started_s, 4),
                self.best if math.isfinite(self.best) else None,
                self.bound,
            )
        )
