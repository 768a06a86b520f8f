"""Local search for ``throughput`` and ``makespan``: annealing towards targets between the bound and the incumbent."""

from __future__ import annotations

from random import Random

from planner.solvers.core.problem import Choices
from planner.solvers.core.search_state import Search
from planner.solvers.methods.local_search.annealing import Annealing
from planner.solvers.methods.local_search.peak_bound import PeakBound
from planner.solvers.methods.local_search.peak_tree import PeakTree
from planner.solvers.methods.local_search.recombination import Candidate, recombine

TARGETS = (0.3, 0.6, 0.9)
"""Targets of the runs in turn, as fractions of the way from the bound to the incumbent."""
DELAYS = (1.0, None, 2.0, 0.7)
"""Target delays for ``makespan`` in turn, as multiples of the longest unloaded delay so far; None is that of the best
shared routes in proportion."""
FIRST_RUNS = 1
"""Runs before the bound is raised: steps above a good incumbent would be in vain, and recombination slow."""
IDLE_PER_LENGTH, MAX_LENGTH = 3, 4
"""Runs in a row without a better incumbent after which runs get longer, and how many times as long at most."""
FIRST_RAISES = 4
"""Steps that raise the bound before the first target depends on it."""
RECOMBINED_RUNS = 3
"""Runs between two recombinations of all routes."""
MAX_IDLE_RUNS, MAX_IDLE_RUNS_BRIEF = 60, 6
"""Runs in a row without a better incumbent after which a search ends, and a brief one."""


class PeakSearch:
    """Anneals the best incumbent of a search, and raises the bound in between."""

    def __init__(self, search: Search) -> None:
        self.search, self.problem = search, search.problem
        self.random = Random(search.options.seed)  # noqa: S311  # not cryptographic, and faster than numpy's
        self.runs, self.idle = 0, 0
        self.routes: dict[Candidate, None] = {}
        """The routes of all plans that were annealed, in order, to be recombined."""
        self.delay_part = 0.0
        """The longest delay of the best shared routes, as a part of their objective; 0 if it is not known."""

    def anneal(self, choices: Choices, value: float) -> bool:
        """Anneal routes with this objective ``value`` towards a better one; return whether it was found."""
        search, problem = self.search, self.problem
        part = TARGETS[self.runs % len(TARGETS)]
        target = search.bound + part * (min(value, search.best) - search.bound)
        load, delay_s = target, float("inf")
        if problem.goal == "makespan":
            load, delay_s = self._split(choices, value, target)
        self.runs += 1
        times = min(1 + self.idle // IDLE_PER_LENGTH, MAX_LENGTH)
        annealing = Annealing(problem, choices, self.random)
        found = annealing.run(load, delay_s, times=times, stopped=lambda: search.out_of_time)
        if found is None:
            return False
        best = search.best
        self.routes.update(((source, choice), None) for source, (choice,) in enumerate(found))
        search.offer(found)
        search.report()
        self.idle = 0 if search.best < best else self.idle + 1
        return search.best < best

    def _split(self, choices: Choices, value: float, target: float) -> tuple[float, float]:
        """Return a load and a delay that add up to ``target``; delays around that of the routes take turns."""
        factor = DELAYS[self.runs // len(TARGETS) % len(DELAYS)]
        if factor is None and self.delay_part > 0:
            return target * (1 - self.delay_part), target * self.delay_part
        delay_s = value - float((self.problem.load(choices).sum(axis=0) / self.problem.usable).max())
        delay_s *= factor or 1.0
        delay_s = min(delay_s, target / 2) if delay_s < value / 2 else target * delay_s / value
        return target - delay_s, delay_s

    def improve(self, runs: int) -> None:
        """Anneal the best incumbent a number of times."""
        for _ in range(runs):
            if self._done or not self.search.incumbents:
                return
            self.anneal(*min(self.search.incumbents.items(), key=lambda known: known[1]))

    @property
    def _done(self) -> bool:
        return self.search.out_of_time or self.search.gap <= self.search.options.gap

    def recombine(self, bound: PeakBound) -> None:
        """Offer the best combination of the routes of all plans, of one and of several routes per source."""
        incumbents = (
            (source, choice) for choices in self.search.incumbents for source, (choice,) in enumerate(choices)
        )
        self.routes.update(dict.fromkeys(incumbents))
        if not (self.problem.memory_binds or self._done) and len(self.problem.demands) > 1:
            recombine(self.search, (*self.routes, *bound.routes))

    def search_on(self, bound: PeakBound) -> None:
        """Raise the bound and anneal in turn until the time limit, or until neither has helped for long."""
        self.delay_part = bound.delay_part
        self.recombine(bound)
        self.improve(FIRST_RUNS)
        raises = all(bound.raise_once() for _ in range(FIRST_RAISES))
        self.recombine(bound)
        tree, branches = PeakTree(self.search, bound), True
        idle, most = 0, MAX_IDLE_RUNS_BRIEF if self.search.options.brief else MAX_IDLE_RUNS
        while not self._done and self.search.incumbents and (idle < most or (branches and tree.helps)):
            raises = raises and bound.raise_once()
            branches = raises or (branches and tree.step())
            best = self.search.best
            if idle < most:
                self.improve(1)
            if self.runs % RECOMBINED_RUNS == 0 and idle < most:
                self.recombine(bound)
            if self.search.best < best:
                idle, raises, branches = 0, True, True
            else:
                idle += 1
