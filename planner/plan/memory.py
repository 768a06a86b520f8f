"""Memory that workers need for the blocks of a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from planner.plan.types import Route
from planner.scenario.instance import Instance


def memory_bytes(instance: Instance, routes: Mapping[str, Sequence[Route]]) -> dict[str, float]:
    """Return the memory that each worker needs: its base, each resident block once, and the largest activation.

    Blocks of sources of sequences have room for the state of these.
    """
    resident: dict[str, set[tuple[str, int]]] = {worker: set() for worker in instance.workers}
    for of_source in routes.values():
        for route in of_source:
            for stage in route.stages:
                blocks = range(stage.first_block, stage.last_block + 1)
                resident[stage.worker].update((route.model, block) for block in blocks)
    needed = {}
    for worker, pairs in resident.items():
        held = sum(instance.held_bytes(model, worker)[block] for model, block in pairs)
        peak = max((instance.peak_bytes(model, worker)[block] for model, block in pairs), default=0)
        needed[worker] = instance.worker(worker).base_memory_bytes + held + peak
    return needed
