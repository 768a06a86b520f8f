"""Rates and priorities that change in mid-run, and what ageing does for whom they leave behind; see README.md.

python examples/changing/run.py [--deadlines] [-o FOLDER]
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Final

from planner.cli.output import print_table
from planner.plan.types import PlanSpec
from planner.policy.adaptive import Adaptive
from planner.policy.base import PriorityPolicy
from planner.policy.deadlines import Edf
from planner.policy.routed import Planned
from planner.policy.types import Policy
from planner.report.figure import FAINT, new_figure, source_colours
from planner.scenario.instance import Instance
from planner.scenario.load import load_instance
from planner.simulation.simulator import Simulator
from planner.solvers.solve import solve
from planner.trace.records import Record, SampleRecord

HERE: Final = Path(__file__).parent
PHASES: Final = {
    "calm": (0.0, 30.0),
    "gate busy": (30.0, 90.0),
    "calm again": (90.0, 150.0),
    "gate busy, yard matters": (150.0, 210.0),
    "last": (210.0, 240.0),
}
"""Between the scenario's events, in seconds."""


class WithoutAgeing(Adaptive):
    """``adaptive`` that serves by priority alone."""

    choose = PriorityPolicy.choose


DEADLINES_S: Final = {"gate": 0.5, "yard": 1.5}
"""With ``--deadlines``; late samples are dropped."""


def makers(instance: Instance, plan: PlanSpec) -> dict[str, Callable[[], Policy]]:
    """Return what is compared."""
    return {
        "planned": partial(Planned, instance, plan),
        "adaptive without ageing": partial(WithoutAgeing, instance, plan),
        "adaptive": partial(Adaptive, instance, plan),
    }


def with_deadlines(instance: Instance) -> Instance:
    """Return the scenario with a deadline for the samples of each source."""
    return instance.with_sources(
        {source: {"deadline_s": deadline_s, "late": "drop"} for source, deadline_s in DEADLINES_S.items()}
    )


def deadline_makers(instance: Instance, plan: PlanSpec) -> dict[str, Callable[[], Policy]]:
    """Return what is compared under deadlines: by deadlines alone, by priority and then slack, and by both."""
    return {
        "edf": partial(Edf, instance),
        "planned": partial(Planned, instance, plan),
        "adaptive": partial(Adaptive, instance, plan),
    }


def simulated(instance: Instance, make: Callable[[], Policy]) -> list[SampleRecord]:
    """Simulate one policy."""
    records: list[Record] = []
    Simulator(instance, policy="", plan=None, seed=0, sink=records.append, make=make).run()
    return [record for record in records if isinstance(record, SampleRecord)]


def print_phases(name: str, instance: Instance, samples: Sequence[SampleRecord]) -> None:
    """Print mean and longest delay of the samples that arrive in each phase."""
    rows = []
    for phase, (begin_s, end_s) in PHASES.items():
        cells = []
        for source in instance.sources:
            delays_s = [
                record.delay_s for record in samples if record.source == source and begin_s <= record.created_s < end_s
            ]
            cells += [f"{fmean(delays_s):.2f} s", f"{max(delays_s):.2f} s"]
        rows.append((phase, *cells))
    headings = [heading for source in instance.sources for heading in (f">{source}, mean", ">longest")]
    print_table(name, ("samples that arrive while", *headings), rows)


def print_misses(runs: Mapping[str, Sequence[SampleRecord]], instance: Instance) -> None:
    """Print the share of the samples that miss their deadline, by phase, and of all samples weighted by priority."""
    priorities = {source: spec.priority for source, spec in instance.scenario.sources.items()}
    changed_s = max(event.at_s for event in instance.scenario.events if event.priority is not None)
    (changed,) = [event for event in instance.scenario.events if event.priority is not None]

    def missed(record: SampleRecord) -> bool:
        return record.status != "completed" or record.delay_s > DEADLINES_S[record.source]

    def weight(record: SampleRecord) -> float:
        late = record.source == changed.source and record.created_s >= changed_s
        return changed.priority or 0.0 if late else priorities[record.source]

    rows = []
    for phase, (begin_s, end_s) in PHASES.items():
        for source in instance.sources:
            cells = []
            for samples in runs.values():
                own = [it for it in samples if it.source == source and begin_s <= it.created_s < end_s]
                cells.append(f"{sum(map(missed, own)) / len(own):.1%}")
            rows.append((phase, source, *cells))
    totals = [sum(weight(it) * missed(it) for it in own) / sum(map(weight, own)) for own in runs.values()]
    rows.append(("all, weighted by priority", "", *(f"{total:.1%}" for total in totals)))
    print_table(
        "Late or dropped samples", ("samples that arrive while", "source", *(f">{name}" for name in runs)), rows
    )


def draw(path: Path, instance: Instance, runs: Mapping[str, Sequence[SampleRecord]]) -> None:
    """Draw each sample's delay against its arrival, one panel a policy; the gate's busy times are shaded.

    Samples that were dropped are crosses, at the time when they were.
    """
    colours = source_colours(instance.sources)
    with new_figure(path) as figure:
        panels = figure.subplots(1, len(runs), sharey=True)
        for axes, (name, samples) in zip(panels, runs.items(), strict=True):
            axes.set_title(name)
            axes.set_xlabel("Arrival [s]")
            for phase, (begin_s, end_s) in PHASES.items():
                if "busy" in phase:
                    axes.axvspan(begin_s, end_s, color=FAINT, linewidth=0)
            for source, colour in colours.items():
                for status, mark, label in (("completed", ".", source), ("dropped", "x", None)):
                    own = sorted(
                        (record.created_s, record.delay_s)
                        for record in samples
                        if record.source == source and record.status == status
                    )
                    if own:
                        axes.plot(*zip(*own, strict=True), mark, markersize=4, color=colour, label=label)
            axes.axvline(150, color="black", linewidth=1, linestyle=":")
            axes.text(152, 0.97, "yard 1 → 9", transform=axes.get_xaxis_transform())
            axes.text(32, 0.97, "gate busy", transform=axes.get_xaxis_transform())
        panels[0].set_ylabel("Delay [s]")
        panels[0].set_ylim(bottom=0)
        panels[0].legend(markerscale=4, loc="upper right", bbox_to_anchor=(1.0, 0.95))


def main() -> None:
    """Simulate the scenario under three policies; print the delays by phase, and draw them."""
    parser = ArgumentParser(description=main.__doc__)
    parser.add_argument("-o", "--output", type=Path, default=Path("changing-results"), help="folder for the picture")
    parser.add_argument("--deadlines", action="store_true", help="samples have deadlines, and are dropped when late")
    given = parser.parse_args()
    output: Path = given.output
    instance = load_instance(HERE / "scenario.yaml")
    plan = solve(instance, routes="shared").plan
    if plan is None:
        raise RuntimeError("no plan for the rates at the start")
    if given.deadlines:
        instance = with_deadlines(instance)
        runs = {name: simulated(instance, make) for name, make in deadline_makers(instance, plan).items()}
        print_misses(runs, instance)
        draw(output / "deadlines.png", instance, runs)
        return
    runs = {name: simulated(instance, make) for name, make in makers(instance, plan).items()}
    for name, samples in runs.items():
        print_phases(name, instance, samples)
    draw(output / "delays.png", instance, runs)


if __name__ == "__main__":
    main()
