"""Model of a worker's hardware in virtual time: block times, current speed, and when it may compute."""

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
    """The hardware of one worker.

    Block times follow gamma distributions with the profile's mean and standard deviation, drawn from a separate random
    stream; the overhead of a stage is added to its first block. Without ``overlap``, a block waits until the device has
    sent all its data.

    Parameters
    ----------
    factors
        Measured times of successive blocks, divided by their means. They are repeated from a random position and
        replace the profile's standard deviation. Without them, successive block times are independent.
    """

    def __init__(self, instance: Instance, worker: str, seed: int, factors: Sequence[float] = ()) -> None:
        key = (_STREAM + instance.workers.index(worker),)
        self.rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
        self.overlap = instance.worker(worker).overlap
        self._instance, self._worker = instance, worker
        self._gamma: dict[tuple[str, int, int, int], tuple[float, float]] = {}
        self._factors = _cycle_from(int(self.rng.integers(len(factors))), factors) if factors else None
        self._overhead_s = {model: instance.stage_overhead_s(model, worker) for model in instance.profiles}
        self._sending = 0
        self._held: Callable[[], None] | None = None
        self.slowness = 1.0
        """Factor by which blocks currently take longer."""

    def take_over(self, before: Device) -> None:
        """Continue the random stream and the slowness of the same hardware before its worker left."""
        self.rng, self._factors, self.slowness = before.rng, before._factors, before.slowness

    def service_s(self, run: RunBlock, mean_s: float | None = None) -> float:
        """Draw the time of a session, in seconds; its mean is that of the profile unless ``mean_s`` is given."""
        key = run.model, run.block, run.session_end, len(run.others)
        if key not in self._gamma:
            self._gamma[key] = _shape_and_scale(*self._mean_and_std_s(run))
        shape, scale_s = self._gamma[key]
        if mean_s is not None:
            scale_s = mean_s / shape if shape < inf else mean_s
        if self._factors is not None:
            service_s = next(self._factors) * (shape * scale_s if shape < inf else scale_s)
        else:
            service_s = self.rng.gamma(shape, scale_s) if shape < inf else scale_s
        if run.begins_stage:
            service_s += self._overhead_s[run.model]
        return service_s * self.slowness

    def _mean_and_std_s(self, run: RunBlock) -> tuple[float, float]:
        """Return mean and standard deviation of the time of a session, in seconds; that of a batch varies as much."""
        first, last = run.block, run.session_end
        means_s, stds_s = self._instance.sessions_s(run.model, self._worker, [(first, last)])
        alone_s, std_s = float(means_s[0]), float(stds_s[0])
        mean_s = alone_s + self._instance.batch_s(run.model, self._worker, first, last, len(run.keys))
        return mean_s, std_s * mean_s / alone_s

    @property
    def free(self) -> bool:
        """Whether a block may start."""
        return self.overlap or self._sending == 0

    def hold(self, start: Callable[[], None]) -> None:
        """Start a block once this device has sent all its data."""
        self._held = start

    def sending(self) -> None:
        """Count a transfer that this device begins to send."""
        self._sending += 1

    def sent(self) -> None:
        """Count a transfer that has been sent; a block that waited for it starts."""
        self._sending -= 1
        if self._sending == 0 and self._held is not None:
            start, self._held = self._held, None
            start()


def _cycle_from(first: int, factors: Sequence[float]) -> Iterator[float]:
    return cycle([*factors[first:], *factors[:first]])


def _shape_and_scale(mean_s: float, std_s: float) -> tuple[float, float]:
    """Return shape and scale of a gamma distribution, or an infinite shape and the mean if ``std_s`` is 0."""
    if std_s == 0:
        return inf, mean_s
    shape = (mean_s / std_s) ** 2
    return shape, mean_s / shape
