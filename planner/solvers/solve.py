"""The one place where methods, ranking and plans meet: an instance in, a plan with its proven gap out."""

from __future__ import annotations

import dataclasses
import importlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, get_args

import numpy as np

from planner.errors import SolveError
from planner.plan.evaluate import Evaluation, evaluate
from planner.plan.types import PlanSpec, Status
from planner.plan.verify import relative_gap
from planner.scenario.instance import Instance
from planner.solvers.core.build import build_problem, read_routes
from planner.solvers.core.infeasibility import late
from planner.solvers.core.interrupt import on_interrupt
from planner.solvers.core.problem import Choice, Choices, Problem
from planner.solvers.core.search_state import Options, Outcome, Progress
from planner.solvers.methods import bottleneck_dp as dp
from planner.solvers.routes.greedy import completed

MILP_ARCS = 8000
"""From about so many arcs on, ``search`` has a better plan and a better bound than the MILP after the same time."""
EVALUATED = 6
"""So many incumbents, the best by their surrogate objective, are evaluated and ranked."""
TIGHTENINGS = 4
"""So often a plan that queueing makes late is solved again with less time for pure work."""

Rank = Literal["evaluated", "surrogate"]
Routes = Literal["single", "shared"]


class Method(NamedTuple):
    """Where a method is: module under ``planner.solvers``, function, and what routes it finds."""

    module: str
    function: str
    routes: tuple[Routes, ...]


METHODS: Final = {
    "convex": Method("convex", "solve", ("shared",)),
    "milp": Method("mip.method", "solve", ("single",)),
    "colgen": Method("column_generation.method", "solve", ("shared",)),
    "search": Method("local_search.method", "solve", ("single",)),
    "dp": Method("bottleneck_dp", "solve", ("single",)),
    "exhaustive": Method("exhaustive", "solve", ("single",)),
    "local": Method("baselines", "local", ("single",)),
    "two-part": Method("baselines", "two_part", ("single",)),
    "equal": Method("baselines", "equal", ("single",)),
    "ar-mdi": Method("baselines", "ar_mdi", ("single",)),
}
"""All methods; a module is imported, with its solver library, when its method is asked for."""


@dataclass(frozen=True)
class Solution:
    """Answer of :func:`solve`: a plan, or in words why there is none."""

    status: Status
    plan: PlanSpec | None = None
    blame: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Candidate:
    """An incumbent, evaluated, and the deadlines that its queueing makes it miss, in seconds by source."""

    choices: Choices
    evaluation: Evaluation
    late: dict[str, float]

    def misses(self) -> tuple[str, ...]:
        """Say so in words."""
        return tuple(
            late(name, self.evaluation.sources[name].delay_s, deadline_s) for name, deadline_s in self.late.items()
        )


def solve(
    instance: Instance,
    *,
    method: str = "auto",
    routes: Routes | None = None,
    time_limit_s: float = 60.0,
    gap: float = 1e-4,
    rank: Rank = "evaluated",
    seed: int = 0,
    threads: int = 1,
    max_visits: int | None = None,
    pins: Mapping[str, Mapping[int, str]] | None = None,
    start: PlanSpec | None = None,
    progress: Progress | None = None,
) -> Solution:
    """Find routes for every source of ``instance``.

    Parameters
    ----------
    method
        One of :data:`METHODS`, or ``auto``.
    routes
        One route a source (``single``), or samples ``shared`` among several; by default what the method does, and
        ``single`` for ``auto``.
    gap
        Relative gap between surrogate objective and bound that counts as optimal.
    rank
        Which incumbent to return: the one with the best evaluated delays, or the one with the best objective.
    max_visits
        How often a sample may begin a stage at one worker; unlimited by default.
    pins
        By source, the worker that must run each block, by number.
    start
        An earlier plan, of this scenario or one like it: those of its routes that still exist are tried first.
    progress
        Called now and then with seconds, best objective and bound.

    Raises
    ------
    SolveError
        The method is unknown, or cannot do what was asked.
    PlanError
        The goal ``delay`` misses a rate.
    """
    started_s = time.monotonic()
    check_rank(rank)
    problem = build_problem(instance, max_visits=max_visits, pins=pins)
    name = _method(problem, method, routes)
    known = read_routes(problem, {name: own.routes for name, own in start.sources.items()}) if start else ()
    options = Options(
        time_limit_s=time_limit_s,
        gap=gap,
        seed=seed,
        threads=threads,
        start=(completed(problem, known),) if any(known) else (),
        progress=progress,
    )
    method_solve = load_method(name)
    with on_interrupt(options.stop):
        outcome = method_solve(problem, options)
        best = _best(instance, problem, outcome, rank)
        if best is None:
            return Solution(outcome.status, blame=outcome.blame)
        best = _in_time(
            instance,
            problem,
            best,
            rank=rank,
            method_solve=method_solve,
            options=options,
            end_s=started_s + time_limit_s,
        )
    if best.late:
        return Solution("no_solution", blame=best.misses())
    wishes = {
        "method": method,
        "routes": routes,
        "time_limit_s": time_limit_s,
        "gap": gap,
        "rank": rank,
        "seed": seed,
        "threads": threads,
        "max_visits": max_visits,
        "pins": {source: dict(workers) for source, workers in (pins or {}).items()},
    }
    plan = _plan(instance, name, best.evaluation, outcome, wishes, solve_s=time.monotonic() - started_s)
    return Solution(plan.status, plan)


