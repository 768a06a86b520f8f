"""Candidate routes: those on which a policy may send a source's samples, and the blocks that they need loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Final

from planner.plan.sessions import separated
from planner.plan.types import PlanSpec, Route, Stage
from planner.scenario.instance import Instance

_OF_KNOWN_ROUTES: Final = frozenset(("local", "planned", "adaptive"))
"""Policies whose samples take candidate routes only."""


def whole_model_at_home(instance: Instance, source: str) -> Route:
    """Return the route on which the source's own worker runs every block of the source's first model."""
    spec = instance.scenario.sources[source]
    model = spec.models[0]
    return _whole_model(model, spec.worker, instance.length(model) - 1)


@lru_cache  # called for every sample, and routes are checked when they are made
def _whole_model(model: str, worker: str, last: int) -> Route:
    return Route(model=model, stages=(Stage(worker=worker, first_block=0, last_block=last),))


def candidate_routes(instance: Instance, policy: str, plan: PlanSpec | None) -> Mapping[str, Sequence[Route]]:
    """Return each source's routes under a policy, with their shares, while no worker has left."""
    if plan is not None and (policy == "planned" or (policy == "adaptive" and plan.goal == "makespan")):
        return {source: entry.routes for source, entry in plan.sources.items()}
    if policy == "adaptive" and plan is not None:
        return extended_candidate_routes(instance, plan)
    return {source: [whole_model_at_home(instance, source)] for source in instance.sources}


def extended_candidate_routes(instance: Instance, plan: PlanSpec) -> dict[str, list[Route]]:
    """Return each source's routes under ``adaptive``: the plan's, and all that leave home once, where memory allows.

    Those that leave home once come with each operating point of the source's models. Workers that could not hold the
    blocks of all these routes at once appear only in the routes of the plan. No blocks are joined, since the routes cut
    anywhere.
    """
    planned = {source: list(map(separated, entry.routes)) for source, entry in plan.sources.items()}
    wide = {source: [*planned[source], *_one_move_routes(instance, source)] for source in planned}
    tight = {worker for worker in instance.workers if not _fits(instance, worker, wide)}
    allowed = {
        source: [
            route
            for route in routes
            if route in planned[source] or tight.isdisjoint(stage.worker for stage in route.stages)
        ]
        for source, routes in wide.items()
    }
    return {
        source: list({(route.model, route.operating_point, route.stages): route for route in routes}.values())
        for source, routes in allowed.items()
    }


def _one_move_routes(instance: Instance, source: str) -> Iterator[Route]:
    """Yield each whole model at home, and each route that leaves home once, after 0, 1, … blocks."""
    home = instance.home(source)
    away = [
        worker
        for worker in instance.workers
        if worker != home and instance.path(home, worker) is not None and instance.path(worker, home) is not None
    ]
    for model in instance.scenario.sources[source].models:
        last = instance.length(model) - 1
        choices = [(Stage(worker=home, first_block=0, last_block=last),)]
        for worker in away:
            for cut in range(last + 1):
                before = (Stage(worker=home, first_block=0, last_block=cut - 1),) if cut else ()
                choices.append((*before, Stage(worker=worker, first_block=cut, last_block=last)))
        for point in range(len(instance.operating_points(model))):
            yield from (Route(model=model, operating_point=point, stages=stages) for stages in choices)


def _fits(instance: Instance, worker: str, by_source: Mapping[str, Sequence[Route]]) -> bool:
    blocks = {
        (route.model, block)
        for routes in by_source.values()
        for route in routes
        for stage in route.stages
        if stage.worker == worker
        for block in range(stage.first_block, stage.last_block + 1)
    }
    spec = instance.worker(worker)
    needed = spec.base_memory_bytes + sum(instance.held_bytes(model, worker)[block] for model, block in blocks)
    peak = max((instance.peak_bytes(model, worker)[block] for model, block in blocks), default=0)
    return needed + peak <= spec.memory_bytes


def resident_sessions(
    instance: Instance, policy: str, plan: PlanSpec | None, worker: str, blocks: Mapping[str, Sequence[int]]
) -> dict[str, tuple[tuple[int, int], ...]]:
    """Return the sessions in which a worker has the blocks of each model, by their first and last block.

    They are those of the plan's stages; a block that is in none has a session of its own.
    """
    joined: dict[str, set[tuple[int, int]]] = {model: set() for model in blocks}
    if policy in _OF_KNOWN_ROUTES:
        for routes in candidate_routes(instance, policy, plan).values():
            for route in routes:
                for stage in route.stages:
                    if stage.worker == worker and stage.sessions:
                        joined.setdefault(route.model, set()).update(stage.spans)
    sessions = {}
    for model, spans in joined.items():
        covered = {block for first, last in spans for block in range(first, last + 1)}
        sessions[model] = tuple(
            sorted(spans | {(block, block) for block in blocks.get(model, ()) if block not in covered})
        )
    return sessions


def resident_blocks(instance: Instance, policy: str, plan: PlanSpec | None) -> dict[str, dict[str, tuple[int, ...]]]:
    """Return, for each worker and model, the indices of the blocks that the policy may run there.

    They are those of the candidate routes. Policies that decide from worker to worker, and a user's own ones, may run
    any block anywhere.
    """
    if policy not in _OF_KNOWN_ROUTES:
        everything = {model: tuple(range(instance.length(model))) for model in instance.profiles}
        return dict.fromkeys(instance.workers, everything)
    blocks: dict[str, dict[str, set[int]]] = {worker: {} for worker in instance.workers}
    for routes in candidate_routes(instance, policy, plan).values():
        for route in routes:
            for stage in route.stages:
                span = range(stage.first_block, stage.last_block + 1)
                blocks[stage.worker].setdefault(route.model, set()).update(span)
    return {
        worker: {model: tuple(sorted(indices)) for model, indices in by_model.items()}
        for worker, by_model in blocks.items()
    }
