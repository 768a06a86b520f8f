"""Solve an instance: choose the method, rank its incumbents by evaluated delay, and return a plan with its gap."""

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
from planner.plan.journey import Journeys
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
from planner.solvers.routes.pool import pricing_pool

MILP_MAX_ARCS = 8000
"""With more arcs ``search`` finds a better plan and a better bound than the MILP in the same time."""
MAX_EVALUATED = 6
"""Maximum number of incumbents that are evaluated and ranked, those with the best surrogate objective."""
MAX_TIGHTENINGS = 4
"""Maximum number of times that deadlines are tightened because queueing makes a plan late."""

Rank = Literal["evaluated", "surrogate"]
Routes = Literal["single", "shared"]


class Method(NamedTuple):
    """Where a method is: module under ``planner.solvers.methods``, function, and the kinds of routes it finds."""

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
"""All methods; the module of a method is imported, with its solver library, when the method is used."""
POOLED: Final = "colgen"
"""The method that prices many sources in parallel."""


@dataclass(frozen=True)
class Solution:
    """Result of :func:`solve`: a plan, or the reasons in words why there is none."""

    status: Status
    plan: PlanSpec | None = None
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Candidate:
    """An evaluated incumbent, and the deadlines in seconds that it misses because of queueing, by source."""

    choices: Choices
    evaluation: Evaluation
    late: dict[str, float]

    def missed_deadlines(self) -> tuple[str, ...]:
        """Return one sentence per missed deadline."""
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
    dask: str | None = None,
    progress: Progress | None = None,
) -> Solution:
    """Find routes for every source of ``instance``.

    Parameters
    ----------
    method
        One of :data:`METHODS`, or ``auto``.
    routes
        ``single``: one route per source; ``shared``: the samples of a source may be shared among several. By default
        what the method finds, and ``single`` for ``auto``.
    gap
        Relative optimality gap between surrogate objective and lower bound that counts as optimal.
    rank
        Which incumbent to return: the one with the best evaluated delays, or the one with the best surrogate objective.
    max_visits
        How many stages of one sample a worker may run; unlimited by default.
    pins
        By source, the worker that must run each block, by index.
    start
        An earlier plan of this or a similar scenario, used as a warm start: routes that no longer exist are ignored.
    dask
        Address of the scheduler of a Dask cluster on which ``colgen`` generates routes.
    progress
        Called repeatedly with the seconds since the start, the best objective and the lower bound.

    Raises
    ------
    SolveError
        The method is unknown, or does not support the other options.
    PlanError
        The goal is ``delay`` and a source has no rate.
    """
    started_s = time.monotonic()
    check_rank(rank)
    ordered = instance.in_order_of_names()
    problem = build_problem(ordered, max_visits=max_visits, pins=pins)
    name = _method(problem, method, routes)
    if dask is not None and name != POOLED:
        raise SolveError("only one method runs on a Dask cluster", where="dask", value=name, expected=POOLED)
    known = read_routes(problem, {source: spec.routes for source, spec in start.sources.items()}) if start else ()
    options = Options(
        time_limit_s=time_limit_s,
        gap=gap,
        seed=seed,
        threads=threads,
        start=(completed(problem, known),) if any(known) else (),
        progress=progress,
    )
    method_solve = load_method(name)
    with on_interrupt(options.stop), pricing_pool(threads, dask) as pool:
        options = dataclasses.replace(options, pool=pool)
        outcome = method_solve(problem, options)
        best = _best(ordered, problem, outcome, rank)
        if best is None:
            return Solution(outcome.status, reasons=outcome.reasons)
        best = _meet_deadlines(
            ordered,
            problem,
            best,
            rank=rank,
            method_solve=method_solve,
            options=options,
            end_s=started_s + time_limit_s,
        )
    if best.late:
        return Solution("no_solution", reasons=best.missed_deadlines())
    used_options = {
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
    plan = _plan(
        instance,
        name,
        _in_order(instance, best.evaluation),
        outcome,
        used_options,
        solve_s=time.monotonic() - started_s,
    )
    return Solution(plan.status, plan)


def _plan(
    instance: Instance,
    method: str,
    evaluation: Evaluation,
    outcome: Outcome,
    options: dict[str, Any],
    *,
    solve_s: float,
) -> PlanSpec:
    """Return the evaluated routes as a plan, with the gap to the bound of a method's ``outcome``."""
    gap = relative_gap(evaluation.objective, outcome.bound)
    unproven: Status = "interrupted" if outcome.status == "interrupted" else "feasible"
    return PlanSpec(
        chains={
            route.model: instance.any_profile(route.model).chain_sha256
            for source in evaluation.sources.values()
            for route in source.routes
        },
        options=options,
        status="optimal" if gap <= options["gap"] else unproven,
        method=method,
        goal=instance.scenario.objective.goal,
        objective=evaluation.objective,
        bound=min(outcome.bound, evaluation.objective),
        gap=gap,
        solve_s=solve_s,
        provenance="estimated" if instance.provenance == "estimated" else "measured",
        sources=evaluation.sources,
        workers=evaluation.workers,
        networks=evaluation.networks,
    )


def _in_order(instance: Instance, evaluation: Evaluation) -> Evaluation:
    """Return an evaluation with its entries in the order of ``instance``."""
    return dataclasses.replace(
        evaluation,
        sources={name: evaluation.sources[name] for name in instance.sources},
        workers={name: evaluation.workers[name] for name in instance.workers},
        networks={name: evaluation.networks[name] for name in instance.resources},
    )


def check_rank(rank: str) -> None:
    """Raise an error unless a ranking exists.

    Raises
    ------
    SolveError
        ``rank`` is not one of :data:`Rank`.
    """
    if rank not in get_args(Rank):
        raise SolveError("unknown ranking", where="rank", value=rank, expected=" or ".join(get_args(Rank)))


def load_method(name: str) -> Callable[[Problem, Options], Outcome]:
    """Return a method; this imports its module, and with it its solver library."""
    module = importlib.import_module(f"planner.solvers.methods.{METHODS[name].module}")
    method: Callable[[Problem, Options], Outcome] = getattr(module, METHODS[name].function)
    return method


def _meet_deadlines(
    instance: Instance,
    problem: Problem,
    best: _Candidate,
    *,
    rank: Rank,
    method_solve: Callable[[Problem, Options], Outcome],
    options: Options,
    end_s: float,
) -> _Candidate:
    """Solve again with tighter deadlines while queueing makes sources late; return the best candidate."""
    for _ in range(MAX_TIGHTENINGS):
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
    """Return the name of the method to use; ``auto`` is resolved."""
    if method != "auto" and method not in METHODS:
        raise SolveError("unknown method", where="method", value=method, expected=f"auto, {', '.join(METHODS)}")
    if routes not in {None, "single", "shared"}:
        raise SolveError("unknown kind of routes", where="routes", value=routes, expected="single or shared")
    if method == "auto":
        if routes == "shared":
            return "colgen"
        if not dp.misfits(problem):
            return "dp"
        return "search" if not problem.memory_binds and problem.arcs > MILP_MAX_ARCS else "milp"
    if routes is not None and routes not in METHODS[method].routes:
        suitable = ", ".join(name for name, entry in METHODS.items() if routes in entry.routes)
        raise SolveError(f"{method} does not find {routes} routes", where="method", value=method, expected=suitable)
    return method


def _best(instance: Instance, problem: Problem, outcome: Outcome, rank: Rank) -> _Candidate | None:
    """Return the incumbent that misses the fewest deadlines, and of these the best by ``rank``; None without one."""
    by_delay = rank == "evaluated" and instance.scenario.objective.goal == "delay"
    journeys = Journeys(instance)
    candidates: list[_Candidate] = []
    for choices in sorted(outcome.incumbents, key=problem.objective)[:MAX_EVALUATED]:
        candidates.append(_candidate(journeys, instance, problem, _with_unreached_at_home(problem, choices)))
        if not by_delay and not candidates[-1].late:  # the others have worse objectives
            break
    return min(
        candidates, key=lambda candidate: (len(candidate.late), *_rank(candidate, by_delay=by_delay)), default=None
    )


def _with_unreached_at_home(problem: Problem, choices: Choices) -> Choices:
    """Return the routes with blocks that no sample reaches at the source's worker, if they fit there."""
    by_source = []
    for routes, demand in zip(choices, problem.demands, strict=True):
        share: dict[tuple[int, tuple[int, ...]], float] = {}
        for choice in routes:
            reached = problem.variants[choice.variant].reach[:-1] > 0
            workers = tuple(np.where(reached, choice.workers, demand.home).tolist())
            share[choice.variant, workers] = share.get((choice.variant, workers), 0.0) + choice.share
        by_source.append(tuple(Choice(*route, part) for route, part in share.items()))
    moved = tuple(by_source)
    return moved if moved == choices or problem.feasible(moved) else choices


def _candidate(journeys: Journeys, instance: Instance, problem: Problem, choices: Choices) -> _Candidate:
    evaluation = evaluate(instance, problem.routes(choices), journeys)
    deadlines = {name: spec.deadline_s for name, spec in instance.scenario.sources.items()}
    late = {
        name: deadline_s
        for name, deadline_s in deadlines.items()
        if deadline_s is not None and evaluation.sources[name].delay_s > deadline_s
    }
    return _Candidate(choices, evaluation, late)


def _tighten(problem: Problem, best: _Candidate) -> Problem:
    """Return the problem with tighter deadlines for late sources, in proportion to their delay over their deadline."""
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


def _rank(candidate: _Candidate, *, by_delay: bool) -> tuple[float, float]:
    objective, delay = candidate.evaluation.objective, candidate.evaluation.weighted_delay_s
    return (delay, objective) if by_delay else (objective, delay)
