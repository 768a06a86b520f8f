"""``planner solve``: a scenario in, a plan with its proven gap out."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from planner.cli.names import METHODS_HELP
from planner.cli.output import JSON_OPTION, print_json, print_table, progress_line
from planner.cli.places import file_to_write, picture_to_write
from planner.errors import PlannerError, UsageError
from planner.plan.types import PlanPrices, PlanSpec, Route, ScenarioReference
from planner.scenario.instance import Instance
from planner.tables import milliseconds

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
    gap: Annotated[float, typer.Option(min=0.0, help="Relative gap at which a plan counts as optimal.")] = 1e-4,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all random choices.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="Number of threads that a solver may use.")] = 1,
    rank: Annotated[str, typer.Option(help="Rank plans by 'evaluated' delay or by 'surrogate' objective.")] = (
        "evaluated"
    ),
    max_visits: Annotated[
        int | None, typer.Option(min=1, help="Maximum number of stages of a sample at one worker.")
    ] = None,
    pin: Annotated[
        list[str] | None, typer.Option(help="Stage that a worker must run: SOURCE:FIRST-LAST=WORKER. Repeatable.")
    ] = None,
    prices: Annotated[
        bool, typer.Option("--prices", help="Show what more memory, more bandwidth or a faster worker would gain.")
    ] = False,
    start: Annotated[Path | None, typer.Option(help="Earlier plan; its routes are tried first.")] = None,
    picture: Annotated[
        Path | None,
        typer.Option(help="Also draw routes over time and all loads, .svg or .png.", callback=picture_to_write),
    ] = None,
    json: bool = JSON_OPTION,
) -> None:
    """Find which worker runs which blocks for which source.

    Exit code 0 when there is a plan, 1 when there is none (the limits to blame are named), 2 for bad input.
    """
    from planner.plan.store import load_plan, plan_document, save_plan
    from planner.scenario.load import load_instance
    from planner.solvers import solve

    instance = load_instance(scenario)
    limit_s = read_time_limit(time_limit)
    pins = _pins(pin or [], max(instance.length(model) for model in instance.scenario.models))
    _warn_of_unknown_accuracy(instance)
    with progress_line() as show:
        solution = solve(
            instance,
            method=method,
            routes=routes,  # type: ignore[arg-type]  # checked by solve, which names what was expected
            time_limit_s=limit_s,
            gap=gap,
            rank=rank,  # type: ignore[arg-type]  # checked by solve, which names what was expected
            seed=seed,
            threads=threads,
            max_visits=max_visits,
            pins=pins,
            start=load_plan(start) if start is not None else None,
            progress=lambda *state: show(_progress(*state)),
        )
    if solution.plan is None:
        if json:
            print_json({"status": solution.status, "blame": list(solution.blame)})
        _tell_blame(solution.status, solution.blame)
        raise typer.Exit(1)
    plan = solution.plan.model_copy(update={"scenario": reference_to(scenario, output)})
    if prices:
        from planner.solvers.sensitivity import sensitivity

        with progress_line() as show:
            priced = sensitivity(instance, plan, time_limit_s=limit_s, progress=lambda what: show(f"pricing {what}"))
        plan = plan.model_copy(update={"prices": priced})
    if output is not None:
        save_plan(plan, output)
    if picture is not None:
        from planner.report.plan import draw_plan

        draw_plan(instance, plan, picture)
    if json:
        print_json(plan_document(plan))
    else:
        print_plan(plan, instance)
        for written in (output, picture):
            if written is not None:
                typer.echo(f"wrote {written}")


def _tell_blame(status: str, blame: Sequence[str]) -> None:
    """Say why there is no plan."""
    typer.echo(f"planner: {status}", err=True)
    if len(blame) > 1:
        typer.echo("  there would be a plan if all of these limits gave way together:", err=True)
    for reason in blame:
        typer.echo(f"  {reason}", err=True)


def _warn_of_unknown_accuracy(instance: Instance) -> None:
    """Say which least accuracies nobody can keep: a model whose accuracy is not known counts as always right."""
    for name, spec in instance.scenario.sources.items():
        unknown = [model for model in spec.models if not instance.any_profile(model).operating_points]
        if spec.min_accuracy and unknown:
            what = (
                f"sources.{name}.min_accuracy counts for nothing: the accuracy of {' and '.join(unknown)} is not known"
            )
            typer.echo(f"planner: warning: {what}; `planner profile measure --calibrate DATA` finds it", err=True)


def read_time_limit(text: str) -> float:
    """Read the value of ``--time-limit``, in seconds."""
    from planner.units import read_quantity

    try:
        return read_quantity(text, "time")
    except PlannerError as error:
        fault = error.faults[0]
        raise UsageError(fault.what, where="--time-limit", value=fault.value, expected=fault.expected) from error


def _pins(texts: list[str], longest: int) -> dict[str, dict[int, str]]:
    """Read pinned stages of models that have up to ``longest`` blocks; the first block beyond them is let through."""
    pins: dict[str, dict[int, str]] = {}
    for text in texts:
        match = PIN.fullmatch(text)
        if match is None:
            raise UsageError("not a pinned stage", where="--pin", value=text, expected="SOURCE:FIRST-LAST=WORKER")
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


def reference_to(scenario: Path, plan: Path | None) -> ScenarioReference:
    """Say which scenario a plan was made for: path relative to the plan's file, and hash."""
    folder = plan.parent if plan is not None else Path()
    return ScenarioReference(
        path=Path(os.path.relpath(scenario.resolve(), folder.resolve())).as_posix(),
        sha256=hashlib.sha256(scenario.read_bytes()).hexdigest(),
    )


