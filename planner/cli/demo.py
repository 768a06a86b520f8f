"""``planner demo``: profile, plan, simulate and run an example on this machine."""

from __future__ import annotations

import shutil
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Final

import typer

import planner
from planner.cli.live import RunView
from planner.cli.output import JSON_OPTION, print_contents, print_json, print_summary
from planner.cli.places import folder_to_write
from planner.cli.validate import print_folder, shown_by
from planner.errors import PlannerError
from planner.files import shipped_file

EXAMPLE: Final = "examples/two-cameras/scenario.yaml"
MODEL: Final = "mobilenetv2"
PROFILING_S: Final = 8.0
SOLVING_S: Final = 15.0
TOLERANCE: Final = 0.15


def command(
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder to write all files to.",
            show_default="runs/demo-<time>",
            callback=folder_to_write,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of arrivals and inputs.")] = 0,
    json: bool = JSON_OPTION,
) -> None:
    """Build and profile a model, plan for two cameras, simulate the plan, run it on real processes and compare.

    Exit code 0: all outputs equal those of the whole model and no sample was lost; 1: otherwise.
    """
    from planner.profiling.store import profile_path
    from planner.validation.summary import describe_validation

    folder = output or Path("runs") / f"demo-{datetime.now(timezone.utc).astimezone():%Y%m%d-%H%M%S}"
    scenario_path = folder / EXAMPLE
    scenario_path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(shipped_file(EXAMPLE), scenario_path)
    with RunView(announce=True) as view:
        progress = shown_by(view)
        view.say(f"building {MODEL}")
        model = planner.load_chain(planner.build_model(MODEL, folder / "models" / f"{MODEL}.onnx"))
        profile = planner.profile(model, device_class="this-machine", budget_s=PROFILING_S, progress=progress)
        planner.save_profile(profile, profile_path(folder / "profiles", profile.device_class, MODEL))
        scenario = planner.load_scenario(scenario_path)
        plan = planner.solve(scenario, time_limit_s=SOLVING_S, progress=progress)
    if not plan:
        what = "this machine is too slow for the example"
        raise PlannerError(what, where=str(scenario_path), value="; ".join(plan.reasons))
    plan.save(folder / "plan.json")
    if not json:
        print_summary(plan)
    samples = {name: scenario.instance.samples(name) for name in scenario.sources}
    with RunView(samples, announce=True) as view:
        verdict = planner.validate(plan, seed=seed, tolerance=TOLERANCE, progress=shown_by(view), observer=view)
    pictures = verdict.save(folder / "run")
    if json:
        print_json(verdict.to_dict())
    else:
        print_folder(folder, pictures)
        print_contents(describe_validation(verdict.validation, TOLERANCE))
    if not verdict.sound:
        raise typer.Exit(1)
