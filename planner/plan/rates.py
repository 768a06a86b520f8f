"""How the samples of each source arrive: rates, how evenly, and in which bursts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from planner.errors import PlanError
from planner.plan.bursts import Bursts
from planner.scenario.instance import Instance


def volumes(instance: Instance) -> NDArray[np.float64]:
    """Return the samples per second of each source, or for the goal ``makespan`` its samples; shape [S].

    For the goal ``throughput``, a source without a rate counts one sample per second.

    Raises
    ------
    PlanError
        The goal is ``delay``, ``misses`` or ``energy``, and a source has no rate.
    """
    goal = instance.scenario.objective.goal
    specs = instance.scenario.sources
    if goal == "makespan":
        return np.array([float(spec.samples) for spec in specs.values()])
    rates = {name: _rate_per_s(instance, name) for name in specs}
    missing = [name for name, rate_per_s in rates.items() if rate_per_s is None]
    if missing and goal in {"delay", "energy", "misses"}:
        raise PlanError(
            f"the goal {goal} needs the rate of every source",
            where=f"sources.{missing[0]}.rate",
            expected="a rate such as 5 /s, or the goal throughput or makespan",
        )
    return np.array([rate_per_s or 1.0 for rate_per_s in rates.values()])


def _rate_per_s(instance: Instance, source: str) -> float | None:
    """Return a source's rate: the one stated in the scenario, else the mean rate of its trace of arrival times."""
    stated, times = instance.scenario.sources[source].rate_per_s, instance.traces.get(source, ())
    if stated is not None or len(times) < 2 or times[-1] <= times[0]:
        return stated
    return (len(times) - 1) / (times[-1] - times[0])


def variability(instance: Instance, source: str) -> float:
    """Return the squared coefficient of variation of the times between a source's arrivals, as far as it is known."""
    arrivals, times = instance.scenario.sources[source].arrivals, instance.traces.get(source, ())
    if arrivals == "constant":
        return 0.0
    if arrivals != "trace" or len(times) < 3:
        return 1.0
    between = np.diff(times)
    return float(between.var() / max(between.mean() ** 2, 1e-300))


def bursts(instance: Instance, source: str) -> Bursts | None:
    """Return the bursts of a source; None if its arrivals are no more variable than Poisson ones."""
    spec = instance.scenario.sources[source]
    if spec.arrivals == "mmpp" and spec.bursts is not None:
        return Bursts.of_spec(spec.bursts)
    return Bursts.of_times(instance.traces.get(source, ())) if spec.arrivals == "trace" else None
