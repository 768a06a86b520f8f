"""``planner demo``: the main job, end to end, on this machine."""

from __future__ import annotations

import shutil
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Final

import typer

from planner.cli.live import RunView
from planner.cli.output import JSON_OPTION, print_json
from planner.cli.places import folder_to_write
from planner.cli.solve import print_plan, reference_to
from planner.cli.validate import run_in
from planner.cli.verdict import print_folder, print_validation
from planner.errors import PlannerError
from planner.project import load_models

EXAMPLE: Final = Path("examples/two-cameras/scenario.yaml")
MODEL: Final = "mobilenetv2"
PROFILING_S: Final = 8.0
SOLVING_S: Final = 15.0
TOLERANCE: Final = 0.15


def command(
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Folder to write.", show_default="runs/demo-<time>", callback=folder_to_write
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of arrivals and inputs.")] = 0,
    json: bool = JSON_OPTION,
) -> None:
    """Build a model, profile it, plan for two cameras, simulate the plan, run it on real processes, compare.

    Exit code 0 when every output agrees with the whole model's and no sample was lost.
    """
    from planner.execution.launch.setting import on_this_host
    from planner.model.load import load_chain
    from planner.model.reference import build_model
    from planner.plan.store import save_plan
    from planner.profiling.measure import measure
    from planner.profiling.store import profile_path, save_profile
    from planner.scenario.load import load_instance, load_scenario
    from planner.solvers import solve
    from planner.validation.run_folder import write_run_folder
    from planner.validation.validate import validation_document

    folder = output or Path("runs") / f"demo-{datetime.now(timezone.utc).astimezone():%Y%m%d-%H%M%S}"
    scenario = folder / EXAMPLE
    scenario.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(find_example(), scenario)
    (spec,) = load_scenario(scenario).models.values()
    with RunView() as view:
        say = view.say
        say(f"building {MODEL}")
        model_path = build_model(MODEL, folder / "models" / f"{MODEL}.onnx")
        model = load_chain(model_path, max_blocks=spec.max_blocks)
        profile = measure(
            model,
            device_class="this-machine",
            budget_s=PROFILING_S,
            progress=say(f"profiling its {len(model.chain)} blocks on this machine"),
        )
        save_profile(profile, profile_path(folder / "profiles", profile.device_class, MODEL))
        instance = load_instance(scenario)
        say("solving")
        solution = solve(instance, time_limit_s=SOLVING_S)
    if solution.plan is None:
        raise PlannerError(
            "this machine is too slow for the example", where=str(scenario), value="; ".join(solution.blame)
        )
    plan_path = folder / "plan.json"
    plan = solution.plan.model_copy(update={"scenario": reference_to(scenario, plan_path)})
    save_plan(plan, plan_path)
    if not json:
        print_plan(plan, instance)
    setting = on_this_host(instance, paced=True)
    validation = run_in(setting, plan, load_models(scenario, instance), policy="planned", seed=seed)
    pictures = write_run_folder(folder / "run", instance, plan, validation, TOLERANCE)
    if json:
        print_json(validation_document(validation, TOLERANCE))
    else:
        print_validation(validation, TOLERANCE)
        print_folder(folder, pictures)
    if not validation.sound:
        raise typer.Exit(1)


def find_example() -> Path:
    """Give the example's scenario: beside the package in a checkout, inside it when installed.

    Raises
    ------
    PlannerError
        It is in neither place.
    """
    package = Path(__file__).parents[1]
    for base in (package.parent, package):
        if (base / EXAMPLE).is_file():
            return base / EXAMPLE
    raise PlannerError("the example is not installed", where=str(package), expected=str(EXAMPLE))
