"""``adaptive`` and ``planned`` against the six policies of the papers on random scenarios; common random numbers."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Final, TypeAlias

from recipe import at_load, draw, solved

from planner.cli.output import print_table, progress_bar
from planner.cluster import on_cluster
from planner.files import write_text_atomic
from planner.report.figure import GREY, PALETTE, new_figure
from planner.simulation.replications import RunSpec, simulate_case
from planner.trace.metrics import interval

SEEDS: Final = ("local", "ddi", "mdi", "ar-mdi", "ms-mdi", "pa-mdi")
"""Policies of the papers."""
OURS: Final = ("planned", "adaptive")
LOADS: Final = (0.3, 0.5, 0.7, 0.9)
TOLERANCE: Final = 0.02
"""By how much ours may be worse."""
ROUND: Final = 64
"""Units that a cluster is given at once."""
Unit: TypeAlias = tuple[int, float, int, int]
"""What :func:`run_unit` takes."""


@dataclass(frozen=True)
class Outcome:
    """Priority-weighted mean delays of one scenario at one load, in seconds, by policy: one a replication."""

    scenario: int
    load: float
    delays_s: dict[str, list[float]]

    def best(self) -> str:
        """Name the policy of the papers with the least mean; chosen after the fact, which is to its advantage."""
        return min(SEEDS, key=lambda policy: sum(self.delays_s[policy]))

    def gain(self, ours: str) -> tuple[float, float]:
        """Give by what share of the best one's delay ours is shorter, and half its paired 95 % interval."""
        others, own = self.delays_s[self.best()], self.delays_s[ours]
        scale = sum(others) / len(others)
        mean, half = interval([(other - mine) / scale for other, mine in zip(others, own, strict=True)])
        return mean, half or 0.0


def run_unit(scenario: int, load: float, samples: int, replications: int) -> Outcome:
    """Simulate one scenario at one load under all policies."""
    instance = at_load(draw(scenario), load, samples)
    plan = solved(instance)
    delays_s: dict[str, list[float]] = {policy: [] for policy in (*SEEDS, *OURS)}
    for policy, found in delays_s.items():
        for seed in range(replications):
            metrics = simulate_case(instance, plan, RunSpec(policy, seed)).metrics
            if metrics.priority_weighted_delay_s is None or any(own.failed for own in metrics.sources.values()):
                raise RuntimeError(f"samples were lost under {policy} in scenario {scenario}, seed {seed}")
            found.append(metrics.priority_weighted_delay_s)
    return Outcome(scenario, load, delays_s)


def run_all(
    scenarios: Sequence[int], samples: int, replications: int, log: Path, *, processes: int = 1, dask: str | None = None
) -> list[Outcome]:
    """Simulate all scenarios at all loads; units that the log has from an earlier run are not run again."""
    header = {"samples": samples, "replications": replications}
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    outcomes = [Outcome(**json.loads(line)) for line in lines[1:]] if lines and json.loads(lines[0]) == header else []
    done = {(outcome.scenario, outcome.load) for outcome in outcomes}
    todo = [(index, load) for index in scenarios for load in LOADS if (index, load) not in done]
    units = [(index, load, samples, replications) for index, load in todo]
    with progress_bar() as progress:
        done_now = _on_cluster(units, dask) if dask is not None else _in_processes(units, processes)
        for outcome in progress.track(done_now, total=len(units), description="scenarios"):
            outcomes.append(outcome)
            rows = [json.dumps(header), *(json.dumps(asdict(outcome)) for outcome in outcomes)]
            write_text_atomic(log, "\n".join(rows) + "\n")
    wanted = {(index, load) for index in scenarios for load in LOADS}
    return sorted(
        (outcome for outcome in outcomes if (outcome.scenario, outcome.load) in wanted),
        key=lambda outcome: (outcome.load, outcome.scenario),
    )


def _in_processes(units: Sequence[Unit], processes: int) -> Iterator[Outcome]:
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for future in as_completed([pool.submit(run_unit, *unit) for unit in units]):
            yield future.result()


def _on_cluster(units: Sequence[Unit], dask: str) -> Iterator[Outcome]:
    """Run units in rounds, so that an interrupted run has lost no more than one."""
    import recipe
    from cloudpickle import register_pickle_by_value

    register_pickle_by_value(recipe)  # a module of this folder, which the cluster does not have
    for first in range(0, len(units), ROUND):
        yield from on_cluster(dask, run_unit, units[first : first + ROUND])


