"""What early exits give: the front of accuracy and delay, less delay at equal accuracy, more right answers in overload.

Simulated samples are the committed Fashion-MNIST images in turn: each leaves where the trained model's recorded
confidence says, and its answer is right or wrong as recorded. Delays are means over replications. ``--measure`` also
runs the plan on agents of this machine, fed with the images themselves.
"""

from __future__ import annotations

import json
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Final

from planner.cli.output import print_table
from planner.files import write_text_atomic
from planner.plan.store import save_plan
from planner.plan.types import PlanSpec
from planner.profiling.recorded_predictions import RecordedPredictions
from planner.profiling.types import Profile
from planner.report.front import draw_front
from planner.scenario.instance import Instance
from planner.scenario.load import load_instance
from planner.scenario.types import ObjectiveSpec
from planner.simulation.replications import RunSpec, simulate_case
from planner.solvers.pareto import pareto
from planner.solvers.solve import solve
from planner.tables import milliseconds

HERE: Final = Path(__file__).parent
SCENARIO: Final = HERE / "scenario.yaml"
IMAGES: Final = HERE.parents[1] / "models" / "resnet56-exits-fashion.npz"
EQUAL: Final = 0.0045
"""Accuracies that differ by no more count as equal: half a percentage point, less what a few hundred samples that are
shared among routes may miss their shares by."""
ADMITTED_LOAD: Final = 0.9
"""Utilisation up to which admission control lets samples in; beyond it delays grow out of bounds."""
FACTORS: Final = (1.0, 2.0, 3.0, 4.0)


@dataclass(frozen=True)
class Result:
    """Means over replications.

    Parameters
    ----------
    promised
        Accuracy that the operating points promise for the samples that were let in.
    right
        Fraction of all offered samples that got a right answer.
    """

    delay_s: float
    promised: float
    right: float


# ---- scenarios ------------------------------------------------------------------------------------------------------


def without_exits(instance: Instance) -> Instance:
    """Let every sample go through the whole model."""
    profiles = {
        model: {device_class: _whole(profile) for device_class, profile in found.items()}
        for model, found in instance.profiles.items()
    }
    predictions = {
        source: {model: _last(known) for model, known in found.items()}
        for source, found in instance.predictions.items()
    }
    return instance.model_copy(update={"profiles": profiles, "predictions": predictions})


def _whole(profile: Profile) -> Profile:
    best = profile.operating_points[0]
    point = best.model_copy(update={"name": "whole", "thresholds": (), "reach": (1.0,) * len(profile.blocks)})
    return profile.model_copy(update={"exits": (), "operating_points": (point,)})


def _last(predictions: RecordedPredictions) -> RecordedPredictions:
    return RecordedPredictions(
        predictions.confidence[:, -1:], None if predictions.correct is None else predictions.correct[:, -1:]
    )


def changed(instance: Instance, *, factor: float = 1.0, **keys: Any) -> Instance:
    """Change the arrival rates by a factor, and other keys of the sources or the objective."""
    scenario = instance.scenario
    of_objective = {key: value for key, value in keys.items() if key in ObjectiveSpec.model_fields}
    of_sources = {key: value for key, value in keys.items() if key not in of_objective}
    sources = {
        name: spec.model_copy(update={"rate_per_s": factor * (spec.rate_per_s or 0.0), **of_sources})
        for name, spec in scenario.sources.items()
    }
    objective = scenario.objective.model_copy(update=of_objective)
    return instance.model_copy(
        update={"scenario": scenario.model_copy(update={"sources": sources, "objective": objective})}
    )


# ---- what is measured -----------------------------------------------------------------------------------------------


def solved(instance: Instance) -> PlanSpec:
    """Give the best plan that shares samples among routes."""
    plan = solve(instance, routes="shared").plan
    if plan is None:
        raise SystemExit("no plan keeps the scenario's limits")
    return plan


def simulated(instance: Instance, plan: PlanSpec, policy: str, seeds: Sequence[int], admitted: float = 1.0) -> Result:
    """Simulate a plan; ``admitted`` is the share of the offered samples that the instance has."""
    runs = [simulate_case(instance, plan, RunSpec(policy, seed)).metrics for seed in seeds]
    own = [source for run in runs for source in run.sources.values()]
    completed, offered = sum(source.completed for source in own), sum(source.offered for source in own)
    return Result(
        delay_s=fmean(run.priority_weighted_delay_s or 0.0 for run in runs),
        promised=sum(source.completed * (source.accuracy or 0.0) for source in own) / completed,
        right=admitted * sum(source.correct for source in own) / offered,
    )


