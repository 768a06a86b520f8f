"""``planner validate``: run a plan for real and hold it against its prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner.cli.live import RunView
from planner.cli.members import CERT_DIR_OPTION, INSECURE_OPTION, LATER_OPTION
from planner.cli.names import POLICIES
from planner.cli.output import JSON_OPTION, print_json
from planner.cli.places import folder_to_write
from planner.cli.verdict import print_folder, print_rehearsed, print_validation, print_where, write_folder
from planner.errors import UsageError
from planner.plan.types import PlanSpec
from planner.project import load_models, load_project

if TYPE_CHECKING:
    from planner.execution.launch.setting import Setting
    from planner.model.load import ChainModel
    from planner.profiling.operating_points import LabelledSamples
    from planner.validation.validate import Validation


def command(
    plan: Annotated[Path, typer.Argument(help="Plan file from `planner solve`.")],
    *,
    local: Annotated[
        bool,
        typer.Option(
            "--local", help="Run on agents on this machine, with workers and network paced as in the scenario."
        ),
    ] = False,
    netns: Annotated[
        bool,
        typer.Option(
            "--netns", help="Run on agents on this machine, connected by real links with the scenario's bandwidths."
        ),
    ] = False,
    connect: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST:PORT", help="Run on agents that are already running: address of one of them. Repeatable."
        ),
    ] = None,
    unpaced: Annotated[
        bool,
        typer.Option("--unpaced", help="With --local or --netns: run at this machine's own speed, not the scenario's."),
    ] = False,
    cert_dir: Path | None = CERT_DIR_OPTION,
    insecure: bool = INSECURE_OPTION,
    source: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILE",
            help="Samples of a source: .npz file with inputs by name. With `label`, accuracy is measured. Repeatable.",
        ),
    ] = None,
    samples: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Maximum number of samples per source.")
    ] = None,
    duration: Annotated[
        str | None, typer.Option(metavar="TIME", help="Run only the samples that arrive within TIME, such as 30s.")
    ] = None,
    scenario: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Scenario to use instead of the plan's.")
    ] = None,
    policy: Annotated[str, typer.Option(metavar="NAME", help=f"One of {POLICIES}.")] = "planned",
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Seed of arrivals and random inputs.")] = 0,
    tolerance: Annotated[
        str, typer.Option(metavar="SHARE", help="Maximum relative error of predicted mean delays.")
    ] = "15 %",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="Folder to write traces, logs, verdict and pictures to.",
            callback=folder_to_write,
        ),
    ] = None,
    calibrate: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Calibrate for TIME before and after the run and predict from what it measures."
        ),
    ] = None,
    later: list[str] | None = LATER_OPTION,
    json: bool = JSON_OPTION,
) -> None:
    """Run a plan on real agents and say whether outputs are equal and delays as predicted.

    Exit code 0 when the run passed, 1 when it did not, 2 for bad input.
    """
    from planner.execution.launch.remote import remote_agents, there_at_first
    from planner.execution.launch.setting import Setting, first_samples, first_seconds, in_namespaces, on_this_host
    from planner.units import read_quantity
    from planner.validation.samples import read_sources
    from planner.validation.validate import validation_document

    if (local, netns, bool(connect)).count(True) != 1:
        raise UsageError(
            "where to run is not said, or said twice",
            where="planner validate",
            expected="--local, --netns or --connect",
        )
    allowed = read_quantity(tolerance, "fraction")
    lasts_s = read_quantity(duration, "time") if duration is not None else None
    calibrate_s = read_quantity(calibrate, "time") if calibrate is not None else 0.0
    if calibrate_s and not (connect or unpaced):
        raise UsageError(
            "paced workers take the times of the scenario, so there is nothing to calibrate",
            where="--calibrate",
            value=calibrate,
            expected="with --unpaced or --connect",
        )
    case = load_project(plan, scenario)
    models = load_models(case.scenario_path, case.instance)
    own = read_sources(source or (), case.instance, {name: model.chain for name, model in models.items()})
    instance = case.instance
    at_first = there_at_first(instance.workers, later or (), connect or ())
    if lasts_s is not None:
        instance = first_seconds(instance, lasts_s, seed)
    if samples is not None:
        instance = first_samples(instance, samples)
    if connect:
        setting = Setting(instance, remote_agents(at_first, connect, cert_dir=cert_dir, insecure=insecure))
    else:
        setting = (in_namespaces if netns else on_this_host)(instance, paced=not unpaced)
    validation = run_in(
        setting, case.plan, models, policy=policy, seed=seed, samples=own, later=later or (), rehearse_s=calibrate_s
    )
    pictures = write_folder(output, setting.instance, case.plan, validation, allowed) if output is not None else {}
    if json:
        print_json(validation_document(validation, allowed))
    else:
        print_where(validation)
        print_rehearsed(validation)
        print_validation(validation, allowed)
        if output is not None:
            print_folder(output, pictures)
    if not validation.passed(allowed):
        raise typer.Exit(1)


def run_in(
    setting: Setting,
    plan: PlanSpec,
    models: Mapping[str, ChainModel],
    *,
    policy: str,
    seed: int,
    samples: Mapping[str, LabelledSamples] | None = None,
    later: Sequence[str] = (),
    rehearse_s: float = 0.0,
) -> Validation:
    """Validate, and show what goes on."""
    from planner.execution.coordinator.deployment import deploy
    from planner.solvers.replan.process import ReplanProcess
    from planner.validation.validate import validate

    own = samples or {}
    deployment = deploy(
        setting.instance,
        plan,
        models,
        policy=policy,
        seed=seed,
        paced=setting.paced,
        emulation=setting.emulation,
        sent={name: [found.sample(index) for index in range(len(found))] for name, found in own.items()},
        later=later,
        replan=ReplanProcess,
    )
    labels = {name: found.labels for name, found in own.items() if found.labels is not None}
    with RunView({source: setting.instance.samples(source) for source in setting.instance.sources}) as view:
        return validate(
            deployment, models, setting.agents, labels=labels, rehearse_s=rehearse_s, say=view.say, observer=view
        )
