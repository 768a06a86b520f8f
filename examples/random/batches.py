"""Batches: all samples of the random scenarios there from the start, how long they take, and what a fluid would."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import starmap
from pathlib import Path
from statistics import median
from typing import Final

from recipe import at_load, draw, solved

from planner.cli.output import print_table, progress_bar
from planner.cluster import on_cluster
from planner.files import write_text_atomic
from planner.scenario.instance import Instance
from planner.scenario.types import EventSpec, ObjectiveSpec, SourceSpec
from planner.simulation.replications import RunSpec, simulate_case
from planner.solvers.replan.replanner import replanner

POLICIES: Final = ("ddi", "planned", "adaptive")

SLOW_FROM: Final = 0.3
"""When a worker becomes slow, by the time that a fluid needs."""


@dataclass(frozen=True)
class Outcome:
    """Makespans of one scenario by policy, and the least that a fluid needs, in seconds."""

    scenario: int
    fluid_s: float
    makespan_s: dict[str, float]

    def ratio(self, policy: str) -> float:
        """Give how many times longer than a fluid a policy takes."""
        return self.makespan_s[policy] / self.fluid_s


def changed(instance: Instance, sources: dict[str, SourceSpec], objective: ObjectiveSpec) -> Instance:
    """Give the instance with other sources and another goal."""
    scenario = instance.scenario.model_copy(update={"sources": sources, "objective": objective})
    return instance.model_copy(update={"scenario": scenario})


def run_one(number: int, samples: int, slower: float | None = None) -> Outcome:
    """Simulate a scenario's batch: as many samples of each source as arrive in a run at ρ = 0.7.

    What a fluid needs is the largest utilisation at the rate of one batch a second, as small as the bound allows.

    Parameters
    ----------
    slower
        The busiest worker takes so many times longer from :data:`SLOW_FROM` of the fluid's time on; the fluid's shares
        are the best from the start, and from then on the best for that.
    """
    instance = at_load(draw(number), 0.7, samples)
    specs = instance.scenario.sources
    there = {name: spec.model_copy(update={"arrivals": "batch"}) for name, spec in specs.items()}
    flowing = {name: spec.model_copy(update={"rate_per_s": float(spec.samples)}) for name, spec in specs.items()}
    batch, flow = (
        changed(instance, sources, objective)
        for sources, objective in (
            (there, ObjectiveSpec(goal="makespan")),
            (flowing, ObjectiveSpec(goal="throughput")),
        )
    )
    plan = solved(batch, method="convex")
    fluid_s = solved(flow, method="convex").bound
    if slower is not None:
        used = simulate_case(batch, plan, RunSpec("adaptive", 0)).metrics.utilisation
        busiest = max(used, key=lambda worker: used[worker])
        event = EventSpec(at_s=SLOW_FROM * fluid_s, action="slow", worker=busiest, factor=slower)
        batch = batch.model_copy(update={"scenario": batch.scenario.model_copy(update={"events": (event,)})})
        slow_s = solved(flow.slowed({busiest: slower}), method="convex").bound
        fluid_s = SLOW_FROM * fluid_s + (1 - SLOW_FROM) * slow_s
    runs = {policy: simulate_case(batch, plan, RunSpec(policy, 0), replanner=replanner).metrics for policy in POLICIES}
    return Outcome(number, fluid_s, {policy: metrics.makespan_s for policy, metrics in runs.items()})


def run_all(cases: Sequence[tuple[int, int, float | None]], dask: str | None = None) -> Iterator[Outcome]:
    """Yield the outcome of each case of :func:`run_one`, one after the other or from a Dask cluster."""
    if dask is None:
        yield from starmap(run_one, cases)
        return
    import recipe
    from cloudpickle import register_pickle_by_value

    register_pickle_by_value(recipe)  # a module of this folder, which the cluster does not have
    yield from on_cluster(dask, run_one, cases)


def print_ratios(outcomes: Sequence[Outcome]) -> None:
    """Print how many times longer than a fluid each policy takes."""
    rows = []
    for policy in POLICIES:
        ratios = [outcome.ratio(policy) for outcome in outcomes]
        within = sum(ratio <= 1.05 for ratio in ratios)
        rows.append((policy, f"{median(ratios):.3f}", f"{max(ratios):.3f}", f"{within} of {len(ratios)}"))
    print_table("Makespan / a fluid's", ("policy", ">median", ">largest", ">within 5 %"), rows)


def main() -> None:
    """Compare the makespans of batches under ``ddi``, ``planned`` and ``adaptive`` with a fluid's."""
    parser = ArgumentParser(description=main.__doc__)
    parser.add_argument("-o", "--output", type=Path, default=Path("random-results"), help="folder for results")
    parser.add_argument("--first", type=int, default=0, help="number of the first scenario")
    parser.add_argument("--scenarios", type=int, default=50, help="how many")
    parser.add_argument("--samples", type=int, default=2000, help="samples of a batch, of all sources together")
    parser.add_argument("--slow", type=float, metavar="FACTOR", help="how much slower the busiest worker becomes")
    parser.add_argument("--dask", help="scheduler of a Dask cluster on which to run: tcp://HOST:PORT")
    given = parser.parse_args()
    cases = [(number, given.samples, given.slow) for number in range(given.first, given.first + given.scenarios)]
    with progress_bar() as progress:
        outcomes = list(progress.track(run_all(cases, given.dask), total=len(cases), description="batches"))
    document = json.dumps([asdict(outcome) for outcome in outcomes], indent=2)
    write_text_atomic(given.output / "batches.json", document + "\n")
    print_ratios(outcomes)


if __name__ == "__main__":
    main()
