"""``planner compare``: all methods and baselines on one scenario, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from planner.cli.output import JSON_OPTION, print_json, print_table, progress_bar
from planner.cli.places import PICTURE_OPTION
from planner.cli.solve import read_time_limit
from planner.scenario.instance import Instance
from planner.tables import milliseconds

if TYPE_CHECKING:
    from planner.solvers.compare import Compared


def command(
    scenario: Annotated[Path, typer.Argument(help="Scenario file (YAML).")],
    *,
    method: Annotated[list[str] | None, typer.Option(help="Method to include. Repeatable.", show_default="all")] = None,
    time_limit: Annotated[
        str, typer.Option(help="Time limit per method; its best plan found by then is kept.")
    ] = "10s",
    rank: Annotated[str, typer.Option(help="Rank plans by 'evaluated' delay or by 'surrogate' objective.")] = (
        "surrogate"
    ),
    seed: Annotated[int, typer.Option(min=0, help="Seed of all random choices.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="Number of threads that a solver may use.")] = 1,
    simulate: Annotated[bool, typer.Option("--simulate", help="Also simulate each plan.")] = False,
    output: Path | None = PICTURE_OPTION,
    json: bool = JSON_OPTION,
) -> None:
    """Solve a scenario by every method and by the baselines.

    Gaps are to the best bound that any method proved for routes of the same kind. Exit code 0 when there is a plan at
    all, 1 when no method found one, 2 for bad input.
    """
    from planner.scenario.load import load_instance
    from planner.solvers.compare import best_bounds, compare, gap_to
    from planner.solvers.solve import METHODS

    instance = load_instance(scenario)
    wanted = method or list(METHODS)
    limit_s = read_time_limit(time_limit)
    with progress_bar() as progress:
        running = compare(
            instance,
            methods=wanted,
            time_limit_s=limit_s,
            rank=rank,  # type: ignore[arg-type]  # checked by solve, which names what was expected
            seed=seed,
            threads=threads,
        )
        found = list(progress.track(running, total=len(wanted), description="solving"))
        simulated = _simulate(instance, found, seed) if simulate else {}
    bounds = best_bounds(found)
    gaps = {one.method: gap_to(one, bounds) for one in found}
    if output is not None:
        from planner.report.methods import draw_methods

        draw_methods(found, gaps, output, simulated=simulated)
    if json:
        methods = {one.method: _document(one, gaps[one.method], simulated) for one in found}
        print_json({"goal": instance.scenario.objective.goal, "methods": methods})
    else:
        _print(found, gaps, simulated)
        if output is not None:
            typer.echo(f"wrote {output}")
    if not bounds:
        raise typer.Exit(1)


def _simulate(instance: Instance, found: list[Compared], seed: int) -> dict[str, float | None]:
    """Give the simulated delay, weighted by priority, of each method's plan; the same arrivals for all."""
    from planner.simulation.replications import RunSpec, simulate_case
    from planner.solvers.replan.replanner import replanner

    runs = {
        one.method: simulate_case(instance, one.plan, RunSpec("planned", seed), replanner=replanner)
        for one in found
        if one.plan is not None
    }
    return {method: run.metrics.priority_weighted_delay_s for method, run in runs.items()}


def _document(one: Compared, gap: float | None, simulated: dict[str, float | None]) -> dict[str, Any]:
    document: dict[str, Any] = {"status": one.status, "solve_s": one.solve_s, "reasons": list(one.reasons)}
    if one.plan is not None:
        document |= {
            "objective": one.plan.objective,
            "bound": one.plan.bound,
            "gap": gap,
            "priority_weighted_delay_s": one.delay_s,
            "sources": {
                source: {"delay_s": own.delay_s, "accuracy": own.accuracy, "routes": len(own.routes)}
                for source, own in one.plan.sources.items()
            },
        }
    if one.method in simulated:
        document["simulated_priority_weighted_delay_s"] = simulated[one.method]
    return document


def _print(found: list[Compared], gaps: dict[str, float | None], simulated: dict[str, float | None]) -> None:
    columns = ["method", "status", ">objective", ">bound", ">gap", ">delay", *([">simulated"] if simulated else [])]
    print_table(
        "Methods side by side (objective and bound: surrogate; delay: evaluated, weighted by priority)",
        (*columns, ">time"),
        (
            (
                one.method,
                one.status,
                f"{one.plan.objective:.5g}" if one.plan else "–",
                f"{one.plan.bound:.5g}" if one.plan and one.plan.bound > 0 else "–",
                "–" if (gap := gaps[one.method]) is None else f"{gap:.2%}",
                milliseconds(one.delay_s),
                *([milliseconds(simulated.get(one.method))] if simulated else []),
                f"{one.solve_s:.2f} s",
            )
            for one in found
        ),
    )
    for one in found:
        for reason in one.reasons:
            typer.echo(f"{one.method}: {reason}")
