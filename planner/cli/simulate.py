"""``planner simulate``: a scenario in virtual time, under a plan or an online policy, or under all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from planner.cli.names import POLICIES
from planner.cli.output import JSON_OPTION, print_json, print_table, progress_bar
from planner.cli.places import folder_to_write
from planner.plan.types import PlanSpec
from planner.project import check_fit
from planner.scenario.instance import Instance
from planner.tables import milliseconds
from planner.trace.metrics import Interval, interval
from planner.trace.records import Record, SampleRecord

if TYPE_CHECKING:
    from planner.simulation.replications import Replication, RunSpec

ALL: Final = "all"

DRAWN: Final = 5000
"""Records of a run that its timeline shows; with more, the bars would be too thin to see."""


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
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder to write traces and pictures to.", callback=folder_to_write),
    ] = None,
    json: bool = JSON_OPTION,
) -> None:
    """Run a scenario in virtual time and print the delays of each source.

    With --repeat figures are means over the runs, with 95 % confidence intervals. With --policy all each policy meets
    the same arrivals; those that follow a plan take part when there is one.
    """
    from planner.plan.store import load_plan
    from planner.scenario.load import load_instance

    instance = load_instance(scenario)
    loaded = load_plan(plan) if plan is not None else None
    if loaded is not None and plan is not None:
        check_fit(loaded, instance, plan)
    names = _policies(policy, instance, loaded)
    runs = _simulate(instance, loaded, names, range(seed, seed + repeat), output)
    if output is not None:
        from planner.report.policies import draw_policies

        draw_policies({name: [run.metrics for run in found] for name, found in runs.items()}, output / "delays.png")
        if loaded is not None:
            from planner.report.plan import draw_plan

            draw_plan(instance, loaded, output / "plan.png")
    documents = {name: [_document(run) for run in found] for name, found in runs.items()}
    if json:
        printed = {name: _printed(found, name, seed) for name, found in documents.items()}
        print_json({"policies": printed} if policy == ALL else printed[names[0]])
        return
    intervals = {name: _fold(found, interval) for name, found in documents.items()}
    seeds = f"seed {seed}" if repeat == 1 else f"seeds {seed} to {seed + repeat - 1}"
    if policy == ALL:
        _print_policies(intervals, instance, seeds)
    else:
        _print_policy(intervals[names[0]], instance, f"Simulated with policy {names[0]}, {seeds}")
    if output is not None:
        typer.echo(f"wrote traces and pictures to {output}")


def _policies(policy: str | None, instance: Instance, plan: PlanSpec | None) -> list[str]:
    from planner.policy.registry import POLICIES, make_policy, needs_plan

    if policy == ALL:
        return [name for name in POLICIES if plan is not None or not needs_plan(name)]
    name = policy or ("planned" if plan is not None else "local")
    make_policy(name, instance, plan)  # refuses what cannot be run before anything is
    return [name]


# ---- the runs -------------------------------------------------------------------------------------------------------


def _simulate(
    instance: Instance, plan: PlanSpec | None, names: Sequence[str], seeds: Sequence[int], output: Path | None
) -> dict[str, list[Replication]]:
    """Make all runs; several get a trace each, a single one a picture of it, too."""
    from planner.simulation.replications import RunSpec, simulate_cases
    from planner.solvers.replan.replanner import replanner

    if len(names) * len(seeds) == 1:
        trace = None if output is None else output / "trace.jsonl"
        return {names[0]: [_simulate_one(instance, plan, RunSpec(names[0], seeds[0], trace))]}
    cases = [
        RunSpec(name, seed, None if output is None else output / f"trace-{name}-{seed}.jsonl")
        for name in names
        for seed in seeds
    ]
    with progress_bar() as progress:
        made = simulate_cases(instance, plan, cases, replanner=replanner)
        runs = list(progress.track(made, total=len(cases), description="simulating"))
    runs.sort(key=lambda run: run.case.seed)
    return {name: [run for run in runs if run.case.policy == name] for name in names}


def _simulate_one(instance: Instance, plan: PlanSpec | None, case: RunSpec) -> Replication:
    from planner.simulation.replications import simulate_case
    from planner.solvers.replan.replanner import replanner

    drawn: list[Record] = []

    def draw(record: Record) -> None:
        if len(drawn) < DRAWN:
            drawn.append(record)

    with progress_bar() as progress:
        task = progress.add_task("simulating", total=sum(map(instance.samples, instance.sources)))

        def count(record: Record) -> None:
            if isinstance(record, SampleRecord):
                progress.advance(task)

        run = simulate_case(instance, plan, case, draw, count, replanner=replanner)
    if case.trace is not None:
        from planner.report.timeline import draw_timeline

        draw_timeline(drawn, case.trace.with_name("timeline.png"), instance=instance)
    return run


# ---- what is printed ------------------------------------------------------------------------------------------------


def _document(run: Replication) -> dict[str, Any]:
    """Give the figures of one run under the keys that ``--json`` prints."""
    metrics = run.metrics
    return {
        "makespan_s": metrics.makespan_s,
        "events": run.simulation.events,
        "priority_weighted_delay_s": metrics.priority_weighted_delay_s,
        "sources": {
            source: {
                "offered": own.offered,
                "completed": own.completed,
                "failed": own.failed,
                "mean_delay_s": own.mean_delay_s,
                "p50_delay_s": own.p50_delay_s,
                "p95_delay_s": own.p95_delay_s,
                "p99_delay_s": own.p99_delay_s,
                "accuracy": own.accuracy,
                "measured_accuracy": own.measured_accuracy,
            }
            for source, own in metrics.sources.items()
        },
        "workers": {worker: {"utilisation": share} for worker, share in metrics.utilisation.items()},
    }


def _fold(documents: Sequence[Any], combine: Callable[[list[float]], Any]) -> Any:
    """Combine documents of equal structure figure by figure; a figure that none has is None."""
    if isinstance(documents[0], dict):
        return {key: _fold([document[key] for document in documents], combine) for key in documents[0]}
    values = [value for value in documents if value is not None]
    return combine(values) if values else None


def _printed(documents: Sequence[dict[str, Any]], name: str, seed: int) -> dict[str, Any]:
    """Give one policy's JSON: the run's figures, or means over the runs with half-widths of their intervals."""
    if len(documents) == 1:
        return {"policy": name, "seed": seed, **documents[0]}
    means = _fold(documents, lambda values: interval(values).mean)
    half_widths = _fold(documents, lambda values: interval(values).half_width)
    return {"policy": name, "seed": seed, "replications": len(documents), **means, "half_widths": half_widths}


def _print_policy(figures: dict[str, Any], instance: Instance, title: str) -> None:
    keys = ("mean_delay_s", "p50_delay_s", "p95_delay_s", "p99_delay_s")
    print_table(
        title,
        ("source", ">priority", ">completed", ">failed", ">mean", ">median", ">95 %", ">99 %"),
        (
            (
                source,
                f"{instance.scenario.sources[source].priority:g}",
                f"{own['completed'].mean:g} of {own['offered'].mean:g}",
                f"{own['failed'].mean:g}",
                *(_delay(own[key]) for key in keys),
            )
            for source, own in figures["sources"].items()
        ),
    )
    if instance.calibrated:
        print_table(
            "Accuracy of the results",
            ("source", ">promised", ">right"),
            (
                (source, _percent(own["accuracy"]), _percent(own["measured_accuracy"]))
                for source, own in figures["sources"].items()
            ),
        )
    print_table(
        f"{figures['makespan_s'].mean:.1f} s in virtual time",
        ("worker", ">utilisation"),
        ((worker, f"{own['utilisation'].mean:.1%}") for worker, own in figures["workers"].items()),
    )


def _print_policies(policies: Mapping[str, dict[str, Any]], instance: Instance, seeds: str) -> None:
    print_table(
        f"Mean delays under each policy, the same arrivals for all, {seeds}",
        (
            "policy",
            ">weighted by priority",
            ">accuracy",
            *(f">{source}, priority {spec.priority:g}" for source, spec in instance.scenario.sources.items()),
            ">failed",
            ">makespan",
        ),
        (
            (
                name,
                _delay(figures["priority_weighted_delay_s"]),
                _percent(_weighted_accuracy(figures, instance)),
                *(_delay(own["mean_delay_s"]) for own in figures["sources"].values()),
                f"{sum(own['failed'].mean for own in figures['sources'].values()):g}",
                f"{figures['makespan_s'].mean:.1f} s",
            )
            for name, figures in policies.items()
        ),
    )


def _weighted_accuracy(figures: dict[str, Any], instance: Instance) -> Interval | None:
    """Give the mean of the accuracies promised, with the weights of the mean delay."""
    known = {source: own for source, own in figures["sources"].items() if own["accuracy"] is not None}
    weights = {
        source: own["completed"].mean * instance.scenario.sources[source].priority for source, own in known.items()
    }
    total = sum(weights.values())
    mean = sum(weights[source] * own["accuracy"].mean for source, own in known.items())
    return Interval(mean / total, None) if total else None


def _percent(found: Interval | None) -> str:
    return "–" if found is None else f"{found.mean:.1%}"


def _delay(found: Interval | None) -> str:
    if found is None or found.half_width is None:
        return milliseconds(None if found is None else found.mean)
    return f"{found.mean * 1e3:.1f} ± {found.half_width * 1e3:.1f} ms"
