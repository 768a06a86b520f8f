"""What blocks and transfers cost in place: samples sent one at a time, just before a run and just after it.

A profile is measured by a process that does nothing else, perhaps on another day. In place a device talks, rests
between samples and runs in its power mode of today. A prediction from costs in place says whether the plan's delays
come out as its model of queues and pipelines has it; how far those costs are from the profile's, whether the profile
still holds. Without the one, the other would be blamed for its error.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

import numpy as np

from planner.execute.coordinator import Coordinator
from planner.execute.deployment import Deployment
from planner.profile.types import BlockCost, Profile
from planner.scenario.instance import Hop, Instance, Path
from planner.trace.records import BlockRecord, Record, SampleRecord, TransferRecord

_K = TypeVar("_K")
_V = TypeVar("_V")

DRIFT: Final = 0.1
"""How far a worker's speed after a run may be from that before it until its host counts as the limit."""

_FEWEST: Final = 5
"""How many samples of a source go, whatever time that takes."""

_SPARE: Final = 1.5
"""A sample is given so many times the delay that it should have, so that it is alone."""

_READY_TIMEOUT_S: Final = 120.0

_APART: Final = 4
"""Sizes that differ by this factor tell bandwidth from latency."""


@dataclass(frozen=True)
class Costs:
    """Times of single blocks and transfers, in seconds.

    Parameters
    ----------
    blocks
        By worker, model and block.
    transfers
        Sizes in bytes and times, by network resource.
    """

    blocks: Mapping[tuple[str, str, int], Sequence[float]]
    transfers: Mapping[str, Sequence[tuple[int, float]]]

    def slowness(self, instance: Instance) -> dict[str, float]:
        """Give what the blocks of each worker took by what its profiles say, for the workers that ran any."""
        expected_s, found_s = defaultdict[str, float](float), defaultdict[str, float](float)
        for (worker, model, block), times in self.blocks.items():
            expected_s[worker] += float(instance.block_s(model, worker)[block])
            found_s[worker] += float(np.mean(times))
        return {worker: found_s[worker] / expected_s[worker] for worker in found_s}


@dataclass(frozen=True)
class Rehearsal:
    """Costs in place just before a run and just after it; not after one that workers left."""

    before: Costs
    after: Costs | None

    @property
    def costs(self) -> Costs:
        """Both together."""
        if self.after is None:
            return self.before
        return Costs(
            _joined(self.before.blocks, self.after.blocks), _joined(self.before.transfers, self.after.transfers)
        )

    def slowness(self, instance: Instance) -> dict[str, tuple[float, float | None]]:
        """Give that of each worker before and after the run."""
        after = self.after.slowness(instance) if self.after is not None else {}
        return {worker: (ratio, after.get(worker)) for worker, ratio in self.before.slowness(instance).items()}

    def drifted(self, instance: Instance) -> list[str]:
        """Name the workers whose speed changed in between."""
        found = self.slowness(instance)
        return [worker for worker, (before, after) in found.items() if after and abs(after / before - 1) > DRIFT]


def _joined(one: Mapping[_K, Sequence[_V]], other: Mapping[_K, Sequence[_V]]) -> dict[_K, list[_V]]:
    return {key: [*one.get(key, ()), *other.get(key, ())] for key in {**one, **other}}


def rehearse(coordinator: Coordinator, deployment: Deployment, lasts_s: float) -> Costs:
    """Send samples one at a time for about ``lasts_s``, by the plan and policy of a deployment whose agents are there.

    Raises
    ------
    PlannerError
        The run could not be made.
    """
    alone = replace(deployment, instance=one_at_a_time(deployment, lasts_s))
    return costs_of(coordinator.run(alone, ready_timeout_s=_READY_TIMEOUT_S).records)


def costs_of(records: Iterable[Record]) -> Costs:
    """Give the times of the blocks and transfers in a run's records, whose samples were alone.

    What passes between the end of one and the beginning of the next is the agents' own work, and counts for the next.
    """
    samples: dict[tuple[str, int], SampleRecord] = {}
    steps = defaultdict[tuple[str, int], list[BlockRecord | TransferRecord]](list)
    for one in records:
        if isinstance(one, SampleRecord):
            samples[one.source, one.sample] = one
        else:
            steps[one.source, one.sample].append(one)
    blocks, transfers = (
        defaultdict[tuple[str, str, int], list[float]](list),
        defaultdict[str, list[tuple[int, float]]](list),
    )
    for key, sample in samples.items():
        if sample.origin is None:
            continue
        before_s = sample.created_s
        for step in sorted(steps[key], key=_place):
            took_s, before_s = step.end_s - min(before_s, step.start_s), step.end_s
            if isinstance(step, BlockRecord):
                blocks[step.worker, sample.origin.model, step.block].append(took_s)
            else:
                transfers[step.resource].append((step.size_bytes, took_s))
    return Costs(blocks, transfers)


