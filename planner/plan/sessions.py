"""Which blocks of a plan's stages are joined to one session.

One session for several blocks takes less time than one for each, by what the profile's ``fusion_saving_s`` says. On the
other hand a worker looks for more urgent work between sessions only. So blocks are joined wherever that saves time, as
long as no session takes longer than more urgent work may wait.

Sources and routes that run the same blocks of a model on a worker have the same sessions there, which end wherever a
stage of any of them does: so no weights are in memory twice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from math import inf

import numpy as np

from planner.plan.types import PlanSpec, Route, Stage
from planner.scenario.instance import Instance

Routes = Mapping[str, Sequence[Route]]
_Place = tuple[str, str]
"""A model on a worker."""

PARTS = (2, 4)
"""What part of the longest session others may have at most, besides all of it and none."""


def join_blocks(instance: Instance, routes: Routes, max_wait_s: float = inf) -> dict[str, tuple[Route, ...]]:
    """Return routes whose stages join blocks where that saves time.

    Parameters
    ----------
    max_wait_s
        Longest time of a session of several blocks that more urgent work may have to wait for, in seconds.
    """
    if not instance.joins:
        return {source: tuple(of_source) for source, of_source in routes.items()}
    limits = {place: max_wait_s if place in _blocking(instance, routes) else inf for place in _borders(routes)}
    ends = {place: _ends(instance, place, borders, limits[place]) for place, borders in _borders(routes).items()}
    return {source: tuple(_joined(route, ends) for route in of_source) for source, of_source in routes.items()}


def longest_wait_s(instance: Instance, routes: Routes) -> float:
    """Return the time of the longest session of several blocks that more urgent work may wait for; 0 without one."""
    blocking, longest_s = _blocking(instance, routes), 0.0
    for of_source in routes.values():
        for route in of_source:
            for stage in route.stages:
                spans = [(first, last) for first, last in stage.spans if first < last]
                if spans and (route.model, stage.worker) in blocking:
                    longest_s = max(longest_s, *instance.sessions_s(route.model, stage.worker, spans)[0].tolist())
    return longest_s


def choices_of_wait(instance: Instance, routes: Routes) -> list[float]:
    """Return values of ``max_wait_s`` between which to choose; infinity first, alone if no other makes a difference."""
    longest_s = longest_wait_s(instance, join_blocks(instance, routes)) if instance.joins else 0.0
    return [inf, *(longest_s / part for part in PARTS), 0.0] if longest_s else [inf]


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
    sources = instance.scenario.sources
    users: dict[_Place, set[str]] = defaultdict(set)
    for source, of_source in routes.items():
        for route in of_source:
            for stage in route.stages:
                users[route.model, stage.worker].add(source)
    most: dict[str, float] = defaultdict(lambda: -inf)
    for (_, worker), names in users.items():
        most[worker] = max(most[worker], *(sources[name].priority for name in names))
    return frozenset(
        (model, worker)
        for (model, worker), names in users.items()
        if min(sources[name].priority for name in names) < most[worker]
    )


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
    stages = tuple(_with_sessions(stage, ends[route.model, stage.worker]) for stage in route.stages)
    return route if stages == route.stages else route.model_copy(update={"stages": stages})


def _with_sessions(stage: Stage, ends: Sequence[int]) -> Stage:
    own = tuple(end for end in ends if stage.first_block <= end <= stage.last_block)
    sessions = () if len(own) == stage.last_block - stage.first_block + 1 else own
    return stage if sessions == stage.sessions else stage.model_copy(update={"sessions": sessions})
