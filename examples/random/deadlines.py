"""Deadlines: the share of late samples under ``planned`` and ``adaptive``, and under eight other policies.

Late samples are dropped under every policy, by the same rules of the worker. See README.md.
"""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean, median
from typing import Any, Final

import numpy as np
from recipe import at_load, draw, solved

from planner.cli.output import print_table, progress_bar
from planner.files import write_text_atomic
from planner.plan.journey import journey
from planner.plan.types import Route, Stage
from planner.scenario.instance import Instance
from planner.scenario.types import ObjectiveSpec
from planner.simulation.replications import RunSpec, simulate_case
from planner.trace.metrics import RunMetrics, interval

OTHERS: Final = ("local", "ddi", "mdi", "ar-mdi", "ms-mdi", "pa-mdi", "edf", "least-laxity")
"""The policies of the papers, and the two that know deadlines and nothing of priorities."""
OURS: Final = ("planned", "adaptive")
CHOSEN: Final = "the one chosen"
"""Of ours, the one that misses less under other arrivals, which its user can simulate beforehand."""
BETTER: Final = "the better one"
"""Of ours, in each scenario at each load; chosen after the fact, too."""
BEFOREHAND: Final = 1000
"""The first seed of these other arrivals."""
LOADS: Final = (0.7, 0.9, 1.1)
PLANNED_LOAD: Final = 0.9
"""No plan carries more; for higher loads the plan is that for this one."""
TOLERANCE: Final = 0.01
"""By how much of all samples, weighted by priority, ours may miss more."""
ORDERS: Final = ("value", "slack", "priority")


@dataclass(frozen=True)
class Outcome:
    """Share of samples that miss their deadlines, weighted by priority: one a replication, by policy.

    ``chosen`` is the policy of ours that misses less under other arrivals.
    """

    scenario: int
    load: float
    misses: dict[str, list[float]]
    chosen: str

    def best(self) -> str:
        """Name the other policy with the least mean; chosen after the fact, which is to its advantage."""
        return min(OTHERS, key=lambda policy: fmean(self.misses[policy]))

    def with_choices(self) -> Outcome:
        """Return the outcome with the misses of the one of ours that was chosen beforehand, and of the better one."""
        better = min(OURS, key=lambda policy: fmean(self.misses[policy]))
        return replace(self, misses={**self.misses, CHOSEN: self.misses[self.chosen], BETTER: self.misses[better]})

    def gain(self, ours: str) -> float:
        """Return by what share of the best one's misses ours are fewer."""
        best, own = fmean(self.misses[self.best()]), fmean(self.misses[ours])
        return 1 - own / best if best else -float(own > 0)

    def more(self, ours: str) -> tuple[float, float]:
        """Return how many more of all samples miss under ours, and half the paired 95 % interval."""
        pairs = zip(self.misses[ours], self.misses[self.best()], strict=True)
        mean, half = interval([own - best for own, best in pairs])
        return mean, half or 0.0


def with_deadlines(instance: Instance, seed: int) -> Instance:
    """Return the instance with deadlines of 1.5 to 4 times the least time of a sample; late ones are dropped."""
    random = np.random.default_rng([seed, 1])
    sources = {
        name: spec.model_copy(
            update={"deadline_s": float(random.uniform(1.5, 4)) * least_s(instance, name), "late": "drop"}
        )
        for name, spec in instance.scenario.sources.items()
    }
    return instance.model_copy(update={"scenario": instance.scenario.model_copy(update={"sources": sources})})


def least_s(instance: Instance, source: str) -> float:
    """Return the least time that a sample takes that leaves home once at most and waits for nothing."""
    (model,), home = instance.scenario.sources[source].models, instance.home(source)
    last = instance.length(model) - 1

    def stages(worker: str, cut: int) -> tuple[Stage, ...]:
        there = Stage(worker=worker, first_block=cut, last_block=last)
        return (Stage(worker=home, first_block=0, last_block=cut - 1), there) if cut else (there,)

    at_home = (Stage(worker=home, first_block=0, last_block=last),)
    away = (stages(worker, cut) for worker in instance.workers if worker != home for cut in range(last + 1))
    trips = (journey(instance, source, Route(model=model, stages=own)) for own in chain([at_home], away))
    return min(trip.unloaded_s for trip in trips)


def weighted_misses(instance: Instance, metrics: RunMetrics) -> float:
    """Return Σ p n M / Σ p n over the sources' shares M of samples that missed."""
    weights = {name: spec.priority for name, spec in instance.scenario.sources.items()}
    missed = sum(weights[name] * (own.missed or 0) for name, own in metrics.sources.items())
    return missed / sum(weights[name] * own.offered for name, own in metrics.sources.items())


def variants(instance: Instance, *, ablation: bool) -> Iterator[tuple[str, str, Instance]]:
    """Yield what is simulated: its name, the policy, and the scenario with the policy's parameters."""
    yield from ((policy, policy, instance) for policy in (*OTHERS, *OURS))
    if ablation:
        spec = instance.scenario.policy
        changes = {f"order: {order}": {"order": order} for order in ORDERS} | {"admission: false": {"admission": False}}
        for name, change in changes.items():
            scenario = instance.scenario.model_copy(update={"policy": spec.model_copy(update=change)})
            yield f"adaptive, {name}", "adaptive", instance.model_copy(update={"scenario": scenario})


