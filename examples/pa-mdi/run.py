"""PA-MDI against other policies on a testbed like its paper's: capacity, delays by load, ablation, curves.

Every figure is a mean over replications in virtual time; all policies meet the same seeds. A policy carries a load when
each source's last result comes soon after its last sample: under an overload that takes in proportion to the run.
"""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Final

from curves import draw_lines

from planner.cli.output import print_table
from planner.files import write_text_atomic
from planner.plan.types import PlanSpec
from planner.policy.pa_mdi import PaMdi
from planner.policy.registry import needs_plan
from planner.policy.types import Policy
from planner.scenario.instance import Instance
from planner.scenario.load import load_instance
from planner.scenario.paths import find_paths
from planner.simulation.simulator import Simulator
from planner.solvers.solve import solve
from planner.tables import milliseconds
from planner.trace.records import Record, SampleRecord

HERE: Final = Path(__file__).parent
URGENT: Final = "alarm"
EXISTING: Final = ("local", "ar-mdi", "ms-mdi")
"""What the paper compares with."""
POLICIES: Final = (*EXISTING, "pa-mdi", "ddi", "planned", "adaptive")
LOADS: Final = (0.2, 0.3, 0.5, 0.7, 0.9)
"""At 0.2 all existing policies are stable."""
DRAIN: Final = 0.1
"""A run is stable when every source's last result comes within this share of its length after its last sample."""
LARGEST_FACTOR: Final = 8.0

ABLATION: Final[dict[str, Callable[[], Policy]]] = {
    "pa-mdi": PaMdi,
    "without priorities": lambda: PaMdi(priorities=False),
    "without hand-shake": lambda: PaMdi(clearance=False),
    "without choice of cuts": lambda: PaMdi(blocks=0),
}


class SourceDelays:
    """A sink that keeps each source's delays, and how long after its last sample its last result came."""

    def __init__(self) -> None:
        self._samples: dict[str, list[SampleRecord]] = defaultdict(list)

    def add(self, record: Record) -> None:
        """Take one record."""
        if isinstance(record, SampleRecord):
            if record.status != "completed":
                raise RuntimeError(f"sample {record.sample} of {record.source} was lost: {record.reason}")
            self._samples[record.source].append(record)

    def mean_s(self, source: str) -> float:
        """Give a source's mean delay, in seconds."""
        return fmean(record.delay_s for record in self._samples[source])

    def drain_s(self) -> float:
        """Give the longest time from a source's last sample to its last result, in seconds."""
        return max(
            max(record.finished_s for record in records) - max(record.created_s for record in records)
            for records in self._samples.values()
        )


@dataclass(frozen=True)
class Effort:
    """How much is simulated: length of a run in seconds, replications, halvings of the search for a capacity."""

    length_s: float
    replications: int
    halvings: int


@dataclass(frozen=True)
class Result:
    """Mean delays by source, in seconds, and whether all replications drained soon."""

    delays_s: dict[str, float]
    stable: bool


def scaled(instance: Instance, factor: float, length_s: float) -> Instance:
    """Scale all rates, and offer samples for so long."""
    sources = {}
    for name, spec in instance.scenario.sources.items():
        rate_per_s = factor * (spec.rate_per_s or 0.0)
        samples = max(round(rate_per_s * length_s), 5)
        sources[name] = spec.model_copy(update={"rate_per_s": rate_per_s, "samples": samples})
    return instance.model_copy(update={"scenario": instance.scenario.model_copy(update={"sources": sources})})


def with_priority(instance: Instance, source: str, priority: float) -> Instance:
    """Change a source's priority."""
    spec = instance.scenario.sources[source].model_copy(update={"priority": priority})
    sources = {**instance.scenario.sources, source: spec}
    return instance.model_copy(update={"scenario": instance.scenario.model_copy(update={"sources": sources})})


