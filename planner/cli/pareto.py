"""``planner pareto``: what accuracy costs in delay."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from planner.cli.names import METHODS_HELP
from planner.cli.output import JSON_OPTION, print_json, print_table, progress_bar
from planner.cli.places import PICTURE_OPTION
from planner.cli.solve import read_time_limit
from planner.tables import milliseconds

if TYPE_CHECKING:
    from planner.solvers.pareto import ParetoPoint


def command(
    scenario: Annotated[Path, typer.Argument(help="Scenario file (YAML).")],
    *,
    points: Annotated[int, typer.Option(min=0, help="Maximum number of plans between the two extremes.")] = 9,
    method: Annotated[str, typer.Option(help=METHODS_HELP)] = "auto",
    routes: Annotated[
        str | None, typer.Option(help="'single': one route per source; 'shared': samples split among routes.")
    ] = None,
    time_limit: Annotated[str, typer.Option(help="Time limit per plan.")] = "10s",
    seed: Annotated[int, typer.Option(min=0, help="Seed of all random choices.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="Number of threads that a solver may use.")] = 1,
    output: Path | None = PICTURE_OPTION,
    json: bool = JSON_OPTION,
) -> None:
    """Find the plans for which no other is both quicker and more accurate.

    Each comes with the accuracy_worth and min_accuracy that make `planner solve` find it. Exit code 0 when there is a
    plan, 1 when there is none, 2 for bad input.
    """
    from planner.scenario.load import load_instance
    from planner.solvers.pareto import pareto

    instance = load_instance(scenario)
    with progress_bar() as progress:
        task = progress.add_task("solving", total=points + 2)
        front = pareto(
            instance,
            points=points,
            method=method,
            routes=routes,  # type: ignore[arg-type]  # checked by solve, which names what was expected
            time_limit_s=read_time_limit(time_limit),
            seed=seed,
            threads=threads,
            progress=lambda _: progress.advance(task),
        )
    if output is not None and front:
        from planner.report.front import draw_front

        draw_front(front, output)
    if json:
        print_json({"points": [_document(point) for point in front]})
    elif front:
        _print(front)
        if output is not None:
            typer.echo(f"wrote {output}")
    if not instance.calibrated:
        hint = "`planner profile measure --calibrate DATA` finds accuracies and early exits"
        typer.echo(f"planner: warning: no profile of this scenario knows an accuracy; {hint}", err=True)
    if not front:
        typer.echo("planner: no plan keeps the scenario's limits; `planner solve` says which", err=True)
        raise typer.Exit(1)


def _document(point: ParetoPoint) -> dict[str, Any]:
    return {
        "accuracy": point.accuracy,
        "priority_weighted_delay_s": point.delay_s,
        "accuracy_worth_s": point.accuracy_worth_s,
        "min_accuracy": point.min_accuracy,
        "sources": {
            name: own.model_dump(mode="json", by_alias=True, exclude={"surrogate_delay_s"})
            for name, own in point.plan.sources.items()
        },
    }


def _print(front: tuple[ParetoPoint, ...]) -> None:
    sources = list(front[0].plan.sources)
    print_table(
        "Accuracy against delay, both weighted by priority; then each source's",
        (">accuracy", ">delay", ">accuracy_worth", *(f">{source}" for source in sources)),
        (
            (
                f"{point.accuracy:.2%}",
                milliseconds(point.delay_s),
                milliseconds(point.accuracy_worth_s or None),
                *(f"{own.accuracy:.1%} {milliseconds(own.delay_s)}" for own in point.plan.sources.values()),
            )
            for point in front
        ),
    )
