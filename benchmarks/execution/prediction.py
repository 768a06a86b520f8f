"""Accuracy of predicted delays: runs of ten scenarios against their predictions.

At the machine's own speed a shared machine may run slower than when it was profiled, for seconds at a time, which is no
error of the prediction. Costs are therefore calibrated just before and just after each of several rounds, and only the
rounds in which both calibrations agree count.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Final, NamedTuple

import numpy as np

from benchmarks.execution.pipeline import balanced, line, plan_of, profiled
from planner.cli.output import print_table
from planner.execution.coordinator.deployment import deploy
from planner.execution.launch.setting import on_this_host
from planner.solvers.replan.process import ReplanProcess
from planner.trace.metrics import SourceMetrics
from planner.validation.calibration_run import DRIFT
from planner.validation.validate import validate

RUN_S: Final = 10.0
"""Approximate duration of the run of a paced scenario."""
ROUNDS, ROUND_S, CALIBRATE_S = 7, 6.0, 3.0
"""For scenarios at the machine's own speed: number of runs, and the duration of each and of its calibrations."""


@dataclass(frozen=True, eq=False)
class _Case:
    """A scenario in which all samples visit all workers; ``load`` is the utilisation of the busiest worker.

    Each source has a different priority.
    """

    model: str
    speeds: Mapping[str, float]
    sources: int
    load: float
    paced: bool = True

    def __str__(self) -> str:
        how = "paced" if self.paced else "own speed"
        return f"{self.model}, {len(self.speeds)} workers, {self.sources} sources, {how}"


_OWN: Final = {"a": 1.0, "b": 1.0}
"""One processor each; the agents' and the coordinator's overhead needs another 10 to 25 % of both."""
CASES: Final = (
    _Case("mobilenetv2", _OWN, 1, 0.2, paced=False),
    _Case("mobilenetv2", _OWN, 2, 0.4, paced=False),
    _Case("resnet50", _OWN, 2, 0.4, paced=False),
    _Case("resnet50", _OWN, 1, 0.6, paced=False),
    _Case("mobilenetv2", {"a": 0.06, "b": 0.1}, 1, 0.2),
    _Case("mobilenetv2", {"a": 0.06, "b": 0.1, "c": 0.08}, 2, 0.3),
    _Case("mobilenetv2", {"a": 0.06, "b": 0.1, "c": 0.08, "d": 0.12}, 1, 0.4),
    _Case("mobilenetv2", {"a": 0.1, "b": 0.06}, 2, 0.5),
    _Case("mobilenetv2", {"a": 0.1, "b": 0.06, "c": 0.1}, 1, 0.6),
    _Case("mobilenetv2", {"a": 0.08, "b": 0.08, "c": 0.08, "d": 0.08}, 2, 0.7),
)


class _Round(NamedTuple):
    """Mean delays over all samples of a run, and how much the machine's speed changed meanwhile."""

    predicted_s: float
    measured_s: float
    by_profile_s: float
    drift: float
    host_limited: bool

    @property
    def error(self) -> float:
        return self.measured_s / self.predicted_s - 1


def prediction() -> None:
    """Compare the mean delays of ten scenarios, four of them at this machine's own speed, with their predictions."""
    rounds = {case: [_run(case) for _ in range(1 if case.paced else ROUNDS)] for case in CASES}
    steady = {case: [each for each in of_case if each.drift <= DRIFT] for case, of_case in rounds.items()}
    print_table(
        "Mean delay of ten scenarios, predicted and measured (goal: median error 5 %, worst 15 %)",
        ("scenario", ">load", ">by profile", ">predicted", ">measured", ">error", ">steady rounds", ">host-limited"),
        (
            (
                str(case),
                f"{case.load:.0%}",
                _ms(each.by_profile_s for each in steady[case]),
                _ms(each.predicted_s for each in steady[case]),
                _ms(each.measured_s for each in steady[case]),
                f"{median(each.error for each in steady[case]):+.1%}" if steady[case] else "-",
                f"{len(steady[case])} of {len(of_case)}",
                f"{sum(each.host_limited for each in of_case)}",
            )
            for case, of_case in rounds.items()
        ),
    )
    for title, cases in (
        ("own speed", [case for case in CASES if not case.paced]),
        ("paced", [case for case in CASES if case.paced]),
        ("all", CASES),
    ):
        errors = [abs(median(each.error for each in steady[case])) for case in cases if steady[case]]
        if errors:
            print(f"{title}: median error {median(errors):.1%}, worst {max(errors):.1%}")
    print()


def _ms(times_s: Iterable[float]) -> str:
    times = list(times_s)
    return f"{median(times) * 1e3:.1f} ms" if times else "-"


def _run(case: _Case) -> _Round:
    model, profile = profiled(case.model)
    borders = balanced(profile, len(case.speeds))
    parts = np.split(np.array([block.mean_s for block in profile.blocks]), borders)
    slowest_s = max(float(part.sum()) / speed for part, speed in zip(parts, case.speeds.values(), strict=True))
    rate = case.load / slowest_s / case.sources
    keys = {"rate_per_s": rate, "samples": int((RUN_S if case.paced else ROUND_S) * rate) + 20}
    sources = {f"s{index}": keys | {"priority": 4.0**index} for index in range(case.sources)}
    bytes_per_s, latency_s = (10e6, 0.002) if case.paced else (1e9, 0.0)
    instance = line(profile, case.speeds, sources, bytes_per_s=bytes_per_s, latency_s=latency_s)
    setting = on_this_host(instance, paced=case.paced)
    deployment = deploy(
        instance,
        plan_of(instance, borders),
        {case.model: model},
        policy="planned",
        paced=case.paced,
        emulation=setting.emulation,
        replan=ReplanProcess,
    )
    result = validate(
        deployment,
        {case.model: model},
        setting.agents,
        calibrate_s=0.0 if case.paced else CALIBRATE_S,
        say=lambda _: lambda _done, _all: None,
    )
    if not result.sound:
        incidents = [f"at {one.at_s:.2f} s: {one.worker} {one.what}" for one in result.measurement.incidents]
        raise AssertionError("\n".join([f"{case}: the run is not sound", *result.faults, *incidents]))
    predicted_s = _mean_s(own.predicted for own in result.sources.values())
    measured_s = _mean_s(own.measured for own in result.sources.values())
    if result.calibration is None:
        return _Round(predicted_s, measured_s, predicted_s, 0.0, result.host_limited)
    drift = max(abs(after / before - 1) for before, after in result.calibration.slowness.values() if after)
    by_profile_s = np.mean([own_s for own_s in result.calibration.by_profile_s.values() if own_s])
    return _Round(predicted_s, measured_s, float(by_profile_s), drift, result.host_limited)


def _mean_s(metrics: Iterable[SourceMetrics]) -> float:
    sources = list(metrics)
    total_s = sum((source.mean_delay_s or 0.0) * source.completed for source in sources)
    return total_s / sum(source.completed for source in sources)
