"""The routes that a policy may send a source's samples on: what it needs loaded, and what accuracy to expect."""

from __future__ import annotations

from collections.abc import Sequence

from planner.plan.types import Plan, Route, Stage
from planner.scenario.instance import Instance


def whole_model_at_home(instance: Instance, source: str) -> Route:
    """Give the route on which the source's own worker runs every block of the source's first model."""
    spec = instance.scenario.sources[source]
    model = spec.models[0]
    last = instance.length(model) - 1
    return Route(model=model, stages=(Stage(worker=spec.worker, first_block=0, last_block=last),))


def menu(instance: Instance, policy: str, plan: Plan | None) -> dict[str, Sequence[Route]]:
    """Give each source's routes under a policy, with their shares, while no worker has left."""
    if policy == "planned" and plan is not None:
        return {source: entry.routes for source, entry in plan.sources.items()}
    return {source: [whole_model_at_home(instance, source)] for source in instance.sources}


def resident_blocks(instance: Instance, policy: str, plan: Plan | None) -> dict[str, dict[str, tuple[int, ...]]]:
    """Give, for each worker and model, the indices of the blocks that the menu's routes run there."""
    blocks: dict[str, dict[str, set[int]]] = {worker: {} for worker in instance.workers}
    for routes in menu(instance, policy, plan).values():
        for route in routes:
            for stage in route.stages:
                span = range(stage.first_block, stage.last_block + 1)
                blocks[stage.worker].setdefault(route.model, set()).update(span)
    return {
        worker: {model: tuple(sorted(found)) for model, found in by_model.items()}
        for worker, by_model in blocks.items()
    }


def expected_accuracy(instance: Instance, policy: str, plan: Plan | None) -> dict[str, float]:
    """Give each source's accuracy, as a fraction, from the operating points of the menu's routes."""
    return {
        source: sum(
            route.share * instance.operating_points(route.model)[route.operating_point].accuracy for route in routes
        )
        for source, routes in menu(instance, policy, plan).items()
    }
