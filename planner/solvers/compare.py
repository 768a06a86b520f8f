"""Compare all methods and baselines on one instance."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import NamedTuple

from planner.cluster import on_cluster
from planner.errors import SolveError
from planner.plan.evaluate import weighted_means, weighted_misses
from planner.plan.types import PlanSpec
from planner.plan.verify import relative_gap
from planner.scenario.instance import Instance
from planner.solvers.core.interrupt import on_interrupt
from planner.solvers.ranking import Rank, check_rank
from planner.solvers.solve import METHODS, solve


@dataclass(frozen=True)
class Compared:
    """Result of one method.

    Parameters
    ----------
    status
        Status of the plan, or ``refused`` if the method does not solve this problem.
    solve_s
        Time that the method took, in seconds.
    reasons
        Why there is no plan, in words.
    delay_s
        Evaluated mean delay Σ p λ T / Σ p λ, in seconds.
    miss_share
        Evaluated share of late samples Σ p λ M / Σ p λ; None where no source has a deadline.
    """

    method: str
    status: str
    solve_s: float
    plan: PlanSpec | None = None
    reasons: tuple[str, ...] = ()
    delay_s: float | None = None
    miss_share: float | None = None


def compare(
    instance: Instance,
    *,
    methods: Iterable[str] = METHODS,
    time_limit_s: float = 10.0,
    rank: Rank = "surrogate",
    seed: int = 0,
    threads: int = 1,
    dask: str | None = None,
) -> Iterator[Compared]:
    """Yield the result of each of ``methods`` on ``instance`` as soon as it is available.

    The time limit is for each method. By default a method returns its plan with the best surrogate objective, to which
    bounds and gaps refer.

    Parameters
    ----------
    dask
        Address of the scheduler of a Dask cluster, where the methods run side by side; results come all in the end.

    Raises
    ------
    SolveError
        A method or the ranking is unknown.
    UsageError
        The cluster cannot be used.
    """
    check_rank(rank)
    names = list(methods)
    for method in names:
        if method not in METHODS:
            raise SolveError("unknown method", where="method", value=method, expected=", ".join(METHODS))
    limits = _Limits(time_limit_s, rank, seed, threads)
    if dask is not None:
        yield from on_cluster(dask, _result, ((instance, method, limits) for method in names), shared=[instance])
        return
    stop = threading.Event()
    for method in names:
        with on_interrupt(stop):
            result = _result(instance, method, limits)
        yield result
        if stop.is_set():
            return


class _Limits(NamedTuple):
    time_limit_s: float
    rank: Rank
    seed: int
    threads: int


def _result(instance: Instance, method: str, limits: _Limits) -> Compared:
    started_s = perf_counter()
    try:
        solution = solve(
            instance,
            method=method,
            time_limit_s=limits.time_limit_s,
            rank=limits.rank,
            seed=limits.seed,
            threads=limits.threads,
        )
    except SolveError as error:
        reasons = tuple(str(fault) for fault in error.faults)
        return Compared(method, "refused", perf_counter() - started_s, reasons=reasons)
    plan = solution.plan
    solve_s = perf_counter() - started_s
    if plan is None:
        return Compared(method, solution.status, solve_s, reasons=solution.reasons)
    timed = any(deadline_s is not None for deadline_s in instance.deadlines.values())
    return Compared(
        method,
        solution.status,
        solve_s,
        plan,
        solution.reasons,
        delay_s=weighted_means(instance, plan.sources)[0],
        miss_share=weighted_misses(instance, plan.sources) if timed else None,
    )


def best_bounds(results: Sequence[Compared]) -> dict[str, float]:
    """Return for each method with a plan the best lower bound that any method proved for its kind of routes.

    A bound for shared routes also holds for one route per source, but not the reverse.
    """
    bounds = {result.method: result.plan.bound for result in results if result.plan}
    of_shared = [bound for method, bound in bounds.items() if _is_shared(method)]
    return {method: max(of_shared if _is_shared(method) else bounds.values()) for method in bounds}


def gap_to(result: Compared, bounds: dict[str, float]) -> float | None:
    """Return the relative gap of a result to the best of the :func:`best_bounds`; None without a plan."""
    return relative_gap(result.plan.objective, bounds[result.method]) if result.plan else None


def _is_shared(method: str) -> bool:
    return METHODS[method].routes == ("shared",)
