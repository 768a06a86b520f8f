"""Solve an instance: choose the method, rank its incumbents by evaluated delay, and return a plan with its gap."""

from __future__ import annotations

import dataclasses
import importlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, Literal, NamedTuple

from planner.errors import SolveError
from planner.plan.evaluate import Evaluation, endless
from planner.plan.interval import coverage, with_intervals
from planner.plan.sessions import longest_wait_s
from planner.plan.types import PlanSpec, SearchStep, Status
from planner.plan.verify import relative_gap
from planner.scenario.instance import Instance
from planner.solvers.company import solve_in_company
from planner.solvers.core.build import build_problem, read_routes
from planner.solvers.core.deadline import Deadline, Expired, call_until, garbage_kept
from planner.solvers.core.history import History
from planner.solvers.core.infeasibility import tried, violations
from planner.solvers.core.interrupt import on_interrupt
from planner.solvers.core.problem import Choices, Problem, largest
from planner.solvers.core.search_state import Options, Outcome, Progress, Search
from planner.solvers.core.solution import Solution
from planner.solvers.methods import bottleneck_dp as dp
from planner.solvers.methods.baselines import RULES
from planner.solvers.methods.in_turn import solve_in_turn
from planner.solvers.methods.known_plans import MAX_ARCS, PEAK_GOALS, known_plans
from planner.solvers.proof import poor_proof
from planner.solvers.ranking import (
    Candidate,
    Rank,
    best_candidate,
    check_rank,
    overloaded,
    refined,
    single_samples_count,
    with_other_loops,
)
from planner.solvers.routes.greedy import completed, greedy_rounds
from planner.solvers.routes.pool import pricing_pool
from planner.solvers.tails import impossible_limits, unused_deadlines
from planner.solvers.tightening import meet_deadlines

MILP_MAX_ARCS, MILP_MAX_ARCS_PEAK = 8000, 2000
"""With more arcs ``search`` finds a better plan and a better bound than the MILP in the same time: for the goal
``delay``, and for the other goals."""
PROOF, PROOF_MAX_ARCS = "milp", 100_000
"""The method, up to a size, that ``auto`` uses where ``search`` found no plan: it may prove that there is none."""
SEARCHED_PART = 0.8
"""Part of the time limit after which routes are refined, where single samples count."""