def run_unit(
    scenario: int, load: float, samples: int, replications: int, *, time_limit_s: float, ablation: bool
) -> Outcome:
    """Simulate one scenario at one load under all policies: ``planned`` by a plan for the fewest misses."""
    drawn = with_deadlines(draw(scenario), scenario)
    to_plan = at_load(drawn, min(load, PLANNED_LOAD), samples)
    plan, for_misses = (
        solved(one, time_limit_s=time_limit_s)
        for one in (to_plan, to_plan.with_scenario(objective=ObjectiveSpec(goal="misses")))
    )
    instance = at_load(drawn, load, samples)

    def missed(policy: str, instance: Instance, first: int = 0) -> list[float]:
        followed = for_misses if policy == "planned" else plan
        return [
            weighted_misses(instance, simulate_case(instance, followed, RunSpec(policy, seed)).metrics)
            for seed in range(first, first + replications)
        ]

    misses = {name: missed(policy, changed) for name, policy, changed in variants(instance, ablation=ablation)}
    chosen = min(OURS, key=lambda policy: fmean(missed(policy, instance, BEFOREHAND)))
    return Outcome(scenario, load, misses, chosen)


def run_all(scenarios: Iterable[int], log: Path, *, processes: int, **options: Any) -> list[Outcome]:
    """Simulate all scenarios at all loads; units that the log has from an earlier run are not run again."""
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    outcomes = [Outcome(**json.loads(line)) for line in lines[1:]] if lines and json.loads(lines[0]) == options else []
    done = {(outcome.scenario, outcome.load) for outcome in outcomes}
    wanted = [(scenario, load) for scenario in scenarios for load in LOADS]
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool, progress_bar() as progress:
        futures = [pool.submit(run_unit, *unit, **options) for unit in wanted if unit not in done]
        for future in progress.track(as_completed(futures), total=len(futures), description="scenarios"):
            outcomes.append(future.result())
            rows = [json.dumps(options), *(json.dumps(asdict(outcome)) for outcome in outcomes)]
            write_text_atomic(log, "\n".join(rows) + "\n")
    return sorted((it for it in outcomes if (it.scenario, it.load) in wanted), key=lambda it: (it.load, it.scenario))


def summary(outcomes: Sequence[Outcome], ours: str) -> list[dict[str, float | int | str]]:
    """Return for each load, and for all, how ours compares with the best of the others."""
    groups = {f"{load:g}": [it for it in outcomes if it.load == load] for load in LOADS} | {"all": [*outcomes]}
    rows: list[dict[str, float | int | str]] = []
    for name, group in groups.items():
        more = [outcome.more(ours) for outcome in group]
        rows.append(
            {
                "policy": ours,
                "load": name,
                "scenarios": len(group),
                "misses": median(fmean(it.misses[ours]) for it in group),
                "best_misses": median(fmean(it.misses[it.best()]) for it in group),
                "median_gain": median(it.gain(ours) for it in group),
                "most_points_worse": 100 * max(mean for mean, _ in more),
                "worse": sum(mean > TOLERANCE for mean, _ in more),
                "surely_worse": sum(mean - half > TOLERANCE for mean, half in more),
            }
        )
    return rows


def main() -> None:
    """Compare late samples under our policies with those under the policies of the papers, EDF and least laxity."""
    parser = ArgumentParser(description=main.__doc__)
    parser.add_argument("-o", "--output", type=Path, default=Path("random-results"), help="folder for results")
    parser.add_argument("--first", type=int, default=0, help="number of the first scenario")
    parser.add_argument("--scenarios", type=int, default=50, help="how many")
    parser.add_argument("--samples", type=int, default=300, help="samples offered in a run, by all sources together")
    parser.add_argument("--replications", type=int, default=5, help="runs with different seeds, 2 or more")
    parser.add_argument("--time-limit", type=float, default=5.0, help="time limit of each plan, in seconds")
    parser.add_argument("--processes", type=int, default=1, help="processes side by side")
    parser.add_argument("--ablation", action="store_true", help="also adaptive with other orders, without admission")
    given = parser.parse_args()
    outcomes = run_all(
        range(given.first, given.first + given.scenarios),
        given.output / "misses.jsonl",
        processes=given.processes,
        samples=given.samples,
        replications=given.replications,
        time_limit_s=given.time_limit,
        ablation=given.ablation,
    )
    outcomes = [outcome.with_choices() for outcome in outcomes]
    names = [name for name in outcomes[0].misses if name not in OTHERS]
    rows = [row for name in names for row in summary(outcomes, name)]
    write_text_atomic(given.output / "misses.json", json.dumps(rows, indent=2, ensure_ascii=False) + "\n")
    best = Counter(outcome.best() for outcome in outcomes)
    print_table(
        "Late samples, weighted by priority, against the best of eight other policies "
        f"({', '.join(f'{policy} in {count}' for policy, count in best.most_common())})",
        ("policy", ">ρ", ">late", ">the best's", ">median gain", ">worse by at most", ">worse > 1 pt", ">surely"),
        (
            (
                row["policy"],
                row["load"],
                f"{row['misses']:.1%}",
                f"{row['best_misses']:.1%}",
                f"{row['median_gain']:.1%}",
                f"{row['most_points_worse']:.1f} points",
                row["worse"],
                row["surely_worse"],
            )
            for row in rows
        ),
    )


if __name__ == "__main__":
    main()