def first_workers(instance: Instance, count: int) -> Instance:
    """Keep the first workers and the cables between them."""
    kept = instance.workers[:count]
    networks = {
        name: network.model_copy(update={"links": tuple(link for link in network.links if set(link) <= set(kept))})
        for name, network in instance.scenario.networks.items()
    }
    workers = {name: instance.worker(name) for name in kept}
    scenario = instance.scenario.model_copy(update={"workers": workers, "networks": networks})
    return Instance(scenario=scenario, profiles=instance.profiles, paths=find_paths(scenario))


def plan_for(instance: Instance) -> PlanSpec | None:
    """Solve for shared routes; None when the load is more than any plan can carry."""
    return solve(instance, routes="shared", time_limit_s=5.0).plan


def run(instance: Instance, policy: str, effort: Effort, make: Callable[[], Policy] | None = None) -> Result:
    """Simulate a policy with all seeds."""
    plan = plan_for(instance) if make is None and needs_plan(policy) else None
    if make is None and needs_plan(policy) and plan is None:
        return Result({}, stable=False)
    delays_s: dict[str, list[float]] = {source: [] for source in instance.sources}
    stable = True
    for seed in range(effort.replications):
        metrics = SourceDelays()
        Simulator(instance, policy=policy, plan=plan, seed=seed, sink=metrics.add, make=make).run()
        stable &= metrics.drain_s() <= DRAIN * effort.length_s
        for source in instance.sources:
            delays_s[source].append(metrics.mean_s(source))
    return Result({source: fmean(values) for source, values in delays_s.items()}, stable)


def carries(instance: Instance, policy: str, effort: Effort, make: Callable[[], Policy] | None = None) -> float:
    """Give the largest factor on the rates at which a policy is stable, by halving an interval of logarithms."""
    one = Effort(effort.length_s, 1, effort.halvings)
    low, high = LARGEST_FACTOR / 64, LARGEST_FACTOR
    for _ in range(effort.halvings):
        middle = (low * high) ** 0.5
        if run(scaled(instance, middle, effort.length_s), policy, one, make).stable:
            low = middle
        else:
            high = middle
    return low


def gain(results: Mapping[str, Result]) -> dict[str, float] | None:
    """Say by what share the urgent source's delay is shorter than under each existing policy, if all are stable."""
    if not all(results[policy].stable for policy in (*EXISTING, "pa-mdi")):
        return None
    own = results["pa-mdi"].delays_s[URGENT]
    return {policy: 1 - own / results[policy].delays_s[URGENT] for policy in EXISTING}


def print_headline(name: str, gains: Mapping[str, Mapping[str, float] | None]) -> None:
    """Print by how much PA-MDI is ahead for the urgent source, where every policy is stable."""
    rows = [
        (load, *("–" if found is None else f"{found[policy]:.1%}" for policy in EXISTING))
        for load, found in gains.items()
    ]
    print_table(f"{name}: mean delay of {URGENT} under pa-mdi, lower than under", ("ρ", *EXISTING), rows)


def compare(instance: Instance, effort: Effort, name: str) -> dict[str, object]:
    """Compare all policies at all loads on one graph."""
    capacities = {policy: carries(instance, policy, effort) for policy in (*EXISTING, "pa-mdi")}
    full = max(capacities.values())
    print_table(f"{name}: rates carried, as a factor", (*capacities,), [[f"{own:.2f}" for own in capacities.values()]])
    loads, headline = {}, {}
    for load in LOADS:
        at = scaled(instance, load * full, effort.length_s)
        results = {policy: run(at, policy, effort) for policy in POLICIES}
        gains = gain(results)
        loads[f"{load:g}"] = {"gain": gains, "results": {policy: asdict(result) for policy, result in results.items()}}
        print_delays(f"{name}: mean delays at ρ = {load:g}", instance.sources, results)
        headline[f"{load:g}"] = gains
    print_headline(name, headline)
    return {"capacities": capacities, "loads": loads}


