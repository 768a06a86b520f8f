"""Expected computation and transfer times, looked up fast: sums over blocks from the instance's profiles."""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import copy
from itertools import accumulate
from types import MappingProxyType

from planner.plan.types import Stage
from planner.profiling.types import Profile
from planner.scenario.instance import Hop, Instance


class CostTable:
    """Prefix sums over the blocks of each model on each worker; read-only."""

    __slots__ = (
        "_batch_s",
        "_compute_s",
        "_cut_bytes",
        "_instance",
        "_overhead_s",
        "_pace",
        "_parameters",
        "_reach",
        "_reached_s",
        "_saved_s",
        "_slowness",
    )

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._compute_s: dict[str, dict[str, list[float]]] = {
            model: {worker: [0.0, *accumulate(instance.block_s(model, worker).tolist())] for worker in instance.workers}
            for model in instance.profiles
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
            model: {worker: instance.stage_overhead_s(model, worker) for worker in instance.workers}
            for model in instance.profiles
        }
        self._parameters = {
            model: [0, *accumulate(_parameters(instance.any_profile(model)))] for model in instance.profiles
        }
        self._cut_bytes = MappingProxyType({model: instance.cut_bytes(model) for model in instance.profiles})
        self._pace: dict[tuple[str, str], tuple[float, float]] = {
            (sender, receiver): (
                sum([1 / hop.bytes_per_s for hop in path.hops], 0.0),
                sum([hop.latency_s for hop in path.hops], 0.0),
            )
            for sender, by_receiver in instance.paths.items()
            for receiver, path in by_receiver.items()
        }
        self._batch_s: dict[tuple[str, str, int, int, int], float] = {}
        self._saved_s: dict[tuple[str, Stage, int | None], list[float]] = {}
        self._slowness: Mapping[str | tuple[str, str], float] = {}

    @property
    def cut_bytes(self) -> Mapping[str, tuple[int, ...]]:
        """Bytes across each cut of each model."""
        return self._cut_bytes

    @property
    def slowness(self) -> Mapping[str | tuple[str, str], float]:
        """How many times slower than profiled each worker is at the moment, where known.

        Likewise, how many times slower than in the scenario each hop is, by sender and receiver.
        """
        return MappingProxyType(self._slowness)

    def with_slowness(self, slowness: Mapping[str | tuple[str, str], float]) -> CostTable:
        """Return the same costs under a slowness, which they follow as it changes."""
        costs = copy(self)
        costs._slowness = slowness  # noqa: SLF001  # of this very class
        return costs

    def length(self, model: str) -> int:
        """Return L, the number of blocks of a model."""
        return len(self._parameters[model]) - 1

    def compute_s(
        self, model: str, worker: str, first: int, last: int, point: int | None = None, *, stage: Stage | None = None
    ) -> float:
        """Return the time of blocks ``first`` to ``last`` on a worker, without a stage's overhead, in seconds.

        With an operating point it is the mean over the samples that come to block ``first``, of which some leave early.
        With the stage that they belong to, they run in its sessions; else each has its own.
        """
        reach = None if point is None else self._reach[model][point]
        if point is None or reach is None or reach[first] == 0:  # what comes against all odds is taken to stay
            sums, share, point = self._compute_s[model][worker], 1.0, None
        else:
            sums, share = self._reached_s[model, worker, point], reach[first]
        work_s = sums[last + 1] - sums[first]
        if stage is not None and stage.sessions:
            saved = self._saved(model, stage, point)
            work_s -= saved[last + 1] - saved[first]
        return work_s / share * self._slowness.get(worker, 1.0)

    def _saved(self, model: str, stage: Stage, point: int | None) -> list[float]:
        """Return prefix sums of what the sessions of a stage save before each block; length L + 1."""
        key = model, stage, point
        if key not in self._saved_s:
            joined = {block for first, last in stage.spans for block in range(first + 1, last + 1)}
            reach = None if point is None else self._reach[model][point]
            shares = reach or (1.0,) * self.length(model)
            savings = zip(self._instance.saving_s(model, stage.worker).tolist(), shares, strict=True)
            saved_s = (saving_s * share if block in joined else 0.0 for block, (saving_s, share) in enumerate(savings))
            self._saved_s[key] = [0.0, *accumulate(saved_s)]
        return self._saved_s[key]

    def stage_s(
        self, model: str, worker: str, first: int, last: int, point: int | None = None, *, stage: Stage | None = None
    ) -> float:
        """Return the time of a stage, its overhead included, in seconds; a mean as that of :meth:`compute_s`."""
        compute_s = self.compute_s(model, worker, first, last, point, stage=stage)
        return self._overhead_s[model][worker] * self._slowness.get(worker, 1.0) + compute_s

    def batch_s(self, model: str, worker: str, first: int, last: int, size: int) -> float:
        """Return how much longer blocks ``first`` to ``last`` take for a batch than for one sample, in seconds."""
        return self._profiled_batch_s(model, worker, first, last, size) * self._slowness.get(worker, 1.0)

    def _profiled_batch_s(self, model: str, worker: str, first: int, last: int, size: int) -> float:
        key = model, worker, first, last, size
        if key not in self._batch_s:
            self._batch_s[key] = self._instance.batch_s(model, worker, first, last, size)
        return self._batch_s[key]

    def batch_size(self, model: str, worker: str, first: int, last: int, most: int) -> int:
        """Return the size of a batch, at most ``most``, that takes the least time per sample for these blocks."""
        sums = self._compute_s[model][worker]
        alone_s = sums[last + 1] - sums[first]

        def per_sample_s(size: int) -> float:
            return (alone_s + self._profiled_batch_s(model, worker, first, last, size)) / size

        return min(range(most, 0, -1), key=per_sample_s)

    def least_s(self, model: str, worker: str, block: int) -> float:
        """Return the time of a block on a worker in one session with the block before, if that saves time."""
        saved_s = float(self._instance.saving_s(model, worker)[block]) * self._slowness.get(worker, 1.0)
        return self.compute_s(model, worker, block, block) - saved_s

    def parameters(self, model: str, first: int, last: int) -> int:
        """Return the number of parameters of blocks ``first`` to ``last``; of blocks, if the whole model has none."""
        sums = self._parameters[model]
        return sums[last + 1] - sums[first]

    def transfer_s(self, sender: str, receiver: str, size_bytes: float) -> float:
        """Return the time of a transfer while nothing else is sent, in seconds; infinity where there is no path."""
        if sender == receiver:
            return 0.0
        pace = self._pace.get((sender, receiver))
        if pace is None:
            return math.inf
        if self._slowness and size_bytes > 0:
            hops = self._instance.paths[sender][receiver].hops
            return sum([self.hop_s(hop, size_bytes) for hop in hops], 0.0) + pace[1]
        return size_bytes * pace[0] + pace[1]

    def hop_s(self, hop: Hop, size_bytes: float) -> float:
        """Return how long a transfer occupies a hop while nothing else is sent, without latency, in seconds."""
        return size_bytes / hop.bytes_per_s * self._slowness.get((hop.sender, hop.receiver), 1.0)

    def latency_s(self, sender: str, receiver: str) -> float:
        """Return the time of a message without size, in seconds; infinity where there is no path."""
        return self.transfer_s(sender, receiver, 0.0)

    def neighbours(self, worker: str) -> tuple[str, ...]:
        """Return the workers that the scenario's policy section names, or those that one hop reaches."""
        named = self._instance.scenario.policy.neighbours
        if named is not None:
            return named.get(worker, ())
        paths = self._instance.paths.get(worker, {})
        return tuple(other for other in self._instance.workers if other in paths and len(paths[other].hops) == 1)

    def ring(self, first: str) -> tuple[str, ...]:
        """Return the workers of the ring, starting with ``first``; none when it is not one of them."""
        ring = self._instance.scenario.policy.ring or self._instance.workers
        if first not in ring:
            return ()
        start = ring.index(first)
        return ring[start:] + ring[:start]


def _parameters(profile: Profile) -> list[int]:
    counts = [block.parameters for block in profile.blocks]
    return counts if any(counts) else [1] * len(counts)
