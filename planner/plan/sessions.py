"""Which blocks of a plan's stages are joined to one session, and how large batches of a stage may become.

One session for several blocks takes less time than one for each, by what the profile's ``fusion_saving_s`` says. On the
other hand a worker looks for more urgent work between sessions only. So blocks are joined wherever that saves time, as
long as no session takes longer than more urgent work may wait.

Sources and routes that run the same blocks of a model on a worker have the same sessions there, which end wherever a
stage of any of them does: so no weights are in memory twice.

A session of a batch takes longer than that of a sample. What holds for blocks holds for samples: they run together as
far as the source allows, but no session takes longer than more urgent work may wait, unless that of one sample does.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from math import inf

import numpy as np

from planner.plan.types import PlanSpec, Route, Stage
from planner.profiling.batches import MOST
from planner.scenario.instance import Instance

Routes = Mapping[str, Sequence[Route]]
_Place = tuple[str, str]
"""A model on a worker."""

PARTS = (2, 4)
"""What part of the longest session others may have at most, besides all of it and none."""


def join_blocks(instance: Instance, routes: Routes, max_wait_s: float = inf) -> dict[str, tuple[Route, ...]]:
    """Return routes whose stages join blocks where that saves time, and limit their batches.

    Parameters
    ----------
    max_wait_s
        Longest time of a session of several blocks or samples that more urgent work may have to wait for, in seconds.
    """
    if not instance.batches:
        return _with_sessions(instance, routes, max_wait_s)
    # Longer sessions leave less room for batches: whatever takes the least time per sample.
    choices = [max_wait_s] if max_wait_s in {0, inf} or not instance.joins else [
        max_wait_s, *(max_wait_s / part for part in PARTS), 0.0
    ]  # fmt: skip
    found = [_with_batches(instance, _with_sessions(instance, routes, choice), max_wait_s) for choice in choices]
    return min(found, key=lambda each: _work_s(instance, each))


def _with_sessions(instance: Instance, routes: Routes, max_wait_s: float) -> dict[str, tuple[Route, ...]]:
    """Return routes whose stages join blocks where that saves time."""
    if not instance.joins:
        return {source: tuple(of_source) for source, of_source in routes.items()}
    limits = {place: max_wait_s if place in _blocking(instance, routes) else inf for place in _borders(routes)}
    ends = {place: _ends(instance, place, borders, limits[place]) for place, borders in _borders(routes).items()}
    return {source: tuple(_joined(route, ends) for route in of_source) for source, of_source in routes.items()}


def _work_s(instance: Instance, routes: Routes) -> float:
    """Return the time that a sample of each source takes in largest batches, summed over the sources, in seconds."""
    return sum(
        route.share * _time_s(instance, route.model, stage, _most(instance, route.model, stage))
        for of_source in routes.values()
        for route in of_source
        for stage in route.stages
    )


def _time_s(instance: Instance, model: str, stage: Stage, size: int) -> float:
    """Return the time per sample of a stage in batches of a size, in seconds."""
    more_s = sum(instance.batch_s(model, stage.worker, first, last, size) for first, last in stage.spans)
    return (float(instance.sessions_s(model, stage.worker, stage.spans)[0].sum()) + more_s) / size


def longest_wait_s(instance: Instance, routes: Routes) -> float:
    """Return the time of the longest session that more urgent work may wait for, of those of several blocks or samples.

    It is 0 without one.
    """
    blocking, urgency, longest_s = _blocking(instance, routes), _urgency(instance, routes), 0.0
    for source, of_source in routes.items():
        for route in of_source:
            for stage in route.stages:
                if (route.model, stage.worker) not in blocking:
                    continue
                most = _most(instance, route.model, stage) if _gives_way(instance, source, stage, urgency) else 1
                spans = [span for span in stage.spans if most > 1 or span[0] < span[1]]
                longest_s = max(longest_s, _longest_s(instance, route.model, stage.worker, spans, most))
    return longest_s


def choices_of_wait(instance: Instance, routes: Routes) -> list[float]:
    """Return values of ``max_wait_s`` between which to choose; infinity first, alone if no other makes a difference."""
    known = instance.joins or instance.batches
    longest_s = longest_wait_s(instance, join_blocks(instance, routes)) if known else 0.0
    return [inf, *(longest_s / part for part in PARTS), 0.0] if longest_s else [inf]


def smallest_batches(plan: PlanSpec) -> dict[str, int]:
    """Return the smallest of the limits that a plan sets to batches at each worker, where it sets any."""
    found: dict[str, int] = {}
    for entry in plan.sources.values():
        for route in entry.routes:
            for stage in route.stages:
                if stage.max_batch is not None:
                    found[stage.worker] = min(found.get(stage.worker, stage.max_batch), stage.max_batch)
    return found


def has_sessions(plan: PlanSpec) -> bool:
    """Return whether a plan joins any blocks."""
    return any(stage.sessions for entry in plan.sources.values() for route in entry.routes for stage in route.stages)


def block_by_block(plan: PlanSpec) -> PlanSpec:
    """Return a plan with the same routes, on which each block has a session of its own."""
    sources = {
        name: entry.model_copy(update={"routes": tuple(map(separated, entry.routes))})
        for name, entry in plan.sources.items()
    }
    return plan.model_copy(update={"sources": sources, "max_wait_s": None})


def separated(route: Route) -> Route:
    """Return a route each of whose blocks has a session of its own."""
    if not any(stage.sessions for stage in route.stages):
        return route
    stages = tuple(stage.model_copy(update={"sessions": ()}) for stage in route.stages)
    return route.model_copy(update={"stages": stages})


def _borders(routes: Routes) -> dict[_Place, set[int]]:
    """Return the cuts at which stages begin and end, by place."""
    borders: dict[_Place, set[int]] = defaultdict(set)
    for of_source in routes.values():
        for route in of_source:
            for stage in route.stages:
                borders[route.model, stage.worker] |= {stage.first_block, stage.last_block + 1}
    return borders


def _blocking(instance: Instance, routes: Routes) -> frozenset[_Place]:
    """Return the places whose sessions may keep more urgent work of their worker waiting."""
    urgency = _urgency(instance, routes)
    return frozenset(
        (route.model, stage.worker)
        for source, of_source in routes.items()
        for route in of_source
        for stage in route.stages
        if _gives_way(instance, source, stage, urgency)
    )


def _urgency(instance: Instance, routes: Routes) -> dict[str, float]:
    """Return the highest priority of the samples that each worker serves."""
    most: dict[str, float] = {}
    for source, of_source in routes.items():
        priority = instance.scenario.sources[source].priority
        for worker in {stage.worker for route in of_source for stage in route.stages}:
            most[worker] = max(most.get(worker, priority), priority)
    return most


def _gives_way(instance: Instance, source: str, stage: Stage, urgency: Mapping[str, float]) -> bool:
    """Return whether there is more urgent work than a source's where it runs a stage."""
    return instance.scenario.sources[source].priority < urgency[stage.worker]


