"""Own implementations of the placement rules of other projects, for one source and distinct links.

``equal`` and ``by-speed`` cut the model into segments for all devices in turn. ``greedy`` (MaxTP of SAGA) gives each
block in turn to the device with which the busiest device or link is least busy. ``subsets`` (PipeEdge) finds the best
partition over distinct devices by a dynamic program over sets of devices. None of them knows memory or several sources.

References
----------
Y. Hu et al., "PipeEdge: Pipeline parallelism for large-scale model inference on heterogeneous edge devices", DSD 2022.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from planner.plan.types import Route, Stage
from planner.scenario.instance import Instance

Array = NDArray[np.float64]

MAX_SUBSET_DEVICES: Final = 12
"""With more devices the dynamic program takes minutes and gigabytes."""


class Chain:
    """The only source's model as arrays: seconds of each block [L, D] and of each cut between devices [L + 1, D, D]."""

    def __init__(self, instance: Instance) -> None:
        (source,) = instance.sources
        (self.model,) = instance.scenario.sources[source].models
        self.workers = instance.workers
        self.home = self.workers.index(instance.home(source))
        self.block_s = np.array([instance.block_s(self.model, name) for name in self.workers]).T
        per_byte = np.array([[_s_per_byte(instance, a, b) for b in self.workers] for a in self.workers])
        self.cut_s = np.array(instance.cut_bytes(self.model))[:, None, None] * per_byte

    def route(self, devices: list[int]) -> Route:
        """Return the route on which ``devices`` [L] run the blocks."""
        begins = [block for block, device in enumerate(devices) if block == 0 or devices[block - 1] != device]
        ends = [*(begin - 1 for begin in begins[1:]), len(devices) - 1]
        return Route(
            model=self.model,
            stages=tuple(
                Stage(worker=self.workers[devices[begin]], first_block=begin, last_block=end)
                for begin, end in zip(begins, ends, strict=True)
            ),
        )


def equal(chain: Chain) -> list[int]:
    """Return segments of equally many blocks, from the source's device on."""
    return _segments(chain, _from_home(chain), np.ones(len(chain.workers)))


def by_speed(chain: Chain) -> list[int]:
    """Return segments in proportion to the devices' speeds, the fastest first."""
    speed = 1 / chain.block_s.sum(axis=0)
    return _segments(chain, np.argsort(-speed, kind="stable"), speed)


def greedy(chain: Chain) -> list[int]:
    """Return the device with the least resulting bottleneck for each block in turn."""
    devices = range(len(chain.workers))
    busy_s, sent_s = np.zeros(len(devices)), np.zeros((len(devices), len(devices)))
    chosen: list[int] = []
    last = chain.home
    for block in range(len(chain.block_s)):
        after = busy_s + chain.block_s[block]
        moved = np.where(np.arange(len(devices)) == last, 0.0, sent_s[last] + chain.cut_s[block, last])
        device = int(np.argmin(np.maximum(after, moved)))
        busy_s[device] = after[device]
        sent_s[last, device] += chain.cut_s[block, last, device]
        chosen.append(device)
        last = device
    return chosen


def subsets(chain: Chain) -> list[int]:
    """Return the partition over distinct devices with the least bottleneck.

    ``value[set][last]`` [L + 1] is the least bottleneck with which the devices of a set run the first blocks; ``last``
    runs the last of their stages.
    """
    count, length = len(chain.workers), len(chain.block_s)
    if count > MAX_SUBSET_DEVICES:
        raise ValueError(f"{count} devices have too many subsets")
    work_s = np.vstack([np.zeros(count), np.cumsum(chain.block_s, axis=0)])
    begin, end = np.tril_indices(length + 1, -1)[::-1]
    stage_s = np.full((count, length + 1, length + 1), np.inf)  # [device, first block, block after the last]
    stage_s[:, begin, end] = (work_s[end] - work_s[begin]).T
    value = np.full((2**count, count, length + 1), np.inf)
    origin = np.zeros((2**count, count, length + 1, 2), dtype=np.int16)  # the device before, and the first block
    for device in range(count):
        value[1 << device, device] = np.maximum(stage_s[device, 0], chain.cut_s[0, chain.home, device])
        origin[1 << device, device] = (-1, 0)
    for used in range(1, 2**count):
        for last in _members(used, count):
            for device in set(range(count)) - set(_members(used, count)):
                sent = np.maximum(value[used, last], chain.cut_s[:, last, device])
                through = np.maximum(sent[:, None], stage_s[device])
                first = through.argmin(axis=0)
                best = through[first, np.arange(length + 1)]
                after = used | 1 << device
                better = best < value[after, device]
                value[after, device][better] = best[better]
                origin[after, device][better] = np.stack([np.full(length + 1, last), first], axis=1)[better]
    done = np.maximum(value[:, :, length], chain.cut_s[length, :, chain.home])
    used, device = (int(index) for index in np.unravel_index(int(done.argmin()), done.shape))
    chosen: list[int] = []
    cut = length
    while cut:
        before, first = (int(number) for number in origin[used, device, cut])
        chosen = [device] * (cut - first) + chosen
        used, device, cut = used & ~(1 << device), before, first
    return chosen


RULES: Final[Mapping[str, Callable[[Chain], list[int]]]] = {
    "rule equal": equal,
    "rule by-speed": by_speed,
    "rule greedy": greedy,
    "rule subsets": subsets,
}


def _members(used: int, count: int) -> list[int]:
    return [device for device in range(count) if used >> device & 1]


def _segments(chain: Chain, order: NDArray[np.intp], part: Array) -> list[int]:
    length = len(chain.block_s)
    ends = np.cumsum(part[order]) / part.sum() * length
    middle = np.arange(length) + 0.5
    devices: list[int] = order[np.minimum(np.searchsorted(ends, middle), len(order) - 1)].tolist()
    return devices


def _from_home(chain: Chain) -> NDArray[np.intp]:
    return np.roll(np.arange(len(chain.workers)), -chain.home)


def _s_per_byte(instance: Instance, sender: str, receiver: str) -> float:
    path = instance.path(sender, receiver)
    if sender == receiver or path is None:
        return 0.0 if sender == receiver else np.inf
    return max(1 / hop.bytes_per_s for hop in path.hops)
