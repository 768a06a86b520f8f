"""``planner solve``: find a plan for a scenario, with a proven optimality gap."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

import planner
from planner.cli.names import METHODS_HELP
from planner.cli.output import JSON_OPTION, print_json, print_summary
from planner.cli.places import file_to_write, picture_to_write
from planner.cli.quantities import read_option, read_time_limit
from planner.errors import PlannerWarning, UsageError

if TYPE_CHECKING:
    from planner.api.plan import Plan

ANNOTATED: Final = ":annotated"
PIN: Final = re.compile(r"(?P<source>.+):(?P<first>\d+)(-(?P<last>\d+))?=(?P<worker>.+)")


def command(
    scenario: Annotated[Path, typer.Argument(help="Scenario file (YAML).")],
    *,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Plan file to write (JSON).", callback=file_to_write)
    ] = None,
    method: Annotated[str, typer.Option(help=METHODS_HELP)] = "auto",
    routes: Annotated[
        str | None, typer.Option(help="'single': one route per source; 'shared': samples split among routes.")
    ] = None,
    time_limit: Annotated[str, typer.Option(help="Time limit; the best plan found by then is kept.")] = "60s",
    require_gap: Annotated[
        str | None, typer.Option(help="Largest gap, such as 5%; with a larger one the exit code is 1.")
    ] = None,
    gap: Annotated[float, typer.Option(min=0.0, help="Relative gap at which a plan counts as optimal.")] = 1e-4,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all random choices.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="Number of threads that a solver may use.")] = 1,
    rank: Annotated[str, typer.Option(help="Rank plans by 'evaluated' delay or by 'surrogate' objective.")] = (
        "evaluated"
    ),
    max_visits: Annotated[
        int | None, typer.Option(min=1, help="Maximum number of stages of a sample at one worker.")
    ] = None,
    max_wait: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Longest time of joined blocks that more urgent work may wait for, such as 10ms or 0s."
        ),
    ] = None,
    pin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STAGE",
            help="Stage that a worker must run: SOURCE:FIRST-LAST=WORKER; or SOURCE:annotated, for the stages that "
            "annotations of its model place. Repeatable.",
        ),
    ] = None,
    prices: Annotated[
        bool, typer.Option("--prices", help="Show what more memory, more bandwidth or a faster worker would gain.")
    ] = False,
    start: Annotated[Path | None, typer.Option(help="Earlier plan; its routes are tried first.")] = None,
    dask: Annotated[
        str | None, typer.Option(help="Scheduler of a Dask cluster on which colgen works: tcp://HOST:PORT.")
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(help="Also draw routes over time and all loads, .svg or .png.", callback=picture_to_write),
    ] = None,
    json: bool = JSON_OPTION,
) -> None:
    """Find which worker runs which blocks for which source.

    Exit code 0: a plan was found; 1: there is none, and the limits that prevent it are printed, or its gap is larger
    than required; 2: invalid input.
    """
    loaded = planner.load_scenario(scenario)
    limit_s = read_time_limit(time_limit)
    most_gap = float("inf") if require_gap is None else read_option(require_gap, "fraction", "--require-gap")
    annotated = [text.removesuffix(ANNOTATED) for text in pin or () if text.endswith(ANNOTATED)]
    pins = _pins(
        [text for text in pin or () if not text.endswith(ANNOTATED)],
        max(loaded.instance.length(model) for model in loaded.spec.models),
        {source: loaded.annotated_pins(source) for source in annotated},
    )
    for warning in loaded.warnings:
        typer.echo(f"planner: warning: {warning}", err=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PlannerWarning)  # told above
        plan = planner.solve(
            loaded,
            method=method,
            routes=routes,  # type: ignore[arg-type]  # checked by solve, which names what was expected
            time_limit_s=limit_s,
            gap=gap,
            rank=rank,  # type: ignore[arg-type]  # checked by solve, which names what was expected
            seed=seed,
            threads=threads,
            max_visits=max_visits,
            max_wait_s=None if max_wait is None else read_option(max_wait, "time", "--max-wait"),
            pins=pins,
            start=start,
            prices=prices,
            worth=True,
            dask=dask,
        )
    if plan and output is not None:
        plan.save(output)
    if plan and picture is not None:
        plan.plot(picture)
    if json:
        print_json(plan.to_dict())
    elif plan:
        print_summary(plan)
        for written in filter(None, (output, picture)):
            typer.echo(f"wrote {written}")
    if not plan:
        _print_reasons(plan)
        raise typer.Exit(1)
    if prices and plan.prices is None:
        typer.echo("planner: interrupted before all prices were known", err=True)
    _check_gap(plan, most_gap)


def _check_gap(plan: Plan, most_gap: float) -> None:
    """Exit with code 1 if the gap of a plan is larger than required."""
    if plan.gap > most_gap:
        typer.echo(f"planner: the gap is {plan.gap:.2%}; at most {most_gap:.2%} is required", err=True)
        raise typer.Exit(1)


def _print_reasons(plan: Plan) -> None:
    """Print why there is no plan."""
    typer.echo(f"planner: {plan.status}", err=True)
    if len(plan.reasons) > 1:
        typer.echo("  there would be a plan if all of these limits gave way together:", err=True)
    for reason in plan.reasons:
        typer.echo(f"  {reason}", err=True)


def _pins(texts: list[str], longest: int, pins: dict[str, dict[int, str]]) -> dict[str, dict[int, str]]:
    """Add pinned stages of models with up to ``longest`` blocks; the first block beyond is kept, to be refused."""
    for text in texts:
        match = PIN.fullmatch(text)
        if match is None:
            expected = "SOURCE:FIRST-LAST=WORKER or SOURCE:annotated"
            raise UsageError("not a pinned stage", where="--pin", value=text, expected=expected)
        first, last = int(match["first"]), int(match["last"] or match["first"])
        if last < first:
            raise UsageError(
                "its last block comes before its first", where="--pin", value=text, expected="FIRST <= LAST"
            )
        own = pins.setdefault(match["source"], {})
        for block in (first, *range(first + 1, min(last, longest) + 1)):
            if own.setdefault(block, match["worker"]) != match["worker"]:
                elsewhere = f"{own[block]} only, as pinned before"
                raise UsageError(f"block {block} is pinned twice", where="--pin", value=text, expected=elsewhere)
    return pins
