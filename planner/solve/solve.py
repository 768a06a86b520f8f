"""The one place where methods, ranking and plans meet: an instance in, a plan with its proven gap out."""

from __future__ import annotations

import importlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import numpy as np

from planner.errors import SolveError
from planner.plan.evaluate import Evaluation, evaluate
from planner.plan.types import Plan, Status
from planner.plan.verify import relative_gap
from planner.scenario.instance import Instance
from planner.solve.build import build_problem, read_routes
from planner.solve.outcome import Options, Outcome, Progress
from planner.solve.problem import Choices, Problem

Rank = Literal["evaluated", "surrogate"]
Routes = Literal["single", "shared"]


class Method(NamedTuple):
    """Where a method is: module under ``planner.solve``, function, and what routes it finds."""

    module: str
    function: str
    routes: tuple[Routes, ...]


METHODS: Final = {
    "convex": Method("convex", "solve", ("shared",)),
    "milp": Method("milp", "solve", ("single",)),
    "colgen": Method("colgen", "solve", ("shared",)),
    "dp": Method("dp", "solve", ("single",)),
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
    plan: Plan | None = None
    blame: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Candidate:
    choices: Choices
    evaluation: Evaluation
    misses: tuple[str, ...]


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
    start: Plan | None = None,
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
        An earlier plan, of this scenario or one like it: its routes are tried first.
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
    name = _method(instance, method, routes)
    if rank not in {"evaluated", "surrogate"}:
        raise SolveError("unknown ranking", where="rank", value=rank, expected="evaluated or surrogate")
    problem = build_problem(instance, max_visits=max_visits, pins=pins)
    known = read_routes(problem, {name: own.routes for name, own in start.sources.items()}) if start else None
    options = Options(
        time_limit_s=time_limit_s,
        gap=gap,
        seed=seed,
        threads=threads,
        start=(known,) if known else (),
        progress=progress,
    )
    where = METHODS[name]
    outcome: Outcome = getattr(importlib.import_module(f"planner.solve.{where.module}"), where.function)(
        problem, options
    )
    candidates = [_candidate(instance, problem, choices) for choices in outcome.incumbents]
    if not candidates:
        return Solution(outcome.status, blame=outcome.blame)
    best = min(candidates, key=lambda candidate: (len(candidate.misses), *_rank(instance, candidate, rank)))
    if best.misses:
        return Solution("no_solution", blame=best.misses)
    reached = relative_gap(best.evaluation.objective, outcome.bound)
    status: Status = "optimal" if reached <= gap else "interrupted" if outcome.status == "interrupted" else "feasible"
    plan = Plan(
        chains={
            route.model: instance.any_profile(route.model).chain_sha256
            for own in best.evaluation.sources.values()
            for route in own.routes
        },
        options={
            "method": method,
            "routes": routes,
            "time_limit_s": time_limit_s,
            "gap": gap,
            "rank": rank,
            "seed": seed,
        }
        | {"threads": threads, "max_visits": max_visits},
        status=status,
        method=name,
        goal=instance.scenario.objective.goal,
        objective=best.evaluation.objective,
        bound=min(outcome.bound, best.evaluation.objective),
        gap=reached,
        solve_s=time.monotonic() - started_s,
        provenance="estimated" if instance.provenance == "estimated" else "measured",
        sources=best.evaluation.sources,
        workers=best.evaluation.workers,
        networks=best.evaluation.networks,
    )
    return Solution(status, plan)


def _method(instance: Instance, method: str, routes: Routes | None) -> str:
    """Give the name of the method to use, ``auto`` picked."""
    if method != "auto" and method not in METHODS:
        raise SolveError("unknown method", where="method", value=method, expected=f"auto, {', '.join(METHODS)}")
    if routes not in {None, "single", "shared"}:
        raise SolveError("unknown kind of routes", where="routes", value=routes, expected="single or shared")
    if method == "auto":
        if routes == "shared":
            return "colgen" if instance.scenario.objective.goal == "delay" else "convex"
        return "milp"
    if routes is not None and routes not in METHODS[method].routes:
        fitting = ", ".join(name for name, found in METHODS.items() if routes in found.routes)
        raise SolveError(f"{method} does not find {routes} routes", where="method", value=method, expected=fitting)
    return method


def _candidate(instance: Instance, problem: Problem, choices: Choices) -> _Candidate:
    """Evaluate an incumbent, and say which deadlines its queueing makes it miss."""
    evaluation = evaluate(instance, problem.routes(choices))
    misses = tuple(
        f"{demand.name} would take {evaluation.sources[demand.name].delay_s * 1e3:.3g} ms, "
        f"its deadline is {demand.deadline_s * 1e3:.3g} ms"
        for demand in problem.demands
        if np.isfinite(demand.deadline_s) and evaluation.sources[demand.name].delay_s > demand.deadline_s
    )
    return _Candidate(choices, evaluation, misses)


def _rank(instance: Instance, candidate: _Candidate, rank: Rank) -> tuple[float, float]:
    objective, delay = candidate.evaluation.objective, candidate.evaluation.weighted_delay_s
    by_delay = rank == "evaluated" and instance.scenario.objective.goal == "delay"
    return (delay, objective) if by_delay else (objective, delay)