def _place(step: BlockRecord | TransferRecord) -> tuple[int, bool, float]:
    """Sort a sample's steps: what is at a cut is carried before the block behind it runs."""
    if isinstance(step, BlockRecord):
        return step.block, True, step.start_s
    return step.cut, False, step.start_s


def one_at_a_time(deployment: Deployment, lasts_s: float) -> Instance:
    """Give the instance with all sources' samples evenly spaced in time, and nothing happening."""
    instance, plan = deployment.instance, deployment.plan
    slowest_s = max(
        sum(
            max(instance.block_s(model, worker)[block] for worker in instance.workers)
            for block in range(instance.length(model))
        )
        for model in instance.profiles
    )
    planned_s = max((own.delay_s for own in plan.sources.values()), default=0.0) if plan is not None else 0.0
    space_s = _SPARE * max(float(slowest_s), planned_s)
    sources = instance.sources
    count = max(_FEWEST, int(lasts_s / space_s / len(sources)))
    traces = {
        source: tuple((index * len(sources) + place) * space_s for index in range(count))
        for place, source in enumerate(sources)
    }
    changed = {
        name: spec.model_copy(update={"arrivals": "trace", "samples": count})
        for name, spec in instance.scenario.sources.items()
    }
    scenario = instance.scenario.model_copy(update={"sources": changed, "events": ()})
    return instance.model_copy(update={"scenario": scenario, "traces": traces})


def at_costs(instance: Instance, costs: Costs) -> Instance:
    """Give an instance with the costs that were found in place.

    Blocks that were not met on a worker are as much slower than its profile as those that were. A resource over which
    sizes went that are far apart gets a bandwidth and a latency; where all were about as large, it keeps its latency.
    """
    slowness = costs.slowness(instance)
    classes = {worker: _class_of(instance, worker) for worker in slowness}
    profiles = {
        model: by_class
        | {classes[worker]: _profile_at(instance, model, worker, costs, slowness[worker]) for worker in slowness}
        for model, by_class in instance.profiles.items()
    }
    workers = {
        name: spec.model_copy(update={"device_class": classes[name], "speed": 1.0}) if name in classes else spec
        for name, spec in instance.scenario.workers.items()
    }
    paths = {
        sender: {
            receiver: Path(hops=tuple(_hop_at(hop, costs) for hop in path.hops)) for receiver, path in ways.items()
        }
        for sender, ways in instance.paths.items()
    }
    scenario = instance.scenario.model_copy(update={"workers": workers})
    return instance.model_copy(update={"scenario": scenario, "profiles": profiles, "paths": paths})


def _class_of(instance: Instance, worker: str) -> str:
    return f"{instance.worker(worker).device_class} as {worker}"


def _profile_at(instance: Instance, model: str, worker: str, costs: Costs, slowness: float) -> Profile:
    profile, speed = instance.profile(model, worker), instance.worker(worker).speed

    def cost_at(index: int, block: BlockCost) -> BlockCost:
        times = costs.blocks.get((worker, model, index), ())
        mean_s = float(np.mean(times)) if times else block.mean_s / speed * slowness
        std_s = float(np.std(times)) if len(times) >= _FEWEST else block.std_s * mean_s / block.mean_s
        return block.model_copy(update={"mean_s": mean_s, "std_s": std_s})

    # What a stage costs beyond its blocks is in the time of its first block here.
    return profile.model_copy(
        update={
            "blocks": tuple(cost_at(index, block) for index, block in enumerate(profile.blocks)),
            "stage_overhead_s": 0.0,
            "device_class": _class_of(instance, worker),
        }
    )


def _hop_at(hop: Hop, costs: Costs) -> Hop:
    found = costs.transfers.get(hop.resource)
    if not found:
        return hop
    by_size = defaultdict[int, list[float]](list)
    for size_bytes, time_s in found:
        by_size[size_bytes].append(time_s)
    sizes = sorted(by_size)
    small, large = sizes[0], sizes[-1]
    small_s, large_s = (float(np.mean(by_size[size])) for size in (small, large))
    if large >= _APART * small and large_s > small_s:
        bytes_per_s = (large - small) / (large_s - small_s)
        return hop.model_copy(update={"bytes_per_s": bytes_per_s, "latency_s": max(small_s - small / bytes_per_s, 0.0)})
    rest_s = large_s - hop.latency_s
    if rest_s > 0:
        return hop.model_copy(update={"bytes_per_s": large / rest_s})
    return hop.model_copy(update={"latency_s": max(large_s - large / hop.bytes_per_s, 0.0)})