def print_delays(title: str, sources: Sequence[str], results: Mapping[str, Result]) -> None:
    """Print delays by source, and PA-MDI's urgent one as a multiple of each policy's."""
    own = results["pa-mdi"].delays_s[URGENT]
    print_table(
        title,
        ("policy", *(f">{source}" for source in sources), ">stable", f">{URGENT}: pa-mdi / this"),
        (
            (
                policy,
                *(milliseconds(result.delays_s.get(source)) for source in sources),
                "yes" if result.stable else "no",
                f"{own / result.delays_s[URGENT]:.2f}" if result.stable else "–",
            )
            for policy, result in results.items()
        ),
    )


def ablation(instance: Instance, factor: float, effort: Effort) -> dict[str, object]:
    """Take one part of PA-MDI away at a time."""
    at = scaled(instance, factor, effort.length_s)
    results = {name: run(at, "pa-mdi", effort, make) for name, make in ABLATION.items()}
    print_delays("ablation at ρ = 0.5", instance.sources, results)
    return {name: asdict(result) for name, result in results.items()}


def sensitivity(instance: Instance, factor: float, effort: Effort, path: Path) -> dict[str, list[float]]:
    """Draw the delays under PA-MDI against the urgent source's priority."""
    at = scaled(instance, factor, effort.length_s)
    priorities = (0.5, 1.0, 1.5, 2.0, 10.0)
    results = [run(with_priority(at, URGENT, priority), "pa-mdi", effort) for priority in priorities]
    lines = {source: [result.delays_s[source] for result in results] for source in instance.sources}
    draw_lines(
        path,
        lines,
        ticks=[f"{priority:g}" for priority in priorities],
        xlabel=f"priority of {URGENT} (camera has 2, prompt 1)",
    )
    return lines


def scaling(instance: Instance, factor: float, effort: Effort, path: Path) -> dict[str, list[float | None]]:
    """Draw the urgent source's delay against the number of workers, at the same rates."""
    counts = range(2, len(instance.workers) + 1)
    lines: dict[str, list[float | None]] = {policy: [] for policy in POLICIES}
    for count in counts:
        fewer = instance.scenario.policy.model_copy(update={"ring": instance.workers[:count]})
        scenario = instance.scenario.model_copy(update={"policy": fewer})
        at = scaled(first_workers(instance.model_copy(update={"scenario": scenario}), count), factor, effort.length_s)
        for policy in POLICIES:
            result = run(at, policy, effort)
            lines[policy].append(result.delays_s[URGENT] if result.stable else None)
    draw_lines(path, lines, ticks=[str(count) for count in counts], xlabel=f"workers (mean delay of {URGENT})")
    return lines


def main() -> None:
    """Compare PA-MDI with the existing policies and with ours on a ring and on a multi-hop graph."""
    parser = ArgumentParser(description=main.__doc__)
    parser.add_argument("--quick", action="store_true", help="short runs: does it run at all")
    parser.add_argument("-o", "--output", type=Path, default=Path("pa-mdi-results"), help="folder for results")
    given = parser.parse_args()
    effort = Effort(length_s=4.0, replications=1, halvings=2) if given.quick else Effort(30.0, 3, 6)
    output: Path = given.output
    output.mkdir(parents=True, exist_ok=True)
    ring = load_instance(HERE / "ring.yaml")
    report: dict[str, object] = {"ring": compare(ring, effort, "ring")}
    report["multi-hop"] = compare(load_instance(HERE / "multi-hop.yaml"), effort, "multi-hop")
    factor = 0.5 * max(carries(ring, policy, effort) for policy in (*EXISTING, "pa-mdi"))
    report["ablation"] = ablation(ring, factor, effort)
    report["sensitivity"] = sensitivity(ring, factor, effort, output / "priority.png")
    report["scaling"] = scaling(ring, factor, effort, output / "workers.png")
    write_text_atomic(output / "report.json", json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
