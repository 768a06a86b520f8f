"""Repeat the experiments of the MS-MDI paper in virtual time: see README.md beside this file.

python examples/ms-mdi/run.py [--quick] [--share SHARE] [--fit] [--json] [-o FOLDER]
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple, TypeAlias

import typer

from planner.cli.output import JSON_OPTION, print_json, print_table, progress_bar
from planner.plan.types import PlanSpec
from planner.policy.registry import needs_plan
from planner.report.figure import PALETTE, new_figure
from planner.scenario.instance import Instance
from planner.scenario.load import load_instance
from planner.scenario.paths import find_paths
from planner.scenario.types import ObjectiveSpec
from planner.simulation.simulator import Simulator
from planner.solvers.solve import solve
from planner.trace.records import Record, SampleRecord

HERE: Final = Path(__file__).parent
SET_UPS: Final = (2, 3, 5)
POLICIES: Final = ("local", "ar-mdi", "ms-mdi")
"""Those of the paper."""
OURS: Final = "adaptive"
PAPER: Final = {
    (2, "local"): 0.11,
    (2, "ar-mdi"): 0.16,
    (3, "local"): 0.32,
    (3, "ar-mdi"): 0.20,
    (5, "local"): 0.74,
    (5, "ar-mdi"): 0.29,
}
"""By how much MS-MDI improves over another policy, by number of workers."""
NEAR: Final = 0.10
"""A figure within this of the paper's is called near."""
QUICK: Final = 0.1
"""Share of the images that ``--quick`` and ``--fit`` run."""
CURVE_POINTS: Final = 40
PROCESSES: Final = 2


class Free(NamedTuple):
    """The free parameters: what the paper does not say of its testbed."""

    image_s: float
    """Time that the whole model takes on one worker, in seconds; the scenarios say it by ``speed``."""
    bandwidth_bytes_per_s: float
    overlap: bool


GRID: Final = [
    Free(image_s, megabit_per_s * 125e3, overlap)
    for image_s, megabit_per_s, overlap in itertools.product((0.2, 0.25, 0.3), (20, 30, 33, 36, 40), (False, True))
]


@dataclass(frozen=True)
class Outcome:
    """One run; ``curve`` holds number of images done, and when, in seconds."""

    makespan_s: float
    mean_delay_s: float
    images: int
    curve: tuple[tuple[int, float], ...]


