"""Delays of agents that share a host, predicted by profiles of ``planner profile measure --beside`` and measured.

Two agents run ten scenarios at their own speed, one processor each: with samples of their own, or as a pipeline.
Profiles and network are measured once before; the scenarios then run without calibration.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import median
from typing import Final, NamedTuple

from benchmarks.execution.pipeline import balanced, line, plan_of, profiled, run_on_this_host
from planner.cli.output import print_table
from planner.execution.coordinator.deployment import deploy
from planner.execution.launch.setting import on_this_host
from planner.model.load import ChainModel
from planner.plan.evaluate import Routes, evaluate
from planner.plan.types import Route, Stage
from planner.profiling.types import Profile
from planner.runtime.processors import available_processors
from planner.scenario.instance import Instance
from planner.tables import milliseconds
from planner.validation.calibration_run import in_situ_costs, with_in_situ_costs
from planner.validation.colocation import with_colocation
from planner.validation.validate import validate
from planner.validation.verdict import SourceComparison

RUN_S: Final = 12.0
"""Approximate duration of a run."""
NETWORK_S: Final = 4.0
"""Duration of the run in which the network is measured."""
BESIDE_S: Final = 30.0
"""Time for measuring blocks in agents."""
WORST: Final = 0.15
"""Largest error of a prediction that is not in its interval."""
NAMES: Final = ("a", "b")


@dataclass(frozen=True)
class _Case:
    """A scenario: utilisation of both workers by the samples of each, or of the busier one in a pipeline of both."""

    model: str
    loads: tuple[float, ...]

    def __str__(self) -> str:
        how = "pipeline" if len(self.loads) == 1 else "each its own"
        return f"{self.model}, {how}"


CASES: Final = (
    _Case("mobilenetv2", (0.2, 0.2)),
    _Case("mobilenetv2", (0.2, 0.6)),
    _Case("mobilenetv2", (0.5, 0.5)),
    _Case("mobilenetv2", (0.7, 0.7)),
    _Case("resnet50", (0.2, 0.6)),
    _Case("resnet50", (0.5, 0.5)),
    _Case("mobilenetv2", (0.2,)),
    _Case("mobilenetv2", (0.5,)),
    _Case("resnet50", (0.3,)),
    _Case("resnet50", (0.6,)),
)


class _Found(NamedTuple):
    """The comparison of each source, and whether a host limited the run."""

    sources: Mapping[str, SourceComparison]
    host_limited: bool
    load: float
    """Processes that wanted to run, on average over the last minute."""


def run() -> None:
    """Compare the mean delays of ten scenarios with their predictions and intervals."""
    if len(available_processors()) < len(NAMES):
        print("Agents on one host: skipped, since two agents need two processors\n")
        return
    found = {case: _run(case) for case in CASES}
    rows = [
        (
            str(case),
            " / ".join(f"{load:.0%}" for load in case.loads),
            source,
            milliseconds(comparison.predicted.mean_delay_s),
            str(comparison.interval or "–"),
            milliseconds(comparison.measured.mean_delay_s),
            f"{comparison.error_ratio:+.1%}" if comparison.error_ratio is not None else "–",
            "inside" if comparison.inside else "outside",
            "yes" if of_case.host_limited else "",
            f"{of_case.load:.1f}",
        )
        for case, of_case in found.items()
        for source, comparison in of_case.sources.items()
    ]
    print_table(
        "Two agents on one host, one processor each, at their own speed (goal: median error 5 %, worst 15 % or inside)",
        (
            "scenario", ">load", "source", ">predicted", ">interval", ">measured", ">error", "interval", "host limited",
            ">system load",
        ),
        rows,
    )  # fmt: skip
    _summarise([each for of_case in found.values() for each in of_case.sources.values()])


def _summarise(comparisons: Sequence[SourceComparison]) -> None:
    errors = [abs(each.error_ratio or 0.0) for each in comparisons]
    missed = sum(not each.inside and error > WORST for each, error in zip(comparisons, errors, strict=True))
    print(
        f"median error {median(errors):.1%}, worst {max(errors):.1%}; "
        f"{sum(each.inside for each in comparisons)} of {len(comparisons)} inside their intervals, "
        f"{missed} neither inside nor within {WORST:.0%}\n"
    )


@lru_cache
def _measured(name: str) -> tuple[ChainModel, Profile]:
    """Return a model, and its profile with the costs beside another agent."""
    model, profile = profiled(name)
    return model, with_colocation(model, profile, 1, budget_s=BESIDE_S)


@lru_cache
def _line(name: str) -> Instance:
    """Return an instance of both workers, joined by the network as a short run of a pipeline finds it."""
    model, profile = _measured(name)
    plain = line(profile, dict.fromkeys(NAMES, 1.0), {"s": {}})
    borders = balanced(profile, len(NAMES))
    rate = 0.2 / sum(block.mean_s for block in profile.blocks)
    paced = plain.with_sources({"s": {"rate_per_s": rate, "samples": max(int(rate * NETWORK_S), 10)}})
    costs = in_situ_costs(run_on_this_host(paced, plan_of(paced, borders), model, paced=False).records)
    return plain.model_copy(update={"paths": with_in_situ_costs(plain, costs).paths})


def _run(case: _Case) -> _Found:
    model, profile = _measured(case.model)
    instance, routes = _scenario(case, profile)
    setting = on_this_host(instance, paced=False)
    plan = plan_of(_line(case.model), balanced(profile, len(NAMES)))
    plan = plan.model_copy(update={"sources": evaluate(setting.instance, routes).sources})
    deployment = deploy(setting.instance, plan, {case.model: model}, policy="planned")
    found = validate(deployment, {case.model: model}, setting.agents)
    if not found.sound:
        raise AssertionError("\n".join([f"{case}: the run is not sound", *found.faults]))
    return _Found(found.sources, found.host_limited, os.getloadavg()[0])


def _scenario(case: _Case, profile: Profile) -> tuple[Instance, Routes]:
    """Return the scenario at the rates at which its workers are predicted to be as busy as the case says."""
    plain, last = _line(case.model), len(profile.blocks) - 1
    if len(case.loads) == 1:
        stages = plan_of(plain, balanced(profile, len(NAMES))).sources["s"].routes[0].stages
        routes = {"s": (Route(model=case.model, stages=stages),)}
        homes = {"s": "a"}
    else:
        homes = {f"of-{name}": name for name in NAMES}
        routes = {
            source: (Route(model=case.model, stages=(Stage(worker=worker, first_block=0, last_block=last),)),)
            for source, worker in homes.items()
        }
    spec = plain.scenario.sources["s"]
    instance = plain.with_scenario(
        sources={source: spec.model_copy(update={"worker": worker}) for source, worker in homes.items()}
    ).on_hosts("host")
    rates = dict.fromkeys(homes, 1e-3)
    for _ in range(30):  # loads grow with rates, a little faster than in proportion
        instance = _at_rates(instance, rates)
        busy = {name: use.utilisation for name, use in evaluate(instance, routes).workers.items()}
        wanted = dict(zip(homes, case.loads, strict=True))
        of_source = {source: max(busy.values()) if len(homes) == 1 else busy[home] for source, home in homes.items()}
        rates = {source: rate * wanted[source] / of_source[source] for source, rate in rates.items()}
    return instance, routes


def _at_rates(instance: Instance, rates: Mapping[str, float]) -> Instance:
    return instance.with_sources(
        {
            source: {"rate_per_s": rate, "arrivals": "poisson", "samples": max(int(rate * RUN_S), 20)}
            for source, rate in rates.items()
        }
    )


if __name__ == "__main__":
    run()