EVALUATED_PART = 0.1
"""Largest part of the time limit that is left for the evaluation of plans; it takes about as long as building the
problem."""

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
    max_wait_s: float | None = None,
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
    max_wait_s
        Longest time of a session of several blocks that more urgent work may wait for; 0 joins none of them. By default
        what has the best delays.
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
    if instance.colocated and not instance.company:
        search = partial(
            solve, method=method, routes=routes, gap=gap, rank=rank, seed=seed, threads=threads,
            max_visits=max_visits, max_wait_s=max_wait_s, pins=pins, dask=dask, progress=progress,
        )  # fmt: skip
        return solve_in_company(instance, search, time_limit_s=time_limit_s, start=start, rank=rank)
    history = History(started_s, progress)
    deadline = Deadline.after(time_limit_s)
    check_rank(rank)
    ordered = instance.in_order_of_names()
    problem = build_problem(ordered, max_visits=max_visits, pins=pins, max_wait_s=max_wait_s)
    evaluation_s = min(time.monotonic() - started_s, EVALUATED_PART * time_limit_s)
    names = _methods(problem, method, routes)
    if impossible := impossible_limits(ordered, problem):
        return Solution("infeasible", reasons=impossible)
    _check_dask(dask, names)
    known = read_routes(problem, {source: spec.routes for source, spec in start.sources.items()}) if start else ()
    if "shared" not in METHODS[names[-1]].routes:
        known = tuple(largest(of_source) for of_source in known)
    singly = names[0] not in RULES and single_samples_count(ordered, rank)
    search_s = time_limit_s * (SEARCHED_PART if singly else 1.0)
    options = Options(
        time_limit_s=search_s,
        gap=gap,
        seed=seed,
        threads=threads,
        start=(completed(problem, known),) if any(known) else (),
        progress=history,
        deadline=deadline.within(min(search_s, deadline.left_s - evaluation_s)),
    )
    with on_interrupt(options.stop), garbage_kept(), pricing_pool(threads, dask) as pool:
        options = dataclasses.replace(options, pool=pool)
        again = bool(options.start) and rank == "surrogate"  # within the gap no rule is better: they wait for that
        if names[0] not in RULES and not again:
            options = dataclasses.replace(options, known=known_plans(problem, deadline))
        method_solve = _load(problem, names, deadline, auto=method == "auto")
        outcome = _with_known(method_solve(problem, options), problem, options)
        if again and outcome.status not in {"optimal", "infeasible"}:  # otherwise no plan would be better by the gap
            outcome = _beside(outcome, problem, known_plans(problem, deadline))
        history.add(min(map(problem.objective, outcome.incumbents), default=math.inf), outcome.bound)
        options = dataclasses.replace(options, progress=progress)  # what follows may be another problem
        best = best_candidate(ordered, problem, outcome, rank, options)
        if best is None:
            return Solution(outcome.status, reasons=outcome.reasons or _unfinished(names[-1], problem, options))
        plans = (*outcome.incumbents, *options.known)
        if singly:
            best = refined(ordered, problem, best, plans, rank=rank, deadline=deadline)
        if best.late:
            best = meet_deadlines(ordered, problem, best, rank=rank, method_solve=method_solve, options=options)
            best = refined(ordered, problem, best, plans, rank=rank, deadline=deadline) if singly else best
        best = with_other_loops(ordered, problem, best, rank)
    waiting = tuple(endless(instance, best.evaluation))
    if best.late or waiting or overloaded(problem, best.evaluation):
        by_blocks = partial(
            solve, instance.without_savings(), method=method, routes=routes, gap=gap, rank=rank, seed=seed,
            threads=threads, max_visits=max_visits, max_wait_s=max_wait_s, pins=pins, start=start, dask=dask,
            progress=progress,
        )  # fmt: skip
        return _otherwise(best, waiting, by_blocks, time_limit_s - (time.monotonic() - started_s))
    used_options = {
        "method": method,
        "routes": routes,
        "time_limit_s": time_limit_s,
        "gap": gap,
        "rank": rank,
        "seed": seed,
        "threads": threads,
        "max_visits": max_visits,
        "max_wait_s": max_wait_s,
        "pins": {source: dict(workers) for source, workers in (pins or {}).items()},
    }
    plan = _plan(
        instance,
        names[-1],
        _in_order(instance, best.evaluation),
        outcome,
        used_options,
        solve_s=time.monotonic() - started_s,
        search=tuple(history.steps),
    )
    warnings = (poor_proof(plan, fits_milp=problem.arcs <= MILP_MAX_ARCS), unused_deadlines(instance))
    warning = "; ".join(filter(None, warnings)) or None
    return Solution(plan.status, plan.model_copy(update={"warning": warning}))


def _otherwise(
    best: Candidate, waiting: tuple[str, ...], by_blocks: Callable[..., Solution], left_s: float
) -> Solution:
    """Return why there is no plan, or one without joined blocks where only their sessions were shorter than assumed."""
    if best.late or waiting:
        return Solution("no_solution", reasons=(*best.missed_deadlines(), *waiting))
    return by_blocks(time_limit_s=max(left_s, 0.0))


def _plan(
    instance: Instance,
    method: str,
    evaluation: Evaluation,
    outcome: Outcome,
    options: dict[str, Any],
    *,
    solve_s: float,
    search: tuple[SearchStep, ...],
) -> PlanSpec:
    """Return the evaluated routes as a plan, with the gap to the bound of a method's ``outcome``."""
    routes = {name: source.routes for name, source in evaluation.sources.items()}
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
        search=search,
        threads=options["threads"],
        max_wait_s=longest_wait_s(instance, routes) or None,
        provenance="estimated" if instance.provenance == "estimated" else "measured",
        coverage=coverage(instance, routes),
        sources=with_intervals(instance, evaluation.sources),
        workers=evaluation.workers,
        networks=evaluation.networks,
        energy=evaluation.energy,
    )


def _in_order(instance: Instance, evaluation: Evaluation) -> Evaluation:
    """Return an evaluation with its entries in the order of ``instance``."""
    energy = evaluation.energy
    if energy is not None:
        by_worker = {name: energy.workers[name] for name in instance.workers if name in energy.workers}
        energy = energy.model_copy(update={"workers": by_worker})
    return dataclasses.replace(
        evaluation,
        energy=energy,
        sources={name: evaluation.sources[name] for name in instance.sources},
        workers={name: evaluation.workers[name] for name in instance.workers},
        networks={name: evaluation.networks[name] for name in instance.resources},
    )


def load_method(name: str) -> Callable[[Problem, Options], Outcome]:
    """Return a method; this imports its module, and with it its solver library."""
    module = importlib.import_module(f"planner.solvers.methods.{METHODS[name].module}")
    method: Callable[[Problem, Options], Outcome] = getattr(module, METHODS[name].function)
    return method