def equal_accuracy(instance: Instance, seeds: Sequence[int]) -> dict[str, Result]:
    """Compare the least delays with exits and without, at accuracies that differ by half a point at most."""
    whole = changed(without_exits(instance), min_accuracy=None, accuracy_worth_s=0.0)
    best = max(whole.any_profile(model).operating_points[0].accuracy for model in whole.profiles)
    early = changed(instance, min_accuracy=best - EQUAL, accuracy_worth_s=0.0)
    return {
        "without exits": simulated(whole, solved(whole), "planned", seeds),
        "with exits": simulated(early, solved(early), "planned", seeds),
    }


def overload(instance: Instance, factor: float, seeds: Sequence[int]) -> dict[str, Result]:
    """Compare dropping with leaving early when rates are ``factor`` times as high as planned for."""
    whole = changed(without_exits(instance), factor=factor, min_accuracy=None)
    admitted = min(1.0, ADMITTED_LOAD / solved(changed(whole, goal="throughput")).objective)
    thinned = changed(whole, factor=admitted)
    higher, base = changed(instance, factor=factor, min_accuracy=None), changed(instance, min_accuracy=None)
    return {
        f"whole model, {admitted:.0%} let in": simulated(thinned, solved(thinned), "planned", seeds, admitted),
        "exits, plan for this rate": simulated(higher, solved(higher), "planned", seeds),
        "exits, adaptive, plan for rate x 1": simulated(higher, solved(base), "adaptive", seeds),
    }


def print_results(title: str, results: dict[str, Result]) -> None:
    """Print one row a result."""
    print_table(
        title,
        ("", ">delay, weighted by priority", ">accuracy promised", ">right, of all offered"),
        (
            (name, milliseconds(found.delay_s), f"{found.promised:.2%}", f"{found.right:.1%}")
            for name, found in results.items()
        ),
    )


def measure(instance: Instance, folder: Path) -> dict[str, Any]:
    """Run the plan on agents of this machine, each source fed with the labelled images."""
    plan = solved(instance)
    save_plan(plan, folder / "plan.json")
    command = [sys.executable, "-m", "planner", "validate", str(folder / "plan.json"), "--scenario", str(SCENARIO)]
    command += ["--local", "--json", "-o", str(folder / "run")]
    for source in instance.sources:
        command += ["--source", f"{source}={IMAGES}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    found: dict[str, Any] = json.loads(done.stdout)
    print_table(
        f"On agents: {'passed' if found['passed'] else 'NOT PASSED'}",
        ("source", ">mean delay predicted", ">measured", ">accuracy predicted", ">measured", ">95 % interval"),
        (
            (
                name,
                milliseconds(own["predicted"]["mean_delay_s"]),
                milliseconds(own["measured"]["mean_delay_s"]),
                f"{own['predicted']['accuracy']:.1%}",
                f"{own['measured']['accuracy']:.1%}",
                " to ".join(f"{bound:.1%}" for bound in own["accuracy_interval"]),
            )
            for name, own in found["sources"].items()
        ),
    )
    return found


def main() -> None:
    """Draw the front, and compare exits with whole models."""
    parser = ArgumentParser(description=main.__doc__)
    parser.add_argument("--quick", action="store_true", help="one short replication: does it run at all")
    parser.add_argument("--measure", action="store_true", help="also run the plan on this machine, for about a minute")
    parser.add_argument("-o", "--output", type=Path, default=Path("exits-results"), help="folder for results")
    given = parser.parse_args()
    seeds = range(1 if given.quick else 5)
    factors = FACTORS[2:3] if given.quick else FACTORS
    output: Path = given.output
    output.mkdir(parents=True, exist_ok=True)
    instance = load_instance(SCENARIO)

    front = pareto(changed(instance, min_accuracy=None), points=4 if given.quick else 9, routes="shared")
    draw_front(front, output / "front.png")
    print_table(
        "Accuracy against delay",
        (">accuracy", ">delay, weighted by priority"),
        ((f"{point.accuracy:.2%}", milliseconds(point.delay_s)) for point in front),
    )
    report: dict[str, Any] = {"front": [(point.accuracy, point.delay_s) for point in front]}
    equal = equal_accuracy(instance, seeds)
    print_results("Equal accuracy", equal)
    report["equal"] = {name: asdict(result) for name, result in equal.items()}
    report["overload"] = {}
    for factor in factors:
        found = overload(instance, factor, seeds)
        print_results(f"Rates x {factor:g}", found)
        report["overload"][str(factor)] = {name: asdict(result) for name, result in found.items()}
    if given.measure:
        report["measured"] = measure(instance, output)["sources"]
    write_text_atomic(output / "report.json", json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
