"""Compare methods on a scenario, or delay with accuracy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from planner.api.picture import Picture, drawn
from planner.api.plan import Plan
from planner.api.progress import Progress, reporting, show_progress
from planner.api.scenario import Scenario, scenario_of
from planner.files import StrPath, several
from planner.solvers.compare import Compared, best_bounds, gap_to
from planner.solvers.compare import compare as compare_methods
from planner.solvers.pareto import ParetoPoint
from planner.solvers.pareto import pareto as pareto_points
from planner.solvers.ranking import Rank
from planner.solvers.solve import METHODS, Routes
from planner.tables import Printable, Table, milliseconds


class MethodComparison(Printable):
    """Plans of all methods and baselines on a scenario, side by side.

    Parameters
    ----------
    results
        Result of each method.
    simulated
        Simulated delay of each method's plan, weighted by priority, in seconds; empty unless asked for.
    """

    def __init__(self, scenario: Scenario, results: Sequence[Compared], simulated: Mapping[str, float | None]) -> None:
        self.scenario = scenario
        self.results = tuple(results)
        self.simulated = dict(simulated)
        bounds = best_bounds(self.results)
        self.gaps = {result.method: gap_to(result, bounds) for result in self.results}
        """Relative gap of each method's plan to the best bound that any method proved for routes of its kind."""

    @property
    def plans(self) -> dict[str, Plan]:
        """Plan of each method that found one."""
        return {result.method: Plan(self.scenario, result.plan) for result in self.results if result.plan is not None}

    def contents(self) -> Iterator[Table | str]:
        """Return a table of the methods, and why some have no plan."""
        simulated = bool(self.simulated)
        timed = any(result.miss_share is not None for result in self.results)
        columns = ["method", "status", ">objective", ">bound", ">gap", ">delay"]
        columns += [*([">missed"] if timed else []), *([">simulated"] if simulated else []), ">time"]
        yield Table(
            "Methods side by side (objective and bound: surrogate; "
            f"delay{' and missed deadlines' if timed else ''}: evaluated, weighted by priority)",
            tuple(columns),
            [
                (
                    result.method,
                    result.status,
                    f"{result.plan.objective:.5g}" if result.plan else "–",
                    f"{result.plan.bound:.5g}" if result.plan and result.plan.bound > 0 else "–",
                    "–" if (gap := self.gaps[result.method]) is None else f"{gap:.2%}",
                    milliseconds(result.delay_s),
                    *(["–" if result.miss_share is None else f"{result.miss_share:.2%}"] if timed else []),
                    *([milliseconds(self.simulated.get(result.method))] if simulated else []),
                    f"{result.solve_s:.2f} s",
                )
                for result in self.results
            ],
        )
        for result in self.results:
            for reason in result.reasons:
                yield f"{result.method}: {reason}"

    def to_dict(self) -> dict[str, Any]:
        """Return the figures of each method."""
        methods = {result.method: self._document(result) for result in self.results}
        return {"goal": self.scenario.spec.objective.goal, "methods": methods}

    def plot(self, path: StrPath | None = None) -> Picture:
        """Return a picture of the methods side by side; write it to ``path`` if given."""
        from planner.report.methods import draw_methods

        return drawn(lambda file: draw_methods(self.results, self.gaps, file, simulated=self.simulated), path)

    def _document(self, result: Compared) -> dict[str, Any]:
        document: dict[str, Any] = {
            "status": result.status,
            "solve_s": result.solve_s,
            "reasons": list(result.reasons),
        }
        if result.plan is not None:
            document |= {
                "objective": result.plan.objective,
                "bound": result.plan.bound,
                "gap": self.gaps[result.method],
                "priority_weighted_delay_s": result.delay_s,
                "priority_weighted_miss_share": result.miss_share,
                "sources": {
                    name: {"delay_s": source.delay_s, "accuracy": source.accuracy, "routes": len(source.routes)}
                    for name, source in result.plan.sources.items()
                },
            }
        if result.method in self.simulated:
            document["simulated_priority_weighted_delay_s"] = self.simulated[result.method]
        return document

    def __repr__(self) -> str:
        return f"<MethodComparison of {', '.join(result.method for result in self.results)}>"


