"""Evaluated distributions of delay against simulation: percentiles and late samples, on random plans.

Each plan is scaled to a utilisation of its busiest resource. The share of late samples is compared at a deadline that
about a tenth of the simulated samples miss. Samples are served by priority, as distributions assume. The simulated
figures have errors of their own, estimated over ten batches of consecutive samples. What is left of the mean squared
error without theirs is the evaluation's own: the two columns "beyond chance" are its square root.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from time import process_time
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from planner.cli.output import print_table, progress_bar
from planner.plan.evaluate import Evaluation, evaluate
from planner.plan.types import PlanSpec, Route, SourcePlan, Stage
from planner.scenario.instance import Instance
from planner.scenario.types import BurstSpec
from planner.simulation.simulator import Simulator
from planner.trace.records import Record, SampleRecord
from tests.instances import random_instance

Kind = Literal["poisson", "constant", "bursts"]

SAMPLES: Final = 6_000
"""Samples of the source with the highest rate."""
PLANS: Final = 4
"""Plans of each kind."""
FIRST: Final = 100
"""Number of the first plan; constants of the approximation were chosen on others."""
PROCESSES: Final = 1
KINDS: Final = (
    ("one worker a source, links", 1, True),
    ("one worker a source, one medium", 1, False),
    ("up to three stages, links", 3, True),
    ("up to three stages, one medium", 3, False),
)
UTILISATIONS: Final[dict[Kind, tuple[float, ...]]] = {
    "poisson": (0.6, 0.8, 0.9),
    "constant": (0.8,),
    "bursts": (0.6,),
}
"""With bursts, the first source comes in bursts of three times its rate, the others by Poisson processes."""
BURST_SAMPLES: Final = 5.0
"""Length of a burst, in mean times between samples."""
BATCHES: Final = 10
LATE: Final = 0.1

Array = NDArray[np.float64]


class Errors(NamedTuple):
    """Of each source: errors of the evaluation, and standard errors of the simulation; and the time of an evaluation.

    Parameters
    ----------
    evaluated
        Of p50, p95 and p99, relative, and of the share of late samples; shape [sources, 4].
    simulated
        Of p95, relative, and of the share of late samples; shape [sources, 2].
    """

    evaluated: Array
    simulated: Array
    seconds: float


def run() -> None:
    """Print the errors next to their goals."""
    cases = [
        (arrivals, utilisation, kind)
        for arrivals, utilisations in UTILISATIONS.items()
        for utilisation in utilisations
        for kind in KINDS
    ]
    rows = []
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool, progress_bar() as progress:
        found = [pool.submit(errors, arrivals, utilisation, *kind[1:]) for arrivals, utilisation, kind in cases]
        for (arrivals, utilisation, kind), future in progress.track(
            zip(cases, found, strict=True), total=len(cases), description="simulating"
        ):
            rows.append((arrivals, f"{utilisation:g}", kind[0], *_cells(future.result())))
    print_table(
        "Errors of evaluated delays against simulation, median / 90 % / largest of all sources "
        "(goal: p95 within 5 % and late samples within 1 point up to 0.8; 10 % and 3 points at 0.9), "
        "the standard errors of the simulation, and the root mean square of errors beyond these",
        (
            "arrivals",
            ">utilisation",
            "plans",
            ">p50, %",
            ">p95, %",
            ">p99, %",
            ">late, points",
            ">p95 signed, %",
            ">simulated ± p95, %",
            ">± late",
            ">p95 beyond chance, %",
            ">late beyond chance",
            ">time",
        ),
        rows,
    )


def _cells(found: Errors) -> tuple[str, ...]:
    spread = np.percentile(np.abs(found.evaluated), (50, 90, 100), axis=0).T * 100
    beyond = (found.evaluated[:, [1, 3]] ** 2 - found.simulated**2).mean(axis=0)
    return (
        *(" / ".join(f"{error:.1f}" for error in of_figure) for of_figure in spread.tolist()),
        f"{np.median(found.evaluated[:, 1]) * 100:+.1f}",
        *(f"{error:.1f}" for error in (np.median(found.simulated, axis=0) * 100).tolist()),
        *(f"{error:.1f}" for error in (np.sqrt(np.maximum(beyond, 0.0)) * 100).tolist()),
        f"{found.seconds * 1e3:.0f} ms",
    )


def errors(
    arrivals: Kind,
    utilisation: float,
    stages: int,
    links: bool,  # noqa: FBT001 - a column of the table of kinds
    plans: range = range(FIRST, FIRST + PLANS),
) -> Errors:
    """Return the errors of all sources of some plans."""
    evaluated: list[list[float]] = []
    simulated: list[list[float]] = []
    seconds = 0.0
    for seed in plans:
        instance, routes = _case(seed, utilisation, arrivals, stages, links=links)
        begin_s = process_time()
        evaluation = evaluate(instance, routes)
        seconds += process_time() - begin_s
        for of_evaluation, of_simulation in _of_sources(evaluation, _simulated(instance, routes)):
            evaluated.append(of_evaluation)
            simulated.append(of_simulation)
    return Errors(np.array(evaluated), np.array(simulated), seconds / len(plans))


def _of_sources(evaluation: Evaluation, delays: dict[str, Array]) -> Iterator[tuple[list[float], list[float]]]:
    for source, measured in delays.items():
        found = evaluation.distributions[source]
        ratios = [found.percentile_s(level) / float(np.quantile(measured, level)) - 1 for level in (0.5, 0.95, 0.99)]
        deadline_s = 1.02 * float(np.quantile(measured, 1 - LATE))  # not where many delays are equal
        batches = np.array_split(measured, BATCHES)
        percentiles = [float(np.quantile(batch, 0.95) / np.quantile(measured, 0.95)) for batch in batches]
        late = [float((batch > deadline_s).mean()) for batch in batches]
        yield (
            [*ratios, found.share_beyond(deadline_s) - float((measured > deadline_s).mean())],
            [float(np.std(figures, ddof=1)) / BATCHES**0.5 for figures in (percentiles, late)],
        )


def _case(
    seed: int, utilisation: float, arrivals: Kind, stages: int, *, links: bool
) -> tuple[Instance, dict[str, list[Route]]]:
    random = np.random.default_rng(seed)
    instance = random_instance(seed, sources=3, workers=3, blocks=4, links=links)
    routes = {source: [_route(instance, source, random, stages)] for source in instance.sources}
    evaluation = evaluate(instance, routes)
    busiest = max(use.utilisation for uses in (evaluation.workers, evaluation.networks) for use in uses.values())
    specs = instance.scenario.sources
    highest = max(spec.rate_per_s or 0.0 for spec in specs.values())
    changes: dict[str, dict[str, Any]] = {
        name: {
            "rate_per_s": (spec.rate_per_s or 0.0) * utilisation / busiest,
            "samples": int(SAMPLES * (spec.rate_per_s or 0.0) / highest),
            "arrivals": "constant" if arrivals == "constant" else "poisson",
            "deadline_s": 1.0,
        }
        for name, spec in specs.items()
    }
    if arrivals == "bursts":
        first = changes[next(iter(specs))]
        length_s = BURST_SAMPLES / first["rate_per_s"]
        first |= {"arrivals": "mmpp", "bursts": BurstSpec(factor=3.0, length_s=length_s, every_s=6 * length_s)}
    by_priority = instance.scenario.policy.model_copy(update={"order": "priority"})
    return instance.with_sources(changes).with_scenario(policy=by_priority), routes


def _route(instance: Instance, source: str, random: np.random.Generator, stages: int) -> Route:
    (model,) = instance.scenario.sources[source].models
    length, count = instance.length(model), int(random.integers(1, stages + 1))
    cuts = sorted(random.choice(np.arange(1, length), count - 1, replace=False).tolist())
    workers = random.permutation(np.array(instance.workers))[:count].tolist()
    return Route(
        model=model,
        stages=tuple(
            Stage(worker=worker, first_block=first, last_block=after - 1)
            for worker, first, after in zip(workers, [0, *cuts], [*cuts, length], strict=True)
        ),
    )


def _simulated(instance: Instance, routes: dict[str, list[Route]]) -> dict[str, Array]:
    """Return the delays of the samples that arrived while all sources sent."""
    plan = PlanSpec(
        status="feasible", method="random", goal="delay", objective=1.0, bound=0.0, gap=1.0, solve_s=0.0,
        provenance="measured", workers={}, networks={},
        sources={
            source: SourcePlan(accuracy=1.0, delay_s=1.0, surrogate_delay_s=1.0, routes=tuple(own))
            for source, own in routes.items()
        },
    )  # fmt: skip
    end_s = min(spec.samples / (spec.rate_per_s or 1.0) for spec in instance.scenario.sources.values())
    delays: dict[str, list[float]] = {source: [] for source in instance.sources}

    def sink(record: Record) -> None:
        if isinstance(record, SampleRecord) and record.created_s < end_s:
            delays[record.source].append(record.delay_s)

    Simulator(instance, policy="planned", plan=plan, seed=1, sink=sink).run()
    return {source: np.array(own) for source, own in delays.items()}