def _methods(problem: Problem, method: str, routes: Routes | None) -> tuple[str, ...]:
    """Return the names of the methods to use in turn; ``auto`` is resolved."""
    if method != "auto" and method not in METHODS:
        raise SolveError("unknown method", where="method", value=method, expected=f"auto, {', '.join(METHODS)}")
    if routes not in {None, "single", "shared"}:
        raise SolveError("unknown kind of routes", where="routes", value=routes, expected="single or shared")
    if method == "auto":
        return ("colgen",) if routes == "shared" else _single_methods(problem)
    if routes is not None and routes not in METHODS[method].routes:
        suitable = ", ".join(name for name, entry in METHODS.items() if routes in entry.routes)
        raise SolveError(f"{method} does not find {routes} routes", where="method", value=method, expected=suitable)
    return (method,)


def _check_dask(dask: str | None, names: tuple[str, ...]) -> None:
    if dask is not None and names != (POOLED,):
        raise SolveError("only one method runs on a Dask cluster", where="dask", value=names[-1], expected=POOLED)


def _single_methods(problem: Problem) -> tuple[str, ...]:
    if not dp.misfits(problem):
        return ("dp",)
    most = MILP_MAX_ARCS if problem.goal == "delay" else MILP_MAX_ARCS_PEAK
    return ("search",) if problem.arcs > most else ("search", "milp")


def _tighter_methods(problem: Problem) -> tuple[str, ...]:
    """Return methods for single routes, which may find better plans than those for shared ones.

    Where memory binds, these round the resident blocks. Linear programs over large instances converge slowly.
    """
    if problem.memory_binds:
        return _single_methods(problem)
    large = problem.goal not in PEAK_GOALS or problem.arcs > MAX_ARCS
    return () if large else tuple(name for name in _single_methods(problem) if name != "milp")


def _load(
    problem: Problem, names: Sequence[str], deadline: Deadline, *, auto: bool
) -> Callable[[Problem, Options], Outcome]:
    """Return the methods, which run in turn; where their libraries cannot be imported in time, what uses none."""
    if deadline.passed:
        return _nothing_new
    tighter = _tighter_methods(problem) if METHODS[names[-1]].routes == ("shared",) else ()
    proves = auto and not tighter and names == ("search",) and problem.arcs <= PROOF_MAX_ARCS

    def load() -> dict[str, Callable[[Problem, Options], Outcome]]:
        return {name: load_method(name) for name in (*names, *tighter, *([PROOF] if proves else []))}

    try:  # libraries may take seconds to import, and swallow an exception by Ctrl-C
        loaded = call_until(deadline, load, abandon=lambda: None)
    except Expired:
        return _nothing_new
    methods = [loaded[name] for name in names]
    return partial(
        solve_in_turn,
        methods=methods,
        tighter=[loaded[name] for name in tighter],
        otherwise=loaded.get(PROOF) if proves else None,
    )


def _beside(outcome: Outcome, problem: Problem, plans: tuple[Choices, ...]) -> Outcome:
    """Return an outcome with the feasible ones of further plans."""
    search = Search(problem, Options(start=(*outcome.incumbents, *plans)))
    status = "feasible" if search.incumbents and outcome.status == "no_solution" else outcome.status
    return dataclasses.replace(outcome, status=status, incumbents=tuple(search.incumbents))


def _with_known(outcome: Outcome, problem: Problem, options: Options) -> Outcome:
    """Return an outcome without a plan with the feasible ones of simple rules, however early its method was ended."""
    return _beside(outcome, problem, options.known) if outcome.status == "no_solution" else outcome


def _nothing_new(problem: Problem, options: Options) -> Outcome:
    """Return the routes from which a method would have started, greedy ones if there are none."""
    search = Search(problem, options)
    if not search.incumbents:
        search.offer(greedy_rounds(problem, 1)[0])
    return search.outcome()


def _unfinished(method: str, problem: Problem, options: Options) -> tuple[str, ...]:
    """Return why there is no plan though none was ruled out: what was tried, and the limits that a rule breaks."""
    interrupted = (f"{method} was interrupted before it found a plan",) if options.stop.is_set() else ()
    broken = min((violations(problem, choices) for choices in options.known), key=len, default=())
    nearest = (f"nearest of the simple rules: {'; '.join(broken)}",) if broken else ()
    return (*interrupted, *tried(problem, options.time_limit_s), *nearest)
