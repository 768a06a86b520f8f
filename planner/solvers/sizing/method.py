"""The cheapest fleet: a program over fleets proposes, the solvers of plans dispose.

The program over fleets (:mod:`planner.solvers.sizing.fleet_model`) gives the cheapest fleet that it cannot exclude,
and a lower bound. If a solver finds a plan on that fleet, it is optimal. If not, the fleet is excluded, with all
smaller ones, and the next one is tried. That none was found is a proof only where the solver proves the fleet
infeasible; where it does not, the bound stays where it is from then on. After the first failure, roomier fleets give a
first plan early.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from planner.errors import Fault, SolveError
from planner.plan.evaluate import sustained
from planner.plan.surrogate import UTILISATION_CAP
from planner.plan.types import PlanSpec, Status
from planner.plan.verify import relative_gap, verify
from planner.scenario.instance import Instance
from planner.solvers.core.interrupt import on_interrupt
from planner.solvers.core.search_state import Options, Progress
from planner.solvers.core.solution import Solution
from planner.solvers.sizing.fleet import Counts, Kind
from planner.solvers.solve import Routes, solve

ROOMS = (0.85, 0.7, 0.5, 0.35)
"""Factors on caps and deadlines that give ever roomier fleets, tried in turn until one has a plan."""
TRIAL_GAP = 0.05
"""Gap at which the plan of a trial is good enough: a trial asks whether there is one."""
TRIAL_FRACTION = 0.25
"""Largest fraction of the remaining time for a trial."""
PLAN_FRACTION = 0.2
"""Fraction of the time limit for the final plan."""
PRICE_TOLERANCE = 1e-9
"""Relative difference of prices that counts as none."""


@dataclass(frozen=True)
class FleetSolution:
    """Result of :func:`size`: the fleet and a plan on it, or the reasons why there is none.

    Parameters
    ----------
    counts
        Number of devices of each kind.
    price
        Price of all devices; infinite without a plan.
    bound
        Lower bound on the price of any fleet with a plan.
    """

    status: Status
    counts: dict[str, int] = field(default_factory=dict)
    price: float = float("inf")
    bound: float = 0.0
    plan: PlanSpec | None = None
    reasons: tuple[str, ...] = ()

    @property
    def gap(self) -> float:
        """Relative gap between price and bound."""
        return relative_gap(self.price, self.bound) if self.plan is not None else float("inf")


def size(
    fleet: Callable[[Counts], Instance],
    kinds: Sequence[Kind],
    *,
    method: str = "auto",
    routes: Routes | None = None,
    time_limit_s: float = 60.0,
    gap: float = 1e-4,
    seed: int = 0,
    threads: int = 1,
    progress: Progress | None = None,
) -> FleetSolution:
    """Find the cheapest devices with which all rates, deadlines and accuracies are met.

    Parameters
    ----------
    fleet
        Returns the scenario with some devices of each kind.
    method, routes, seed, threads
        As for :func:`planner.solvers.solve`, which makes the plans.
    gap
        Relative gap between price and bound that counts as optimal.
    progress
        Called repeatedly with the seconds since the start, the least price with a plan, and the lower bound.

    Raises
    ------
    SolveError
        The goal is ``makespan``, or a source has no rate.
    """
    widest = fleet({kind.name: 1 for kind in kinds})
    _check_rates(widest)
    options = Options(time_limit_s=time_limit_s, gap=gap, seed=seed, threads=threads, progress=progress)
    with on_interrupt(options.stop):
        return _Search(fleet, kinds, widest, options, method, routes).run()


def _check_rates(instance: Instance) -> None:
    goal = instance.scenario.objective.goal
    if goal == "makespan":
        raise SolveError(
            "a batch has no rate that devices could be sized for",
            where="objective.goal",
            value=goal,
            expected="delay, throughput or energy",
        )
    faults = [
        Fault("sizing needs the rate of every source", f"sources.{name}.rate", None, "a rate such as 5 /s")
        for name, source in instance.scenario.sources.items()
        if source.rate_per_s is None and name not in instance.traces
    ]
    if faults:
        raise SolveError(faults)


@dataclass
class _Search:
    """The search for the cheapest fleet."""

    fleet: Callable[[Counts], Instance]
    kinds: Sequence[Kind]
    widest: Instance
    options: Options
    method: str
    routes: Routes | None
    bound: float = 0.0
    proven: bool = True
    """Whether all excluded fleets are proven to have no plan."""
    best: tuple[float, dict[str, int], PlanSpec] | None = None
    reasons: tuple[str, ...] = ()
    started_s: float = field(default_factory=time.monotonic)

    @property
    def left_s(self) -> float:
        return max(0.01, self.options.time_limit_s - (time.monotonic() - self.started_s))

    @property
    def out_of_time(self) -> bool:
        search_s = (1 - PLAN_FRACTION) * self.options.time_limit_s
        return self.options.stop.is_set() or time.monotonic() - self.started_s >= search_s

    @property
    def price(self) -> float:
        return self.best[0] if self.best is not None else float("inf")

    def run(self) -> FleetSolution:
        from planner.solvers.sizing.fleet_model import FleetModel

        model = FleetModel(self.widest, self.kinds)
        finished = False
        while not self.out_of_time:
            proposed = model.cheapest(self.left_s, self.options)
            if proposed.end == "infeasible":
                finished = True
                if self.proven:
                    self.bound = self.price if self.best is not None else self.bound
                break
            self._raise_bound(proposed.bound)
            if proposed.counts is None or self._at_least(self.bound):
                finished = self._at_least(self.bound)
                break
            if proposed.end == "optimal" and self._price_of(proposed.counts) >= self.price * (1 - PRICE_TOLERANCE):
                finished = True
                break
            solution = self._try(proposed.counts)
            if solution.plan is None:
                self.proven = self.proven and solution.status == "infeasible"
                model.exclude(proposed.counts)
                if self.best is None:
                    self._try_roomier()
        return self._none(finished=finished) if self.best is None else self._result(*self.best)

    def _raise_bound(self, bound: float) -> None:
        if self.proven:
            self.bound = min(max(self.bound, bound), self.price)
        if self.options.progress is not None:
            self.options.progress(time.monotonic() - self.started_s, self.price, self.bound)

    def _at_least(self, bound: float) -> bool:
        """Return whether the best price is within the gap of a bound."""
        return self.best is not None and relative_gap(self.price, bound) <= self.options.gap

    def _price_of(self, counts: Counts) -> float:
        return sum(kind.price * counts[kind.name] for kind in self.kinds)

    def _try(self, counts: dict[str, int]) -> Solution:
        """Look for a plan on a fleet; keep it if it is the cheapest."""
        solution = self._solve(counts, min(self.left_s, max(TRIAL_FRACTION * self.left_s, 1.0)), TRIAL_GAP)
        price = self._price_of(counts)
        if solution.plan is not None and price < self.price:
            self.best = (price, counts, solution.plan)
            self._raise_bound(self.bound)
        return solution

    def _try_roomier(self) -> None:
        """Try roomier fleets until one has a plan; the largest at last."""
        from planner.solvers.sizing.fleet_model import FleetModel

        tried: list[dict[str, int]] = []
        for room in ROOMS:
            if self.out_of_time:
                return
            proposed = FleetModel(self.widest, self.kinds, room).cheapest(self.left_s, self.options)
            if proposed.counts is None or proposed.counts in tried:
                continue
            tried.append(proposed.counts)
            if self._try(proposed.counts).plan is not None:
                return
        most = {kind.name: kind.most for kind in self.kinds}
        if most not in tried and not self.out_of_time:
            self.reasons = self._try(most).reasons

    def _solve(self, counts: Counts, time_limit_s: float, gap: float, start: PlanSpec | None = None) -> Solution:
        """Return the solver's plan on a fleet, without one that cannot sustain all rates."""
        instance = self.fleet(counts)
        solution = solve(
            instance,
            method=self.method,
            routes=self.routes,
            time_limit_s=time_limit_s,
            gap=gap,
            seed=self.options.seed,
            threads=self.options.threads,
            start=start,
        )
        if solution.plan is None:
            return solution
        verify(instance, solution.plan)
        plan = solution.plan
        busy = {name: use.utilisation for name, use in plan.workers.items()}
        busy |= {name: use.utilisation for name, use in plan.networks.items()}
        share = sustained(instance, busy)
        if share < 1 - 1e-6:  # for the goal throughput: the others do not plan beyond the caps
            limited = min(instance.max_utilisation.values()) < 1
            proven = plan.bound > (1.0 if limited else UTILISATION_CAP) * (1 + 1e-6)
            reason = f"only {share:.1%} of all rates could be sustained"
            return Solution("infeasible" if proven else "no_solution", reasons=(reason,))
        return solution

    def _none(self, *, finished: bool) -> FleetSolution:
        """Return that there is no fleet with a plan; the reasons are those of the largest fleet."""
        if not self.reasons and (finished or not self.out_of_time):
            most = {kind.name: kind.most for kind in self.kinds}
            self.reasons = self._solve(most, max(self.left_s, 1.0), TRIAL_GAP).reasons
        if not self.reasons:
            self.reasons = (f"no devices were found in time; any that suffice cost at least {self.bound:g}",)
        status: Status = "infeasible" if finished and self.proven else "no_solution"
        return FleetSolution(status, bound=self.bound, reasons=self.reasons)

    def _result(self, price: float, counts: dict[str, int], plan: PlanSpec) -> FleetSolution:
        """Return the best fleet with a good plan on it."""
        if not self.options.stop.is_set() and plan.gap > self.options.gap:
            plan = self._solve(counts, self.left_s, self.options.gap, plan).plan or plan
        interrupted = self.options.stop.is_set()
        optimal = relative_gap(price, self.bound) <= self.options.gap
        status: Status = "optimal" if optimal else "interrupted" if interrupted else "feasible"
        return FleetSolution(status, counts, price, self.bound, plan)