def _with_batches(instance: Instance, routes: Routes, max_wait_s: float) -> dict[str, tuple[Route, ...]]:
    """Return routes whose batches take no longer for a session than more urgent work may wait, as far as they can."""
    urgency = _urgency(instance, routes)

    def limited(source: str, model: str, stage: Stage) -> Stage:
        free = stage.model_copy(update={"max_batch": None}) if stage.max_batch is not None else stage
        most = limit = _most(instance, model, free)
        if most > 1 and max_wait_s < inf and _gives_way(instance, source, stage, urgency):
            longest_s = partial(_longest_s, instance, model, stage.worker, stage.spans)
            limit = max(bisect_right(range(1, most + 1), max_wait_s, key=longest_s), 1)
        return free if limit == most else free.model_copy(update={"max_batch": limit})

    return {
        source: tuple(
            route.model_copy(update={"stages": tuple(limited(source, route.model, stage) for stage in route.stages)})
            for route in of_source
        )
        for source, of_source in routes.items()
    }


def _most(instance: Instance, model: str, stage: Stage) -> int:
    """Return the largest batch that runs a stage."""
    return min(instance.max_batch(model, stage.worker), stage.max_batch or MOST)


def _longest_s(instance: Instance, model: str, worker: str, spans: Sequence[tuple[int, int]], size: int) -> float:
    """Return the time of the longest of these sessions for a batch, in seconds; 0 without any."""
    times_s = instance.sessions_s(model, worker, spans)[0].tolist()
    more_s = (instance.batch_s(model, worker, first, last, size) for first, last in spans)
    return max((time_s + longer_s for time_s, longer_s in zip(times_s, more_s, strict=True)), default=0.0)


def _ends(instance: Instance, place: _Place, borders: set[int], max_wait_s: float) -> list[int]:
    """Return the last block of each session at a place, in order; blocks between stages are in some, too."""
    model, worker = place
    block_s, saving_s = instance.block_s(model, worker), instance.saving_s(model, worker)
    alone = np.flatnonzero(saving_s <= 0)
    begins = borders | set(alone.tolist())
    ends: list[int] = []
    took_s = 0.0
    for block, (time_s, saved_s) in enumerate(zip(block_s.tolist(), saving_s.tolist(), strict=True)):
        joined_s = took_s + time_s - saved_s
        if block and (block in begins or joined_s > max_wait_s):
            ends.append(block - 1)
            joined_s = time_s
        took_s = joined_s
    return [*ends, len(block_s) - 1]


def _joined(route: Route, ends: Mapping[_Place, Sequence[int]]) -> Route:
    stages = tuple(_ending(stage, ends[route.model, stage.worker]) for stage in route.stages)
    return route if stages == route.stages else route.model_copy(update={"stages": stages})


def _ending(stage: Stage, ends: Sequence[int]) -> Stage:
    own = tuple(end for end in ends if stage.first_block <= end <= stage.last_block)
    sessions = () if len(own) == stage.last_block - stage.first_block + 1 else own
    return stage if sessions == stage.sessions else stage.model_copy(update={"sessions": sessions})
