"""Intervals of what a plan achieves, where profiles state an interval.

The times of all models on all device classes are taken as too long, or too short, together. Where their errors are
independent of each other, the intervals of a plan therefore cover more than those of the profiles.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from planner.plan.evaluate import Routes, evaluate, sustained
from planner.plan.rates import volumes
from planner.plan.types import SourcePlan
from planner.profiling.types import Profile
from planner.scenario.instance import Instance

LOW: Final = 0
HIGH: Final = 1


def coverage(instance: Instance, routes: Routes) -> float | None:
    """Return the least coverage of the intervals of the profiles that routes use; None if none has an interval."""
    stated = [
        profile.interval.coverage
        for model, device_class in _used(instance, routes)
        if (profile := instance.profiles[model][device_class]).interval is not None
    ]
    return min(stated, default=None)


def with_intervals(instance: Instance, sources: Mapping[str, SourcePlan]) -> dict[str, SourcePlan]:
    """Return evaluated sources with the interval of their delay and, for the goal ``throughput``, of their rate.

    Where no profile that the routes use has an interval, the sources are returned as they are.

    Raises
    ------
    PlanError
        As :func:`planner.plan.evaluate.evaluate` does.
    """
    routes = {name: source.routes for name, source in sources.items()}
    if coverage(instance, routes) is None:
        return dict(sources)
    used = _used(instance, routes)
    ends = [evaluate(at_end(instance, end, used), routes) for end in (LOW, HIGH)]
    shares: list[float] = []
    for found in ends:
        busy = {name: use.utilisation for name, use in found.workers.items()}
        busy |= {name: use.utilisation for name, use in found.networks.items()}
        shares.append(sustained(instance, busy))
    rates = dict(zip(instance.sources, volumes(instance).tolist(), strict=True))
    by_rate = instance.scenario.objective.goal == "throughput"
    return {
        name: source.model_copy(
            update={
                "delay_interval_s": _interval([found.sources[name].delay_s for found in ends]),
                "rate_interval_per_s": (rates[name] * min(shares), rates[name] * max(shares)) if by_rate else None,
            }
        )
        for name, source in sources.items()
    }


def _interval(ends: list[float]) -> tuple[float, float | None]:
    low, high = min(ends), max(ends)
    return low, high if math.isfinite(high) else None


def at_end(instance: Instance, end: int, used: Mapping[tuple[str, str], frozenset[int]] | None = None) -> Instance:
    """Return the instance with blocks as short, or as long, as their interval allows.

    Parameters
    ----------
    end
        :data:`LOW` or :data:`HIGH`.
    used
        The blocks that run, by model and device class; by default all.
    """

    def scaled(model: str, device_class: str, profile: Profile) -> Profile:
        every = frozenset(range(len(profile.blocks)))
        blocks = every if used is None else used.get((model, device_class), frozenset())
        return _scaled(profile, profile.factors(blocks)[end])

    profiles = {
        model: {device_class: scaled(model, device_class, profile) for device_class, profile in by_class.items()}
        for model, by_class in instance.profiles.items()
    }
    return instance.model_copy(update={"profiles": profiles})


def _used(instance: Instance, routes: Routes) -> dict[tuple[str, str], frozenset[int]]:
    """Return the blocks that run, by model and device class."""
    used: dict[tuple[str, str], frozenset[int]] = {}
    for of_source in routes.values():
        for route in of_source:
            for stage in route.stages:
                key = route.model, instance.scenario.workers[stage.worker].device_class
                used[key] = used.get(key, frozenset()) | frozenset(range(stage.first_block, stage.last_block + 1))
    return used


def _scaled(profile: Profile, factor: float) -> Profile:
    if factor == 1:
        return profile
    blocks = [block.model_copy(update={"mean_s": block.mean_s * factor}) for block in profile.blocks]
    savings = tuple(saving_s * factor for saving_s in profile.fusion_saving_s)
    return profile.model_copy(update={"blocks": tuple(blocks), "fusion_saving_s": savings})
