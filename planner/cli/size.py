"""``planner size``: find the cheapest devices that a scenario needs."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated

import typer

import planner
from planner.cli.names import METHODS_HELP
from planner.cli.output import JSON_OPTION, print_json, print_summary
from planner.cli.places import folder_to_write
from planner.cli.quantities import read_time_limit
from planner.errors import PlannerWarning


def command(
    scenario: Annotated[Path, typer.Argument(help="Scenario file (YAML).")],
    *,
    catalogue: Annotated[Path, typer.Option(help="Devices that may be bought, with their prices (YAML).")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Folder to write scenario.yaml and plan.json to.", callback=folder_to_write
        ),
    ] = None,
    method: Annotated[str, typer.Option(help=METHODS_HELP)] = "auto",
    routes: Annotated[
        str | None, typer.Option(help="'single': one route per source; 'shared': samples split among routes.")
    ] = None,
    time_limit: Annotated[str, typer.Option(help="Time limit; the cheapest devices found by then are kept.")] = "60s",
    gap: Annotated[float, typer.Option(min=0.0, help="Relative gap at which devices count as optimal.")] = 1e-4,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all random choices.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="Number of threads that a solver may use.")] = 1,
    json: bool = JSON_OPTION,
) -> None:
    """Find the cheapest devices of a catalogue with which all rates, deadlines and accuracies are met.

    The workers of the scenario are there already and cost nothing. The scenario and the plan that are written are ready
    for `planner simulate` and all other commands.

    Exit code 0: devices were found; 1: none suffice, and the limits that prevent it are printed; 2: invalid input.
    """
    loaded = planner.load_scenario(scenario)
    for warning in loaded.warnings:
        typer.echo(f"planner: warning: {warning}", err=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PlannerWarning)  # told above
        sizing = planner.size(
            loaded,
            catalogue,
            method=method,
            routes=routes,  # type: ignore[arg-type]  # checked by solve, which names what was expected
            time_limit_s=read_time_limit(time_limit),
            gap=gap,
            seed=seed,
            threads=threads,
        )
    written = sizing.save(output) if sizing and output is not None else ()
    if json:
        print_json(sizing.to_dict())
    if not sizing:
        typer.echo(f"planner: {sizing.status}: no devices of the catalogue suffice", err=True)
        for reason in sizing.reasons:
            typer.echo(f"  {reason}", err=True)
        raise typer.Exit(1)
    if not json:
        print_summary(sizing)
        for path in written:
            typer.echo(f"wrote {path}")