def _progress(elapsed_s: float, best: float, bound: float) -> str:
    return f"{elapsed_s:7.1f} s  best {best:.6g}  bound {bound:.6g}"


def print_plan(plan: PlanSpec, instance: Instance) -> None:
    """Print routes, utilisations, and the objective with its gap."""
    from planner.units import format_quantity

    print_table(
        "Routes",
        (
            "source",
            ">share",
            "model",
            "route (worker: blocks)",
            *([">accuracy"] if instance.calibrated else []),
            ">delay",
            ">surrogate",
        ),
        (
            (
                name,
                f"{route.share:.1%}",
                _model(route, instance),
                _describe(route),
                *([f"{own.accuracy:.1%}"] if instance.calibrated else []),
                milliseconds(own.delay_s),
                milliseconds(own.surrogate_delay_s),
            )
            for name, own in plan.sources.items()
            for route in own.routes
        ),
    )
    batch = plan.goal == "makespan"  # a utilisation is then the work of the whole batch, in seconds

    def load(utilisation: float) -> str:
        return format_quantity(utilisation, "time") if batch else f"{utilisation:.1%}"

    print_table(
        "Workers and networks",
        ("name", ">work of the batch" if batch else ">utilisation", ">memory"),
        [
            *(
                (name, load(use.utilisation), f"{use.memory_bytes / 2**20:.0f} MiB")
                for name, use in plan.workers.items()
            ),
            *((name, load(use.utilisation), "") for name, use in plan.networks.items()),
        ],
    )
    if plan.prices is not None:
        _print_prices(plan, plan.prices)
    typer.echo(plan.summary)


def _print_prices(plan: PlanSpec, prices: PlanPrices) -> None:
    def part(worth: float) -> str:
        return f"{worth:.3g} ({worth / max(abs(plan.objective), 1e-9):.2%})"

    rows = [(name, "10 % faster", part(own.faster)) for name, own in prices.workers.items()]
    rows += [
        (name, f"{own.more_memory_bytes / 2**20:.0f} MiB more", part(own.more_memory))
        for name, own in prices.workers.items()
        if own.more_memory_bytes is not None and own.more_memory is not None
    ]
    rows += [(name, "1 Mbit/s more", part(own.mbit_per_s)) for name, own in prices.networks.items()]
    print_table(f"What more would be worth, off the objective (by {prices.by})", ("name", "change", ">worth"), rows)


def _model(route: Route, instance: Instance) -> str:
    """Name a route's model, and its operating point where it has several."""
    points = instance.any_profile(route.model).operating_points
    return f"{route.model} ({points[route.operating_point].name})" if len(points) > 1 else route.model


def _describe(route: Route) -> str:
    return " > ".join(f"{stage.worker}: {stage.first_block}-{stage.last_block}" for stage in route.stages)