def _plan(
    instance: Instance, method: str, evaluation: Evaluation, outcome: Outcome, wishes: dict[str, Any], *, solve_s: float
) -> PlanSpec:
    """Write the evaluated routes as a plan, with the gap to the bound of a method's ``outcome``."""
    reached = relative_gap(evaluation.objective, outcome.bound)
    unproven: Status = "interrupted" if outcome.status == "interrupted" else "feasible"
    return PlanSpec(
        chains={
            route.model: instance.any_profile(route.model).chain_sha256
            for own in evaluation.sources.values()
            for route in own.routes
        },
        options=wishes,
        status="optimal" if reached <= wishes["gap"] else unproven,
        method=method,
        goal=instance.scenario.objective.goal,
        objective=evaluation.objective,
        bound=min(outcome.bound, evaluation.objective),
        gap=reached,
        solve_s=solve_s,
        provenance="estimated" if instance.provenance == "estimated" else "measured",
        sources=evaluation.sources,
        workers=evaluation.workers,
        networks=evaluation.networks,
    )


def check_rank(rank: str) -> None:
    """Check the name of a ranking.

    Raises
    ------
    SolveError
        It is none of :data:`Rank`.
    """
    if rank not in get_args(Rank):
        raise SolveError("unknown ranking", where="rank", value=rank, expected=" or ".join(get_args(Rank)))


def load_method(name: str) -> Callable[[Problem, Options], Outcome]:
    """Import a method's module, and with it its solver library."""
    module = importlib.import_module(f"planner.solvers.methods.{METHODS[name].module}")
    method: Callable[[Problem, Options], Outcome] = getattr(module, METHODS[name].function)
    return method


def _in_time(
    instance: Instance,
    problem: Problem,
    best: _Candidate,
    *,
    rank: Rank,
    method_solve: Callable[[Problem, Options], Outcome],
    options: Options,
    end_s: float,
) -> _Candidate:
    """Solve again while queueing makes sources miss their deadlines, with less time for their pure work."""
    for _ in range(TIGHTENINGS):
        left_s = end_s - time.monotonic()
        if not best.late or left_s <= 0 or options.stop.is_set():
            break
        problem = _tighten(problem, best)
        again = _best(instance, problem, method_solve(problem, dataclasses.replace(options, time_limit_s=left_s)), rank)
        if again is None:
            break
        best = min(best, again, key=lambda candidate: len(candidate.late))
    return best


def _method(problem: Problem, method: str, routes: Routes | None) -> str:
    """Give the name of the method to use, ``auto`` picked."""
    if method != "auto" and method not in METHODS:
        raise SolveError("unknown method", where="method", value=method, expected=f"auto, {', '.join(METHODS)}")
    if routes not in {None, "single", "shared"}:
        raise SolveError("unknown kind of routes", where="routes", value=routes, expected="single or shared")
    if method == "auto":
        if routes == "shared":
            return "colgen"
        if not dp.misfits(problem):
            return "dp"
        return "search" if not problem.memory_binds and problem.arcs > MILP_ARCS else "milp"
    if routes is not None and routes not in METHODS[method].routes:
        fitting = ", ".join(name for name, found in METHODS.items() if routes in found.routes)
        raise SolveError(f"{method} does not find {routes} routes", where="method", value=method, expected=fitting)
    return method


def _best(instance: Instance, problem: Problem, outcome: Outcome, rank: Rank) -> _Candidate | None:
    """Give the incumbent that misses the fewest deadlines, and of these the one that ranks best."""
    foremost = sorted(outcome.incumbents, key=problem.objective)[:EVALUATED]
    candidates = [_candidate(instance, problem, _homeward(problem, choices)) for choices in foremost]
    return min(candidates, key=lambda candidate: (len(candidate.late), *_rank(instance, candidate, rank)), default=None)


def _homeward(problem: Problem, choices: Choices) -> Choices:
    """Put blocks that no sample reaches, which are as good anywhere, where the samples arrive, if they fit there."""
    homeward = []
    for own, demand in zip(choices, problem.demands, strict=True):
        share: dict[tuple[int, tuple[int, ...]], float] = {}
        for choice in own:
            reached = problem.variants[choice.variant].reach[:-1] > 0
            workers = tuple(np.where(reached, choice.workers, demand.home).tolist())
            share[choice.variant, workers] = share.get((choice.variant, workers), 0.0) + choice.share
        homeward.append(tuple(Choice(*route, part) for route, part in share.items()))
    moved = tuple(homeward)
    return moved if moved == choices or problem.feasible(moved) else choices


def _candidate(instance: Instance, problem: Problem, choices: Choices) -> _Candidate:
    evaluation = evaluate(instance, problem.routes(choices))
    deadlines = {name: spec.deadline_s for name, spec in instance.scenario.sources.items()}
    late = {
        name: deadline_s
        for name, deadline_s in deadlines.items()
        if deadline_s is not None and evaluation.sources[name].delay_s > deadline_s
    }
    return _Candidate(choices, evaluation, late)


def _tighten(problem: Problem, best: _Candidate) -> Problem:
    """Leave the sources that come late less for pure work and transfers, by as much as they are late."""
    return dataclasses.replace(
        problem,
        demands=tuple(
            dataclasses.replace(
                demand,
                deadline_s=min(demand.deadline_s, _unloaded_s(problem, source, best))
                * (best.late[demand.name] / best.evaluation.sources[demand.name].delay_s),
            )
            if demand.name in best.late
            else demand
            for source, demand in enumerate(problem.demands)
        ),
    )


def _unloaded_s(problem: Problem, source: int, best: _Candidate) -> float:
    return sum(choice.share * problem.cost(source, choice).unloaded_s for choice in best.choices[source])


def _rank(instance: Instance, candidate: _Candidate, rank: Rank) -> tuple[float, float]:
    objective, delay = candidate.evaluation.objective, candidate.evaluation.weighted_delay_s
    by_delay = rank == "evaluated" and instance.scenario.objective.goal == "delay"
    return (delay, objective) if by_delay else (objective, delay)
