"""All methods and baselines on one instance, side by side."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter

from planner.errors import SolveError
from planner.plan.evaluate import weighted_means
from planner.plan.types import PlanSpec
from planner.plan.verify import relative_gap
from planner.scenario.instance import Instance
from planner.solvers.solve import METHODS, Rank, check_rank, solve


@dataclass(frozen=True)
class Compared:
    """What one method found.

    Parameters
    ----------
    status
        The plan's, or ``refused`` where the method does not solve this problem.
    reasons
        Why there is no plan, in words.
    delay_s
        Evaluated delay Σ p λ T / Σ p λ, in seconds.
    """

    method: str
    status: str
    solve_s: float
    plan: PlanSpec | None = None
    reasons: tuple[str, ...] = ()
    delay_s: float | None = None


def compare(
    instance: Instance,
    *,
    methods: Iterable[str] = METHODS,
    time_limit_s: float = 10.0,
    rank: Rank = "surrogate",
    seed: int = 0,
    threads: int = 1,
) -> Iterator[Compared]:
    """Solve ``instance`` by each of ``methods``, each within the time limit; give each result as soon as it is there.

    By default each gives its best surrogate objective, of which bounds and gaps speak.

    Raises
    ------
    SolveError
        A method or the ranking is unknown.
    """
    check_rank(rank)
    wanted = list(methods)
    for method in wanted:
        if method not in METHODS:
            raise SolveError("unknown method", where="method", value=method, expected=", ".join(METHODS))
    for method in wanted:
        started_s = perf_counter()
        try:
            solution = solve(instance, method=method, time_limit_s=time_limit_s, rank=rank, seed=seed, threads=threads)
        except SolveError as error:
            reasons = tuple(str(fault) for fault in error.faults)
            yield Compared(method, "refused", perf_counter() - started_s, reasons=reasons)
            continue
        plan = solution.plan
        delay_s = weighted_means(instance, plan.sources)[0] if plan else None
        yield Compared(method, solution.status, perf_counter() - started_s, plan, solution.blame, delay_s)


def best_bounds(found: Sequence[Compared]) -> dict[str, float]:
    """Give for each method with a plan the best bound that any method proved for routes of its kind.

    A bound for shared routes holds for one route a source, too; not the other way round.
    """
    shared = [_bound(one) for one in found if one.plan and METHODS[one.method].routes == ("shared",)]
    every = [_bound(one) for one in found if one.plan]
    return {
        one.method: max(shared if METHODS[one.method].routes == ("shared",) else every) for one in found if one.plan
    }


def gap_to(one: Compared, bounds: dict[str, float]) -> float | None:
    """Give a plan's relative gap to the best bound known; None without a plan."""
    return relative_gap(one.plan.objective, bounds[one.method]) if one.plan else None


def _bound(one: Compared) -> float:
    return one.plan.bound if one.plan else 0.0
