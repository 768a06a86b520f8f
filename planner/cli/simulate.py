"""``planner simulate``: simulate a scenario in virtual time, under one policy or under all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

import planner
from planner.cli.names import POLICIES
from planner.cli.output import JSON_OPTION, print_json, print_summary
from planner.cli.places import folder_to_write

if TYPE_CHECKING:
    from planner.api.simulation import PolicyComparison, SimulationResult

ALL: Final = "all"


def command(
    scenario: Annotated[Path, typer.Argument(help="Scenario file (YAML).")],
    *,
    plan: Annotated[Path | None, typer.Option(help="Plan file, required by policies that follow a plan.")] = None,
    policy: Annotated[
        str | None,
        typer.Option(
            help=f"One of {POLICIES}; or 'all' to compare them.", show_default="planned with --plan, else local"
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of arrivals and block times.")] = 0,
    repeat: Annotated[int, typer.Option(min=1, help="Number of independent runs, with consecutive seeds.")] = 1,
    dask: Annotated[
        str | None, typer.Option(help="Scheduler of a Dask cluster on which to simulate: tcp://HOST:PORT.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder to write traces and pictures to.", callback=folder_to_write),
    ] = None,
    json: bool = JSON_OPTION,
) -> None:
    """Simulate a scenario in virtual time and print the delays of each source.

    With --repeat figures are means over the runs, with 95 % confidence intervals. With --policy all each policy meets
    the same arrivals; those that follow a plan take part when there is one.
    """
    options: dict[str, Any] = {"seed": seed, "replications": repeat, "processes": None, "dask": dask, "folder": output}
    result: SimulationResult | PolicyComparison
    if policy == ALL:
        result = planner.compare_policies(scenario, plan, **options)
    else:
        result = planner.simulate(scenario, plan, policy=policy, **options)
    if json:
        print_json(result.to_dict())
        return
    print_summary(result)
    if output is not None:
        typer.echo(f"wrote traces and pictures to {output}")
