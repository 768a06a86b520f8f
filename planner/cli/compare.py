"""``planner compare``: compare methods and baselines on a scenario."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import planner
from planner.cli.output import JSON_OPTION, print_json, print_summary
from planner.cli.places import PICTURE_OPTION
from planner.cli.quantities import read_time_limit


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
    dask: Annotated[
        str | None, typer.Option(help="Scheduler of a Dask cluster on which methods run side by side: tcp://HOST:PORT.")
    ] = None,
    output: Path | None = PICTURE_OPTION,
    json: bool = JSON_OPTION,
) -> None:
    """Solve a scenario with all methods and baselines.

    Gaps are relative to the best bound that any method proved for the same kind of routes.

    Exit code 0: at least one method found a plan; 1: none did; 2: invalid input.
    """
    comparison = planner.compare(
        scenario,
        methods=method or None,
        time_limit_s=read_time_limit(time_limit),
        rank=rank,  # type: ignore[arg-type]  # checked by compare, which names what was expected
        seed=seed,
        threads=threads,
        simulate=simulate,
        dask=dask,
    )
    if output is not None:
        comparison.plot(output)
    if json:
        print_json(comparison.to_dict())
    else:
        print_summary(comparison)
        if output is not None:
            typer.echo(f"wrote {output}")
    if not comparison.plans:
        raise typer.Exit(1)
