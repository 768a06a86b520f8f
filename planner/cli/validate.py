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
from planner.cli.verdict import print_folder, print_rehearsed, print_validation, print_where
from planner.errors import UsageError
from planner.plan.types import PlanSpec
from planner.project import load_models, load_project

if TYPE_CHECKING:
    from planner.execution.launch.setting import Setting
    from planner.model.load import ChainModel
    from planner.profiling.operating_points import LabelledSamples
    from planner.validation.validate import Validation


def command(
    plan: Annotated[Path, typer.Argument(help="Plan file, by `planner solve`.")],
    *,
    local: Annotated[
        bool, typer.Option("--local", help="Run on agents of this machine, paced to the scenario, its network too.")
    ] = False,
    netns: Annotated[
        bool,
        typer.Option("--netns", help="Run on agents of this machine, joined by real links held to the scenario's."),
    ] = False,
    connect: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST:PORT", help="Run on agents that are there already: address of one. Repeatable."),
    ] = None,
    unpaced: Annotated[
        bool, typer.Option("--unpaced", help="On this machine: all takes its own time, not the scenario's.")
    ] = False,
    cert_dir: Path | None = CERT_DIR_OPTION,
    insecure: bool = INSECURE_OPTION,
    source: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILE",
            help="A source's own samples, .npz: inputs by name; with `label` its accuracy is measured. Repeatable.",
        ),
    ] = None,
    samples: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Run so many samples of each source at most.")
    ] = None,
    duration: Annotated[
        str | None, typer.Option(metavar="TIME", help="Run what arrives within a time, e.g. 30s.")
    ] = None,
    scenario: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Scenario, instead of the one the plan names.")
    ] = None,
    policy: Annotated[str, typer.Option(metavar="NAME", help=f"One of {POLICIES}.")] = "planned",
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Seed of arrivals and inputs.")] = 0,
    tolerance: Annotated[
        str, typer.Option(metavar="SHARE", help="How far mean delays may be from their prediction.")
    ] = "15 %",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="Run folder to write: traces, logs, verdict, pictures.",
            callback=folder_to_write,
        ),
    ] = None,
    rehearse: Annotated[
        str | None,
        typer.Option(
            help="So long before the run, and after it, samples go as in the run, at other times, e.g. 5s: "
            "the prediction takes what that cost in place of profiles and bandwidths."
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
    from planner.validation.run_folder import write_run_folder
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
    rehearse_s = read_quantity(rehearse, "time") if rehearse is not None else 0.0
    if rehearse_s and not (connect or unpaced):
        raise UsageError(
            "paced workers take the scenario's times: there is nothing to find out",
            where="--rehearse",
            value=rehearse,
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
        setting, case.plan, models, policy=policy, seed=seed, samples=own, later=later or (), rehearse_s=rehearse_s
    )
    pictures = write_run_folder(output, setting.instance, case.plan, validation, allowed) if output is not None else {}
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
            deployment, models, setting.agents, labels=labels, calibrate_s=rehearse_s, say=view.say, observer=view
        )
