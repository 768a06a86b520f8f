"""Workers of one host slow each other down while they compute."""

from __future__ import annotations

from planner.scenario.instance import Instance
from planner.worker.events import RunBlock


class Hosts:
    """What the workers compute that share a host with others.

    A block takes as long as the number of those that compute at its start makes it.
    """

    def __init__(self, instance: Instance) -> None:
        self._colocated = instance.colocated
        self._computing = dict.fromkeys(self._colocated, False)
        self._each: dict[tuple[str, str], list[float]] = {}
        """By worker and model: share by which each block takes longer for each other worker that computes."""
        for worker in self._colocated:
            for model in instance.profiles:
                profile = instance.profile(model, worker)
                self._each[worker, model] = (profile.slowdown(1.0) / profile.slowdown(0.0) - 1).tolist()

    def begin(self, worker: str, run: RunBlock) -> float:
        """Take note of a block that begins; return its time relative to that while no other computes."""
        if worker not in self._colocated:
            return 1.0
        self._computing[worker] = True
        busy = sum(self._computing[other] for other in self._colocated[worker])
        return 1 + busy * self._each[worker, run.model][run.block]

    def end(self, worker: str) -> None:
        """Take note of a block that ends."""
        if worker in self._colocated:
            self._computing[worker] = False
