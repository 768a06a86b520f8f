"""``planner validate``: run a plan for real and hold it against its prediction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from planner.cli.output import JSON_OPTION, milliseconds, print_json, print_table, progress_bar
from planner.errors import UsageError
from planner.plan.case import load_case, load_models
from planner.plan.types import Plan
from planner.scenario.instance import Instance

CLOSE_UP_S: Final = 2.0
"""Length of the part of a run that is drawn large enough to follow single samples."""

if TYPE_CHECKING:
    from planner.model.load import ChainModel
    from planner.profile.calibrate import Samples
    from planner.validate.run import Progress, Say, Validation


def command(
    plan: Annotated[Path, typer.Argument(help="Plan file, by `planner solve`.")],
    *,
    local: Annotated[
        bool, typer.Option("--local", help="One agent process a worker on this machine, paced to the scenario.")
    ] = False,
    source: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILE",
            help="A source's own samples, .npz: inputs by name; with `label` its accuracy is measured. Repeatable.",
        ),
    ] = None,
    scenario: Annotated[Path | None, typer.Option(help="Scenario file, instead of the one the plan names.")] = None,
    policy: Annotated[str, typer.Option(help="A policy by name.")] = "planned",
    seed: Annotated[int, typer.Option(min=0, help="Seed of arrivals and inputs.")] = 0,
    tolerance: Annotated[str, typer.Option(help="How far mean delays may be from their prediction.")] = "15 %",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Run folder to write: traces, logs, verdict, pictures.")
    ] = None,
    json: bool = JSON_OPTION,
) -> None:
    """Run a plan on real agents and say whether outputs are equal and delays as predicted.

    Exit code 0 when the run passed, 1 when it did not, 2 for bad input.
    """
    from planner.units import read_quantity
    from planner.validate.run import validation_document
    from planner.validate.samples import read_sources

    if not local:
        raise UsageError("where to run is not said", where="planner validate", expected="--local")
    allowed = read_quantity(tolerance, "fraction")
    case = load_case(plan, scenario)
    models = load_models(case.scenario_path, case.instance)
    chains = {name: model.chain for name, model in models.items()}
    samples = read_sources(source or (), case.instance, chains)
    with stepwise_progress() as say:
        validation = run_locally(case.instance, case.plan, models, policy=policy, seed=seed, say=say, samples=samples)
    if output is not None:
        write_folder(output, case.instance, case.plan, validation, allowed)
    if json:
        print_json(validation_document(validation, allowed))
    else:
        print_validation(validation, allowed)
    if not validation.passed(allowed):
        raise typer.Exit(1)


@contextmanager
def stepwise_progress() -> Iterator[Say]:
    """Give what begins a step of the work on the progress bar."""
    with progress_bar() as progress:

        def say(step: str) -> Progress:
            for earlier in progress.tasks:
                progress.update(earlier.id, total=1, completed=1)
            task = progress.add_task(step, total=None)
            return lambda done, total: progress.update(task, completed=done, total=total)

        yield say


def run_locally(
    instance: Instance,
    plan: Plan,
    models: Mapping[str, ChainModel],
    *,
    policy: str,
    seed: int,
    say: Say,
    samples: Mapping[str, Samples] | None = None,
) -> Validation:
    """Validate with agents on this machine; their cache of block models goes when they do."""
    import tempfile

    from planner.execute.deployment import deploy
    from planner.execute.local import local_agents
    from planner.validate.emulate import EmulatedNetwork
    from planner.validate.run import validate

    own = samples or {}
    sent = {name: [found.sample(index) for index in range(len(found))] for name, found in own.items()}
    labels = {name: found.labels for name, found in own.items() if found.labels is not None}
    deployment = deploy(
        instance, plan, models, policy=policy, seed=seed, paced=True, emulation=EmulatedNetwork(instance), sent=sent
    )
    with tempfile.TemporaryDirectory(prefix="planner-") as cache:
        return validate(deployment, models, local_agents(instance.workers, Path(cache)), labels=labels, say=say)


def write_folder(
    folder: Path, instance: Instance, plan: Plan, validation: Validation, tolerance: float
) -> dict[str, Path]:
    """Write the run folder with its pictures; give the pictures by what they show."""
    from planner.report.delays import draw_delays
    from planner.report.timeline import busiest_window, draw_timeline
    from planner.validate.folder import write_run

    write_run(folder, instance, plan, validation, tolerance)
    predicted, measured = validation.predicted, validation.measurement.records
    pictures = {name: folder / f"{name}.png" for name in ("timeline", "close-up", "delays")}
    draw_timeline(measured, pictures["timeline"], predicted=predicted, instance=instance)
    window_s = busiest_window(predicted, CLOSE_UP_S)
    draw_timeline(measured, pictures["close-up"], predicted=predicted, instance=instance, window_s=window_s)
    draw_delays(measured, pictures["delays"], predicted=predicted, sources=instance.sources)
    return pictures


def print_validation(validation: Validation, tolerance: float) -> None:
    """Print predicted and measured delays side by side, and the verdict."""
    rows = []
    for name, own in validation.sources.items():
        ratio = own.error_ratio
        rows.append(
            (
                name,
                f"{own.measured.completed} of {own.predicted.offered}",
                milliseconds(own.predicted.mean_delay_s),
                milliseconds(own.measured.mean_delay_s),
                "–" if ratio is None else f"{ratio:+.1%}",
                milliseconds(own.predicted.p95_delay_s),
                milliseconds(own.measured.p95_delay_s),
            )
        )
    print_table(
        "Delay of each source, predicted and measured",
        ("source", ">completed", ">mean predicted", ">measured", ">error", ">95 % predicted", ">measured"),
        rows,
    )
    for name, own in validation.sources.items():
        predicted, measured, bounds = own.predicted.accuracy, own.measured.measured_accuracy, own.accuracy_interval
        if predicted is not None and bounds is not None:
            less = "" if own.accurate else ": LESS THAN PREDICTED"
            interval = f"95 % interval {bounds.low:.1%} to {bounds.high:.1%}"
            typer.echo(f"accuracy of {name}: predicted {predicted:.1%}, measured {measured:.1%} ({interval}){less}")
    numerics = validation.numerics
    typer.echo(
        f"outputs {'equal' if numerics.equal else 'DIFFER'}: {numerics.samples} samples against the whole model, "
        f"largest relative error {numerics.max_rel_error:.1e}; lost {validation.lost}, failed {validation.failed}, "
        f"duplicates {validation.duplicates}"
    )
    for incident in validation.measurement.incidents:
        typer.echo(f"at {incident.at_s:.2f} s: {incident.worker} {incident.what}".replace(":  ", ": "))
    if validation.host_limited:
        typer.echo("this host was too slow or too busy at times: some blocks took longer than the scenario allows")
    typer.echo(f"{'passed' if validation.passed(tolerance) else 'NOT PASSED'} (mean delays within {tolerance:.0%})")
