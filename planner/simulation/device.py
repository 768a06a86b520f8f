"""A worker's hardware in virtual time: how long blocks take, when it may compute, and how fast it is at the moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from math import inf

import numpy as np

from planner.scenario.instance import Instance
from planner.worker.events import RunBlock

_STREAM = 1_000
"""Streams of devices are numbered from here; those of the sources from 0."""


class Device:
    """One worker's hardware.

    Block times follow gamma distributions with the profile's mean and spread, from a stream of this device's own; a
    stage's overhead is added to its first block. Without ``overlap`` a block waits until all it sends is gone.

    Parameters
    ----------
    factors
        What successive blocks take by their mean, as it was once measured: from a random one on, over and over, in
        place of the profile's spread. Without any a block's time says nothing of the next one's.
    """

    def __init__(self, instance: Instance, worker: str, seed: int, factors: Sequence[float] = ()) -> None:
        key = (_STREAM + instance.workers.index(worker),)
        self.rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
        self.overlap = instance.worker(worker).overlap
        self._gamma = {
            model: list(
                map(
                    _shape_and_scale,
                    instance.block_s(model, worker).tolist(),
                    instance.block_std_s(model, worker).tolist(),
                )
            )
            for model in instance.profiles
        }
        self._factors = _from(int(self.rng.integers(len(factors))), factors) if factors else None
        self._overhead_s = {model: instance.stage_overhead_s(model, worker) for model in instance.profiles}
        self._sending = 0
        self._held: Callable[[], None] | None = None
        self.slowness = 1.0
        """How many times longer blocks take at the moment."""

    def take_over(self, before: Device) -> None:
        """Go on with the chance and the slowness of the same hardware, whose worker has left meanwhile."""
        self.rng, self._factors, self.slowness = before.rng, before._factors, before.slowness

    def service_s(self, run: RunBlock) -> float:
        """Draw how long a block takes, in seconds."""
        shape, scale_s = self._gamma[run.model][run.block]
        if self._factors is not None:
            service_s = next(self._factors) * (shape * scale_s if shape < inf else scale_s)
        else:
            service_s = self.rng.gamma(shape, scale_s) if shape < inf else scale_s
        if run.begins_stage:
            service_s += self._overhead_s[run.model]
        return service_s * self.slowness

    @property
    def free(self) -> bool:
        """Whether a block may start now."""
        return self.overlap or self._sending == 0

    def hold(self, start: Callable[[], None]) -> None:
        """Start a block when this device has sent everything."""
        self._held = start

    def sending(self) -> None:
        """Count a transfer that begins to leave."""
        self._sending += 1

    def sent(self) -> None:
        """Count a transfer that has left; a block that waited for it starts."""
        self._sending -= 1
        if self._sending == 0 and self._held is not None:
            start, self._held = self._held, None
            start()


def _from(first: int, factors: Sequence[float]) -> Iterator[float]:
    return cycle([*factors[first:], *factors[:first]])


def _shape_and_scale(mean_s: float, std_s: float) -> tuple[float, float]:
    """Give shape and scale, in seconds, of a gamma distribution; without spread an infinite shape and the mean."""
    if std_s == 0:
        return inf, mean_s
    shape = (mean_s / std_s) ** 2
    return shape, mean_s / shape
