"""``planner pareto``: find the trade-off between delay and accuracy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import planner
from planner.cli.names import METHODS_HELP
from planner.cli.output import JSON_OPTION, print_json, print_summary
from planner.cli.places import PICTURE_OPTION
from planner.cli.quantities import read_time_limit


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
    """Find the plans that no other plan beats in both delay and accuracy.

    Each is shown with the accuracy_worth and min_accuracy for which `planner solve` finds it.

    Exit code 0: a plan was found; 1: there is none; 2: invalid input.
    """
    front = planner.pareto(
        scenario,
        points=points,
        method=method,
        routes=routes,  # type: ignore[arg-type]  # checked by solve, which names what was expected
        time_limit_s=read_time_limit(time_limit),
        seed=seed,
        threads=threads,
    )
    if output is not None and front.points:
        front.plot(output)
    if json:
        print_json(front.to_dict())
    elif front.points:
        print_summary(front)
        if output is not None:
            typer.echo(f"wrote {output}")
    if not front.scenario.instance.calibrated:
        hint = "`planner profile measure --calibrate DATA` finds accuracies and early exits"
        typer.echo(f"planner: warning: no profile of this scenario knows an accuracy; {hint}", err=True)
    if not front.points:
        typer.echo("planner: no plan keeps the scenario's limits; `planner solve` says which", err=True)
        raise typer.Exit(1)
