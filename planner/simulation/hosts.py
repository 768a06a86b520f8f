"""Workers of one host slow each other down while they compute."""

from __future__ import annotations

from planner.scenario.instance import Instance
from planner.worker.events import RunBlock


class Hosts:
    """What the workers compute that share a host with others.

    A session takes as long as the number of those that compute at its start makes it.
    """

    def __init__(self, instance: Instance) -> None:
        self._colocated = instance.colocated
        self._computing = dict.fromkeys(self._colocated, False)
        self._beside = [
            instance.model_copy(update={"company": dict.fromkeys(self._colocated, computing)})
            for computing in (0.0, 1.0)
        ]
        self._each: dict[tuple[str, str, int, int], float] = {}
        """By worker, model, first and last block: by which share each other worker that computes prolongs a session."""

    def begin(self, worker: str, run: RunBlock) -> float:
        """Take note of a session that begins; return its time relative to that while no other computes."""
        if worker not in self._colocated:
            return 1.0
        self._computing[worker] = True
        busy = sum([self._computing[other] for other in self._colocated[worker]])
        return 1 + busy * self._share(worker, run)

    def end(self, worker: str) -> None:
        """Take note of a session that ends."""
        if worker in self._colocated:
            self._computing[worker] = False

    def _share(self, worker: str, run: RunBlock) -> float:
        key = worker, run.model, run.block, run.session_end
        if key not in self._each:
            alone_s, beside_s = (
                float(instance.sessions_s(run.model, worker, [key[2:]])[0][0]) for instance in self._beside
            )
            self._each[key] = beside_s / alone_s - 1
        return self._each[key]