def compare(
    scenario: Scenario | StrPath,
    *,
    methods: str | Iterable[str] | None = None,
    time_limit_s: float = 10.0,
    rank: Rank = "surrogate",
    seed: int = 0,
    threads: int = 1,
    simulate: bool = False,
    dask: str | None = None,
    progress: Progress | None = show_progress,
) -> MethodComparison:
    """Solve a scenario by every method and by the baselines.

    Parameters
    ----------
    scenario
        The scenario, or its file.
    methods
        Methods that take part; all by default.
    time_limit_s
        Time limit of each method, in seconds.
    rank, seed, threads, progress
        As for :func:`planner.solve`.
    simulate
        Whether to simulate each plan, too.
    dask
        Address of the scheduler of a Dask cluster, such as ``tcp://10.0.0.1:8786``, on which methods run side by side.
        The planner must be installed there in the same version.

    Raises
    ------
    ScenarioError, ProfileError
        If the scenario is invalid.
    SolveError
        If a method or the ranking is unknown.
    UsageError
        If the cluster cannot be used.
    """
    loaded = scenario_of(scenario)
    chosen = list(METHODS) if methods is None else several(methods)
    with reporting(progress, "solving") as report:
        results: list[Compared] = []
        for result in compare_methods(
            loaded.instance,
            methods=chosen,
            time_limit_s=time_limit_s,
            rank=rank,
            seed=seed,
            threads=threads,
            dask=dask,
        ):
            results.append(result)
            report(len(results), len(chosen))
    return MethodComparison(loaded, results, _simulated(loaded, results, seed, dask) if simulate else {})


def _simulated(scenario: Scenario, results: Iterable[Compared], seed: int, dask: str | None) -> dict[str, float | None]:
    """Return the simulated delay of each method's plan, weighted by priority; all meet the same arrivals."""
    from planner.cluster import on_cluster
    from planner.simulation.replications import RunSpec, simulate_case
    from planner.solvers.replan.replanner import replanner

    plans = {result.method: result.plan for result in results if result.plan is not None}
    instance, simulated = scenario.instance, partial(simulate_case, replanner=replanner)
    cases = [(instance, plan, RunSpec("planned", seed)) for plan in plans.values()]
    runs = on_cluster(dask, simulated, cases, shared=[instance]) if dask else [simulated(*case) for case in cases]
    return {method: run.metrics.priority_weighted_delay_s for method, run in zip(plans, runs, strict=True)}


class ParetoFront(Printable):
    """Plans for which no other is both quicker and more accurate, the quickest first; empty if there is no plan."""

    def __init__(self, scenario: Scenario, points: Sequence[ParetoPoint]) -> None:
        self.scenario = scenario
        self.points = tuple(points)

    def __len__(self) -> int:
        return len(self.points)

    @property
    def plans(self) -> tuple[Plan, ...]:
        """Plan of each point."""
        return tuple(Plan(self.scenario, point.plan) for point in self.points)

    def contents(self) -> Iterator[Table | str]:
        """Return a table of the points."""
        sources = list(self.points[0].plan.sources) if self.points else []
        yield Table(
            "Accuracy against delay, both weighted by priority; then each source's",
            (">accuracy", ">delay", ">accuracy_worth", *(f">{source}" for source in sources)),
            [
                (
                    f"{point.accuracy:.2%}",
                    milliseconds(point.delay_s),
                    milliseconds(point.accuracy_worth_s or None),
                    *(
                        f"{source.accuracy:.1%} {milliseconds(source.delay_s)}"
                        for source in point.plan.sources.values()
                    ),
                )
                for point in self.points
            ],
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the points with the objective and the limits that lead to them."""
        return {
            "points": [
                {
                    "accuracy": point.accuracy,
                    "priority_weighted_delay_s": point.delay_s,
                    "accuracy_worth_s": point.accuracy_worth_s,
                    "min_accuracy": point.min_accuracy,
                    "sources": {
                        name: source.model_dump(mode="json", by_alias=True, exclude={"surrogate_delay_s"})
                        for name, source in point.plan.sources.items()
                    },
                }
                for point in self.points
            ]
        }

    def plot(self, path: StrPath | None = None) -> Picture:
        """Return a picture of the front; write it to ``path`` if given."""
        from planner.report.front import draw_front

        return drawn(lambda file: draw_front(self.points, file), path)

    def __repr__(self) -> str:
        return f"<ParetoFront: {len(self.points)} plans>"


def pareto(
    scenario: Scenario | StrPath,
    *,
    points: int = 9,
    method: str = "auto",
    routes: Routes | None = None,
    time_limit_s: float = 10.0,
    seed: int = 0,
    threads: int = 1,
    progress: Progress | None = show_progress,
) -> ParetoFront:
    """Find the plans for which no other is both quicker and more accurate.

    Parameters
    ----------
    scenario
        The scenario, or its file.
    points
        Maximum number of plans to make between the two ends.
    time_limit_s
        Time limit for each plan, in seconds.
    method, routes, seed, threads, progress
        As for :func:`planner.solve`.

    Raises
    ------
    ScenarioError, ProfileError
        If the scenario is invalid.
    SolveError
        If the goal is not ``delay``, or the method is unknown.
    """
    loaded = scenario_of(scenario)
    with reporting(progress, "solving") as report:
        made: list[ParetoPoint] = []

        def count(point: ParetoPoint) -> None:
            made.append(point)
            report(min(len(made), points + 1), points + 2)

        front = pareto_points(
            loaded.instance,
            points=points,
            method=method,
            routes=routes,
            time_limit_s=time_limit_s,
            seed=seed,
            threads=threads,
            progress=count,
        )
    return ParetoFront(loaded, front)