class Counter:
    """A sink that forgets each sample after counting it, so that memory does not grow with their number."""

    def __init__(self, samples: int) -> None:
        self._every = max(samples // CURVE_POINTS, 1)
        self._done, self._delay_s, self._last_s = 0, 0.0, 0.0
        self._curve = [(0, 0.0)]

    def take(self, record: Record) -> None:
        """Count a sample that ended; the simulator reports them in order of time."""
        if isinstance(record, SampleRecord):
            self._done += 1
            self._delay_s += record.delay_s
            self._last_s = record.finished_s
            if self._done % self._every == 0:
                self._curve.append((self._done, record.finished_s))

    def outcome(self) -> Outcome:
        """Give what was counted."""
        return Outcome(self._last_s, self._delay_s / self._done, self._done, tuple(self._curve))


Outcomes: TypeAlias = Mapping[tuple[int, str], Outcome]

Batches: TypeAlias = Mapping[int, tuple[float, float]]
"""Makespan of a batch, and a fluid's, in seconds, by number of workers."""


def set_up(workers: int, share: float, free: Free | None) -> Instance:
    """Load a scenario, with a share of its images, and with other free parameters where given."""
    instance = load_instance(HERE / f"workers-{workers}.yaml")
    scenario = instance.scenario
    sources = {
        name: spec.model_copy(update={"samples": max(round(spec.samples * share), 1)})
        for name, spec in scenario.sources.items()
    }
    scenario = scenario.model_copy(update={"sources": sources})
    if free is not None:
        profile = instance.any_profile("classifier")
        changed = {
            "speed": sum(block.mean_s for block in profile.blocks) / free.image_s,
            "overlap": free.overlap,
        }
        bandwidth = {"bandwidth_bytes_per_s": free.bandwidth_bytes_per_s}
        scenario = scenario.model_copy(
            update={
                "workers": {name: spec.model_copy(update=changed) for name, spec in scenario.workers.items()},
                "networks": {name: spec.model_copy(update=bandwidth) for name, spec in scenario.networks.items()},
            }
        )
    return Instance(scenario=scenario, profiles=instance.profiles, paths=find_paths(scenario))


def run_one(workers: int, policy: str, share: float, free: Free | None) -> Outcome:
    """Simulate one set-up under one policy; ours follows a plan for the least makespan."""
    return simulated(set_up(workers, share, free), policy)


def simulated(instance: Instance, policy: str) -> Outcome:
    """Simulate an instance under one policy."""
    counter = Counter(sum(instance.samples(source) for source in instance.sources))
    plan = plan_for(instance, "makespan", "convex") if needs_plan(policy) else None
    Simulator(instance, policy=policy, plan=plan, seed=0, sink=counter.take).run()
    return counter.outcome()


def plan_for(instance: Instance, goal: Literal["makespan", "throughput"], method: str) -> PlanSpec:
    """Solve for shared routes."""
    scenario = instance.scenario.model_copy(update={"objective": ObjectiveSpec(goal=goal)})
    plan = solve(instance.model_copy(update={"scenario": scenario}), method=method, routes="shared").plan
    if plan is None:
        raise RuntimeError("no plan for a set-up of the paper")
    return plan


def batch(workers: int, share: float) -> tuple[float, float]:
    """Give the makespan under our policy when all images are there from the start, and a fluid's, in seconds.

    The fluid's is the largest utilisation at the rate of one batch a second, as small as the solver's bound allows: no
    policy takes less.
    """
    instance = set_up(workers, share, None)
    specs = instance.scenario.sources
    batches = {name: spec.model_copy(update={"arrivals": "batch"}) for name, spec in specs.items()}
    fluid = {name: spec.model_copy(update={"rate_per_s": float(spec.samples)}) for name, spec in specs.items()}
    there, flowing = (
        instance.model_copy(update={"scenario": instance.scenario.model_copy(update={"sources": sources})})
        for sources in (batches, fluid)
    )
    return simulated(there, OURS).makespan_s, plan_for(flowing, "throughput", "colgen").bound


def run_all(
    pool: Executor, shares: float, frees: Iterable[Free | None], policies: Iterable[str] = POLICIES
) -> list[Outcomes]:
    """Simulate all set-ups under the given policies, for each choice of the free parameters."""
    cases = list(itertools.product(SET_UPS, policies))
    runs = [[pool.submit(run_one, *case, shares, free) for case in cases] for free in frees]
    with progress_bar() as bar:
        return [
            {case: future.result() for case, future in zip(cases, futures, strict=True)}
            for futures in bar.track(runs, description="simulating")
        ]


def gains(outcomes: Outcomes) -> dict[tuple[int, str], float]:
    """Give theirs / ours − 1 of the makespans, by number of workers and policy that MS-MDI is compared with."""
    return {
        (workers, policy): outcomes[workers, policy].makespan_s / outcomes[workers, "ms-mdi"].makespan_s - 1
        for workers, policy in PAPER
    }


def in_order(found: Mapping[tuple[int, str], float]) -> bool:
    """Tell whether MS-MDI is the best everywhere, and its lead over Local grows with the workers."""
    leads = [found[workers, "local"] for workers in SET_UPS]
    return all(gain > 0 for gain in found.values()) and leads == sorted(set(leads))


def quality(outcomes: Outcomes) -> tuple[bool, int, float]:
    """Rank a choice of free parameters: the paper's order first, then near figures, then the sum of the misses."""
    found = gains(outcomes)
    misses = [abs(found[case] - wanted) for case, wanted in PAPER.items()]
    return in_order(found), sum(miss <= NEAR for miss in misses), -sum(misses)


def fit(pool: Executor) -> Free:
    """Search the grid of free parameters."""
    tried = run_all(pool, QUICK, GRID)
    return max(zip(GRID, tried, strict=True), key=lambda pair: quality(pair[1]))[0]


def ours_over(outcomes: Outcomes, workers: int, policy: str) -> tuple[float, float]:
    """Give theirs / ours − 1 of our policy's makespan and mean delay."""
    theirs, ours = outcomes[workers, policy], outcomes[workers, OURS]
    return theirs.makespan_s / ours.makespan_s - 1, theirs.mean_delay_s / ours.mean_delay_s - 1


def print_results(outcomes: Outcomes, batches: Batches) -> None:
    """Print the times, and the paper's six figures beside ours."""
    print_table(
        "Simulated",
        (">workers", "policy", ">all images done", ">per image", ">mean delay"),
        (
            (
                workers,
                policy,
                f"{run.makespan_s:.0f} s",
                f"{1e3 * run.makespan_s / run.images:.1f} ms",
                f"{run.mean_delay_s:.0f} s",
            )
            for (workers, policy), run in outcomes.items()
        ),
    )
    print_table(
        "MS-MDI improves by",
        (">workers", "over", ">paper", ">theirs / ours - 1", ">1 - ours / theirs"),
        (
            (workers, policy, f"{wanted:.0%}", f"{gain:.1%}", f"{gain / (1 + gain):.1%}")
            for ((workers, policy), gain), wanted in zip(gains(outcomes).items(), PAPER.values(), strict=True)
        ),
    )
    print_table(
        f"{OURS}, which the paper does not know, improves by (theirs / ours - 1)",
        (">workers", "over", ">all images done", ">mean delay"),
        (
            (workers, policy, *(f"{gain:.0%}" for gain in ours_over(outcomes, workers, policy)))
            for workers, policy in itertools.product(SET_UPS, POLICIES)
        ),
    )
    print_table(
        f"All images there from the start, under {OURS}",
        (">workers", ">all images done", ">a fluid", ">longer by"),
        (
            (workers, f"{makespan_s:.0f} s", f"{fluid_s:.0f} s", f"{makespan_s / fluid_s - 1:.1%}")
            for workers, (makespan_s, fluid_s) in batches.items()
        ),
    )


def draw(outcomes: Outcomes, folder: Path) -> None:
    """Draw the paper's three plots side by side, with our policy beside its three."""
    with new_figure(folder / "ms-mdi.svg") as figure:
        by_images, by_images_3, by_workers = figure.subplots(1, 3)
        for workers, axes in ((2, by_images), (3, by_images_3)):
            axes.set(title=f"{workers} workers", xlabel="Images done", ylabel="Time [s]")
            for policy, colour in zip((*POLICIES, OURS), PALETTE, strict=False):
                images, time_s = zip(*outcomes[workers, policy].curve, strict=True)
                axes.plot(images, time_s, color=colour, label=policy)
        by_workers.set(title="Workers", xlabel="workers", ylabel="Time per image [ms]", xticks=SET_UPS)
        for policy, colour in zip((*POLICIES, OURS), PALETTE, strict=False):
            runs = [outcomes[workers, policy] for workers in SET_UPS]
            per_image_ms = [1e3 * run.makespan_s / run.images for run in runs]
            by_workers.plot(SET_UPS, per_image_ms, color=colour, label=policy, marker="o")
        for axes in figure.axes:
            axes.set_ylim(bottom=0)
            axes.legend()


def document(outcomes: Outcomes, batches: Batches) -> dict[str, object]:
    """Give the results for other programs."""
    return {
        "in_order": in_order(gains(outcomes)),
        "runs": [{"workers": workers, "policy": policy, **asdict(run)} for (workers, policy), run in outcomes.items()],
        "figures": [
            {"workers": workers, "over": policy, "paper": PAPER[workers, policy], "ours": gain}
            for (workers, policy), gain in gains(outcomes).items()
        ],
        "batches": [
            {"workers": workers, "makespan_s": makespan_s, "fluid_s": fluid_s}
            for workers, (makespan_s, fluid_s) in batches.items()
        ],
    }


def main(
    *,
    quick: Annotated[bool, typer.Option("--quick", help="A tenth of the images.")] = False,
    share: Annotated[float, typer.Option(min=0.01, max=1.0, help="Share of the images.")] = 1.0,
    search: Annotated[bool, typer.Option("--fit", help="Search the free parameters first; takes minutes.")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder for the plots.")] = None,
    json: bool = JSON_OPTION,
) -> None:
    """Simulate Local, AR-MDI and MS-MDI with 2, 3 and 5 workers, compare with the paper's figures, and with ours."""
    with ProcessPoolExecutor(PROCESSES) as pool:
        free = fit(pool) if search else None
        if free is not None:
            typer.echo(
                f"best fit: {1e3 * free.image_s:g} ms an image, {free.bandwidth_bytes_per_s / 125e3:g} Mbit/s, "
                f"{'with' if free.overlap else 'without'} overlap",
                err=True,
            )
        share = QUICK if quick else share
        (outcomes,) = run_all(pool, share, [free], (*POLICIES, OURS))
        batches = dict(zip(SET_UPS, pool.map(batch, SET_UPS, itertools.repeat(share)), strict=True))
    if output is not None:
        draw(outcomes, output)
    if json:
        print_json(document(outcomes, batches))
    else:
        print_results(outcomes, batches)


if __name__ == "__main__":
    typer.run(main)