def summary(outcomes: Sequence[Outcome], ours: str) -> list[dict[str, float | int | str]]:
    """Give for each load, and for all of 0.7 and more, how ours compares with the best policy of the papers."""
    groups = {f"{load:g}": [outcome for outcome in outcomes if outcome.load == load] for load in LOADS}
    groups["≥ 0.7"] = [outcome for outcome in outcomes if outcome.load >= 0.7]
    rows: list[dict[str, float | int | str]] = []
    for name, group in groups.items():
        gains = [outcome.gain(ours) for outcome in group]
        rows.append(
            {
                "policy": ours,
                "load": name,
                "scenarios": len(group),
                "median_gain": median(mean for mean, _ in gains),
                "least_gain": min(mean for mean, _ in gains),
                "worse_by_tolerance": sum(mean < -TOLERANCE for mean, _ in gains),
                "significantly_worse_by_tolerance": sum(mean + half < -TOLERANCE for mean, half in gains),
                "significantly_better": sum(mean - half > 0 for mean, half in gains),
                "median_half_width": median(half for _, half in gains),
            }
        )
    return rows


def draw_gains(outcomes: Sequence[Outcome], path: Path) -> None:
    """Draw the gain of ``adaptive`` in each scenario, sorted, one panel a load, with intervals."""
    with new_figure(path) as figure:
        grid = figure.subplots(1, len(LOADS), sharey=True)
        for axes, load in zip(grid, LOADS, strict=True):
            gains = sorted(outcome.gain("adaptive") for outcome in outcomes if outcome.load == load)
            means, halves = [100 * mean for mean, _ in gains], [100 * half for _, half in gains]
            axes.errorbar(range(len(gains)), means, halves, fmt="o", color=PALETTE[0], ecolor=PALETTE[4], markersize=5)
            axes.axhline(0, color=GREY, linewidth=1)
            axes.axhline(median(means), color=PALETTE[5], linestyle="--", linewidth=2)
            axes.set_title(f"ρ = {load:g}: median {median(means):.0f} %")
            axes.set_xlabel("Scenarios, sorted")
            axes.set_xticks([])
            axes.set_ylim(-30, 100)
        grid[0].set_ylabel("Priority-weighted mean delay of adaptive:\nshorter than the best of the six by [%]")


def _print(rows: Iterable[dict[str, float | int | str]]) -> None:
    print_table(
        "Against the best of the six policies of the papers: priority-weighted mean delay",
        (
            "policy",
            ">ρ",
            ">scenarios",
            ">median gain",
            ">least gain",
            ">worse > 2 %",
            ">significantly",
            ">better, sig.",
        ),
        (
            (
                row["policy"],
                row["load"],
                row["scenarios"],
                f"{row['median_gain']:.1%}",
                f"{row['least_gain']:.1%}",
                row["worse_by_tolerance"],
                row["significantly_worse_by_tolerance"],
                row["significantly_better"],
            )
            for row in rows
        ),
    )


def main() -> None:
    """Compare ``planned`` and ``adaptive`` with the policies of the papers on random scenarios."""
    parser = ArgumentParser(description=main.__doc__)
    parser.add_argument("--quick", action="store_true", help="few scenarios and samples: does it run at all")
    parser.add_argument("-o", "--output", type=Path, default=Path("random-results"), help="folder for results")
    parser.add_argument("--scenarios", type=int, default=50, help="how many")
    parser.add_argument("--first", type=int, default=0, help="number of the first scenario")
    parser.add_argument("--samples", type=int, default=300, help="samples offered in a run, by all sources together")
    parser.add_argument("--replications", type=int, default=5, help="runs with different seeds, 2 or more")
    parser.add_argument("--processes", type=int, default=1, help="processes side by side")
    parser.add_argument("--dask", help="scheduler of a Dask cluster on which to run: tcp://HOST:PORT")
    given = parser.parse_args()
    scenarios, samples, replications = (
        (2, 40, 2) if given.quick else (given.scenarios, given.samples, given.replications)
    )
    output: Path = given.output
    output.mkdir(parents=True, exist_ok=True)
    numbers = range(given.first, given.first + scenarios)
    log = output / "outcomes.jsonl"
    outcomes = run_all(numbers, samples, replications, log, processes=given.processes, dask=given.dask)
    rows = [row for ours in OURS for row in summary(outcomes, ours)]
    write_text_atomic(output / "summary.json", json.dumps(rows, indent=2, ensure_ascii=False) + "\n")
    draw_gains(outcomes, output / "gains.png")
    _print(rows)


if __name__ == "__main__":
    main()
