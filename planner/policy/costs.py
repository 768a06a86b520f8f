"""What computing and sending is expected to take, looked up fast: sums over blocks from the instance's profiles."""

from __future__ import annotations

import math
from copy import copy
from itertools import accumulate

from planner.scenario.instance import Hop, Instance


class Costs:
    """Prefix sums over the blocks of each model on each worker."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._compute_s: dict[tuple[str, str], list[float]] = {
            (model, worker): [0.0, *accumulate(instance.block_s(model, worker).tolist())]
            for model in instance.profiles
            for worker in instance.workers
        }
        self._reach = {
            model: [point.reach if point.reach[-1] < 1 else None for point in instance.operating_points(model)]
            for model in instance.profiles
        }
        self._reached_s: dict[tuple[str, str, int], list[float]] = {
            (model, worker, point): [0.0, *accumulate((instance.block_s(model, worker) * reach).tolist())]
            for model, points in self._reach.items()
            for point, reach in enumerate(points)
            if reach is not None
            for worker in instance.workers
        }
        self._overhead_s = {
            (model, worker): instance.stage_overhead_s(model, worker)
            for model in instance.profiles
            for worker in instance.workers
        }
        self._parameters = {
            model: [0, *accumulate(block.parameters for block in instance.any_profile(model).blocks)]
            for model in instance.profiles
        }
        self.cut_bytes = {model: instance.cut_bytes(model) for model in instance.profiles}
        self._pace: dict[tuple[str, str], tuple[float, float]] = {
            (sender, receiver): (
                sum(1 / hop.bytes_per_s for hop in path.hops),
                sum(hop.latency_s for hop in path.hops),
            )
            for sender, by_receiver in instance.paths.items()
            for receiver, path in by_receiver.items()
        }

        self._stage_s: dict[tuple[str, str, int, int, int | None, float], float] = {}
        self.slowness: dict[str | tuple[str, str], float] = {}
        """How many times longer than by its profile each worker takes at the moment, where that is known; and each hop,
        by sender and receiver, than by the scenario."""

    def own(self) -> Costs:
        """Give the same costs with a slowness of their own."""
        found = copy(self)
        found.slowness = dict(self.slowness)
        return found

    def length(self, model: str) -> int:
        """Give L."""
        return len(self._parameters[model]) - 1

    def compute_s(self, model: str, worker: str, first: int, last: int, point: int | None = None) -> float:
        """Give the time of blocks ``first`` to ``last`` on a worker, without the overhead of a stage, in seconds.

        With an operating point it is the mean over the samples that come to block ``first``, of which some leave early.
        """
        reach = None if point is None else self._reach[model][point]
        if point is None or reach is None or reach[first] == 0:  # what comes against all odds is taken to stay
            sums, share = self._compute_s[model, worker], 1.0
        else:
            sums, share = self._reached_s[model, worker, point], reach[first]
        return (sums[last + 1] - sums[first]) / share * self.slowness.get(worker, 1.0)

    def stage_s(self, model: str, worker: str, first: int, last: int, point: int | None = None) -> float:
        """Give the time of a stage, its overhead included, in seconds; a mean as that of :meth:`compute_s`."""
        slowness = self.slowness.get(worker, 1.0)
        key = (model, worker, first, last, point, slowness)
        known_s = self._stage_s.get(key)
        if known_s is None:
            compute_s = self.compute_s(model, worker, first, last, point)
            known_s = self._stage_s[key] = self._overhead_s[model, worker] * slowness + compute_s
        return known_s

    def parameters(self, model: str, first: int, last: int) -> int:
        """Give the number of parameters of blocks ``first`` to ``last``."""
        sums = self._parameters[model]
        return sums[last + 1] - sums[first]

    def transfer_s(self, sender: str, receiver: str, size_bytes: float) -> float:
        """Give the time that a transfer takes when nothing else is sent; infinity where there is no path."""
        if sender == receiver:
            return 0.0
        pace = self._pace.get((sender, receiver))
        if pace is None:
            return math.inf
        if self.slowness and size_bytes > 0:
            hops = self._instance.paths[sender][receiver].hops
            return sum(self.hop_s(hop, size_bytes) for hop in hops) + pace[1]
        return size_bytes * pace[0] + pace[1]

    def hop_s(self, hop: Hop, size_bytes: float) -> float:
        """Give the time that a transfer occupies a hop when nothing else is sent, its latency not counted."""
        return size_bytes / hop.bytes_per_s * self.slowness.get((hop.sender, hop.receiver), 1.0)

    def latency_s(self, sender: str, receiver: str) -> float:
        """Give the time of a message without size; infinity where there is no path."""
        return self.transfer_s(sender, receiver, 0.0)

    def neighbours(self, worker: str) -> tuple[str, ...]:
        """Give the workers that the scenario's policy section names, or those that one hop reaches."""
        named = self._instance.scenario.policy.neighbours
        if named is not None:
            return named.get(worker, ())
        paths = self._instance.paths.get(worker, {})
        return tuple(other for other in self._instance.workers if other in paths and len(paths[other].hops) == 1)

    def ring(self, first: str) -> tuple[str, ...]:
        """Give the workers of the ring, starting with ``first``; none when it is not one of them."""
        ring = self._instance.scenario.policy.ring or self._instance.workers
        if first not in ring:
            return ()
        start = ring.index(first)
        return ring[start:] + ring[:start]
