"""Solve a scenario."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

from planner.api.plan import Plan, start_of
from planner.api.progress import Progress, reporting, show_progress
from planner.api.scenario import Scenario, scenario_of
from planner.errors import PlannerWarning
from planner.files import StrPath
from planner.plan.types import PlanSpec
from planner.project import reference_to, unknown_accuracies
from planner.simulation.tails import broken_in_simulation
from planner.solvers import solve as solve_instance
from planner.solvers.core.deadline import Expired
from planner.solvers.ranking import Rank
from planner.solvers.solve import Routes
from planner.solvers.worth import worth as worth_of
from planner.solvers.worth import worth_s


def solve(
    scenario: Scenario | StrPath,
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
    start: Plan | StrPath | None = None,
    prices: bool = False,
    worth: bool = False,
    dask: str | None = None,
    progress: Progress | None = show_progress,
) -> Plan:
    """Determine which worker runs which blocks for which source.

    Parameters
    ----------
    scenario
        The scenario, or its file.
    method
        ``auto``, ``convex``, ``milp``, ``colgen``, ``search``, ``dp`` or ``exhaustive``; or a baseline: ``local``,
        ``two-part``, ``equal``, ``ar-mdi``.
    routes
        ``single``: one route per source; ``shared``: the samples of a source are shared among several. By default what
        the method does, and ``single`` for ``auto``.
    time_limit_s
        Time after which the best plan so far is returned, in seconds.
    gap
        Relative gap between objective and bound at which a plan counts as optimal.
    rank
        Return the plan with the best ``evaluated`` delays, or with the best ``surrogate`` objective.
    seed
        Seed of the methods that draw random numbers.
    threads
        Number of threads that a solver library may use.
    max_visits
        Maximum number of stages that a sample may run at the same worker; unlimited by default.
    max_wait_s
        Longest time, in seconds, of blocks joined to one session that more urgent work may wait for; 0 joins none of
        these. By default what has the best delays.
    pins
        By source and number of the block, the worker that must run the block.
    start
        An earlier plan, or its file, whose routes are tried first.
    prices
        Whether to determine also what more memory, more bandwidth or a faster worker would be worth.
    worth
        Whether to compare also with the whole model at home, and with plans without one of the used workers. A small
        part of the time limit, at most a second, is kept for this.
    dask
        Address of the scheduler of a Dask cluster, such as ``tcp://10.0.0.1:8786``, on which ``colgen`` generates
        routes. The planner must be installed on its workers, in the same version.
    progress
        Callback ``progress(step, done, total)``. By default, a bar on a terminal; None for none.

    Returns
    -------
    Plan
        If there is no plan, it is false; ``plan.status`` and ``plan.reasons`` say why.

    Raises
    ------
    ScenarioError, ProfileError
        If the scenario is invalid.
    SolveError
        If the method is unknown, or cannot do what was asked.

    Examples
    --------
    >>> import planner
    >>> plan = planner.solve("examples/exits/scenario.yaml", routes="shared", gap=0.05, progress=None)
    >>> plan.status
    'optimal'
    """
    loaded = scenario_of(scenario)
    for warning in loaded.warnings:
        warnings.warn(warning, PlannerWarning, stacklevel=2)

    def report(elapsed_s: float, best: float, bound: float) -> None:
        if progress is not None:
            progress(f"solving: best {best:.6g}, bound {bound:.6g}", min(elapsed_s, time_limit_s - 1e-9), time_limit_s)

    kept_s = worth_s(time_limit_s) if worth else 0.0
    with reporting(progress, "solving"):
        solution = solve_instance(
            loaded.instance,
            method=method,
            routes=routes,
            time_limit_s=time_limit_s - kept_s,
            gap=gap,
            rank=rank,
            seed=seed,
            threads=threads,
            max_visits=max_visits,
            max_wait_s=max_wait_s,
            pins=pins,
            start=start_of(start),
            dask=dask,
            progress=report,
        )
    if solution.plan is None:
        return Plan(loaded, None, status=solution.status, reasons=solution.reasons)
    spec = solution.plan
    if spec.status == "optimal" and any(unknown_accuracies(loaded.instance)):
        spec = spec.model_copy(update={"status": "feasible"})  # nobody knows whether it is accurate enough
    broken = list(broken_in_simulation(loaded.instance, spec)) if spec.status != "interrupted" else []
    if broken:
        spec = spec.model_copy(update={"warning": "; ".join(filter(None, (spec.warning, *broken)))})
    if worth:
        options = {**spec.options, "time_limit_s": time_limit_s}
        spec = spec.model_copy(update={"worth": worth_of(loaded.instance, spec, kept_s), "options": options})
    if loaded.path is not None:
        path, sha256 = loaded.file()
        spec = spec.model_copy(update={"scenario": reference_to(path, None, sha256=sha256)})
    return Plan(loaded, _priced(loaded, spec, time_limit_s, progress) if prices else spec)


def _priced(scenario: Scenario, spec: PlanSpec, time_limit_s: float, progress: Progress | None) -> PlanSpec:
    from planner.solvers.sensitivity import sensitivity

    def report(what: str) -> None:
        if progress is not None:
            progress(f"pricing {what}", 0, None)

    try:
        with reporting(progress, "pricing"):
            priced = sensitivity(scenario.instance, spec, time_limit_s=time_limit_s, progress=report)
    except Expired:  # by Ctrl-C, which does not cost the plan
        return spec
    return spec.model_copy(update={"prices": priced})
