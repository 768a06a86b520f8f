"""``planner simulate``: a scenario in virtual time, under a plan or an online policy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from planner.cli.case import check_fit
from planner.cli.output import JSON_OPTION, milliseconds, print_json, print_table


def command(
    scenario: Annotated[Path, typer.Argument(help="Scenario file (YAML).")],
    *,
    plan: Annotated[Path | None, typer.Option(help="Plan file, for the policy 'planned'.")] = None,
    policy: Annotated[
        str | None, typer.Option(help="local or planned.", show_default="planned with --plan, else local")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the arrivals.")] = 0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for the trace and a picture of it.")
    ] = None,
    json: bool = JSON_OPTION,
) -> None:
    """Run a scenario in virtual time and print the delays of each source."""
    from planner.plan.store import load_plan
    from planner.policy.menu import expected_accuracy
    from planner.scenario.load import load_instance
    from planner.simulate.run import simulate
    from planner.trace.metrics import summarise

    instance = load_instance(scenario)
    loaded = load_plan(plan) if plan is not None else None
    if loaded is not None and plan is not None:
        check_fit(loaded, instance, plan)
    name = policy or ("planned" if loaded is not None else "local")
    records, outcome = simulate(instance, policy=name, plan=loaded, seed=seed)
    priorities = {source: spec.priority for source, spec in instance.scenario.sources.items()}
    metrics = summarise(records, priorities, instance.workers)
    accuracy = expected_accuracy(instance, name, loaded)
    if output is not None:
        from planner.report.timeline import draw_timeline
        from planner.trace.records import write_records

        write_records(output / "trace.jsonl", records)
        draw_timeline(records, output / "timeline.png", instance=instance)
    if json:
        print_json(
            {
                "policy": name,
                "seed": seed,
                "makespan_s": metrics.makespan_s,
                "events": outcome.events,
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
                        "accuracy": accuracy[source],
                    }
                    for source, own in metrics.sources.items()
                },
                "workers": {worker: {"utilisation": share} for worker, share in metrics.utilisation.items()},
            }
        )
        return
    print_table(
        f"Simulated with policy {name}, seed {seed}",
        ("source", ">priority", ">completed", ">failed", ">mean", ">median", ">95 %", ">99 %"),
        (
            (
                source,
                f"{priorities[source]:g}",
                f"{own.completed} of {own.offered}",
                own.failed,
                *(map(milliseconds, (own.mean_delay_s, own.p50_delay_s, own.p95_delay_s, own.p99_delay_s))),
            )
            for source, own in metrics.sources.items()
        ),
    )
    print_table(
        f"{metrics.makespan_s:.1f} s in virtual time",
        ("worker", ">utilisation"),
        ((worker, f"{share:.1%}") for worker, share in metrics.utilisation.items()),
    )
