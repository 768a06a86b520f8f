"""Many cases of one target, drawn by hypothesis; all of their defects, each with its smallest case."""

from __future__ import annotations

import time
from collections import Counter
from math import inf
from typing import Any, Final

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded

from tests.fuzz.judge import Defect, Target, TooSlowError, judge

_BATCH: Final = 500
"""Cases of one search: hypothesis remembers all of a search, which takes memory."""


class Campaign:
    """Cases of one target, and what they showed."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.done = 0
        self.accepted = 0
        """Number of cases that are valid input after all."""
        self.defects: dict[str, tuple[Any, Defect]] = {}
        """Defects by their places, each with the shortest case that showed it."""
        self.counts = Counter[str]()
        self._until_s = inf

    def run(self, cases: int, seed: int | None, longest_s: float = inf) -> None:
        """Run about this many cases: hypothesis may draw fewer if it finds no more.

        Parameters
        ----------
        seed
            For the same cases again; None for new ones.
        longest_s
            Time after which no further case is run.
        """
        end, batch = self.done + cases, 0
        self._until_s = time.monotonic() + longest_s
        while self.done < end and batch < 2 + 2 * cases / _BATCH and time.monotonic() < self._until_s:
            search = settings(
                max_examples=min(_BATCH, end - self.done),
                database=None,
                deadline=None,
                phases=[Phase.generate],
                derandomize=False,
                suppress_health_check=list(HealthCheck),
            )
            drawn = search(given(self.target.cases)(self.examine))
            (drawn if seed is None else seeded(seed + batch)(drawn))()
            batch += 1
        self.target.finish()

    def examine(self, case: Any) -> None:
        """Judge one case."""
        if time.monotonic() >= self._until_s:
            return
        self.done += 1
        verdict = judge(self.target, case)
        if verdict.defect is not None and verdict.defect.where.startswith(TooSlowError.__name__):
            verdict = judge(self.target, case)  # the first one imports libraries
        self.accepted += verdict.accepted
        defect = verdict.defect
        if defect is not None:
            self.counts[defect.where] += 1
            shortest = self.defects.get(defect.where)
            if shortest is None or len(str(case)) < len(str(shortest[0])):
                self.defects[defect.where] = case, defect
