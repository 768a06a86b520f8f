"""What blocks and transfers cost in place: samples sent as in a run, just before it and just after it.

A profile is measured by a process that does nothing else, perhaps on another day. In place a device talks while it
computes, shares its memory and runs in its power mode of today. A prediction from costs in place says whether the
plan's delays come out as its model of queues and pipelines has it; how far those costs are from the profile's, whether
the profile still holds. Without the one, the other would be blamed for its error.

The samples arrive at the run's rates but at other times, by another seed: one at a time they would find every
processor and cache idle, and cost less than in the run. What slows one block down slows the next ones, too, be it heat,
another program or an agent's own messages, and queues grow with that: so the order in which times came is kept.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from math import inf
from typing import Final, NamedTuple, TypeVar

import numpy as np

from planner.execution.coordinator.coordinator import READY_TIMEOUT_S, Coordinator
from planner.execution.coordinator.deployment import Deployment
from planner.profiling.types import BlockCost, Profile
from planner.scenario.arrivals import instance_arrivals
from planner.scenario.instance import Hop, Instance, NetworkPath
from planner.trace.records import BlockRecord, Record, SampleRecord, TransferRecord

_K = TypeVar("_K")
_V = TypeVar("_V")

DRIFT: Final = 0.1
"""How far a worker's speed after a run may be from that before it until its host counts as the limit."""

_FEWEST: Final = 5
"""How many samples of a source go at least; where its rate is too low for that, they come sooner."""


_APART: Final = 1.5
"""Sizes that differ by this factor tell bandwidth from latency."""


class BlockTime(NamedTuple):
    """What a block took, in seconds."""

    model: str
    block: int
    time_s: float


@dataclass(frozen=True)
class InSituCosts:
    """Times of single blocks and transfers, in seconds.

    Parameters
    ----------
    blocks
        By worker, in the order in which they ran.
    transfers
        Sizes in bytes and times, by network resource.
    """

    blocks: Mapping[str, Sequence[BlockTime]]
    transfers: Mapping[str, Sequence[tuple[int, float]]]

    def times_s(self, worker: str) -> dict[tuple[str, int], list[float]]:
        """Give the times of each block that a worker ran, by model and block."""
        found = defaultdict[tuple[str, int], list[float]](list)
        for model, block, time_s in self.blocks.get(worker, ()):
            found[model, block].append(time_s)
        return found

    def slowness(self, instance: Instance) -> dict[str, float]:
        """Give what the blocks of each worker took by what its profiles say, for the workers that ran any."""
        return {
            worker: sum(float(np.mean(times)) for times in found.values())
            / sum(float(instance.block_s(model, worker)[block]) for model, block in found)
            for worker in self.blocks
            if (found := self.times_s(worker))
        }

    def factors(self) -> dict[str, list[float]]:
        """Give what the blocks of each worker took by their means, in the order in which they ran."""
        factors = {}
        for worker, blocks in self.blocks.items():
            means_s = {key: float(np.mean(times)) for key, times in self.times_s(worker).items()}
            factors[worker] = [time_s / means_s[model, block] for model, block, time_s in blocks]
        return factors


@dataclass(frozen=True)
class CalibrationRun:
    """Costs in place just before a run and just after it; not after one that workers left."""

    before: InSituCosts
    after: InSituCosts | None

    @property
    def costs(self) -> InSituCosts:
        """Both together."""
        if self.after is None:
            return self.before
        return InSituCosts(
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


def calibrate(
    coordinator: Coordinator,
    deployment: Deployment,
    predicted: Iterable[Record],
    lasts_s: float,
    *,
    ready_timeout_s: float = READY_TIMEOUT_S,
) -> InSituCosts:
    """Run a deployment's plan and policy for about ``lasts_s``; its agents are there.

    Parameters
    ----------
    predicted
        What is expected of the run.

    Raises
    ------
    PlannerError
        The run could not be made.
    """
    # The plan stays: what it costs is asked, not what another one would.
    brief = replace(deployment, instance=briefly(deployment, predicted, lasts_s), replan=None)
    return in_situ_costs(coordinator.run(brief, ready_timeout_s=ready_timeout_s).records)


def briefly(deployment: Deployment, predicted: Iterable[Record], lasts_s: float) -> Instance:
    """Give the instance with about as many samples as end within ``lasts_s``, at other times, and nothing happening."""
    instance = deployment.instance
    ended = Counter(
        record.source for record in predicted if isinstance(record, SampleRecord) and record.finished_s <= lasts_s
    )
    traces = {}
    for source in instance.sources:
        count = min(max(ended[source], _FEWEST), instance.samples(source))
        times_s = list(islice(instance_arrivals(instance, source, deployment.seed + 1), count))
        last_s = max(times_s, default=0.0)
        sooner = min(lasts_s / last_s, 1.0) if last_s > 0 else 1.0
        traces[source] = tuple(time_s * sooner for time_s in times_s)
    replayed = {name: {"arrivals": "trace", "samples": len(times_s)} for name, times_s in traces.items()}
    return instance.with_sources(replayed).with_scenario(events=()).model_copy(update={"traces": traces})


def in_situ_costs(records: Iterable[Record]) -> InSituCosts:
    """Give what the blocks and transfers in a run's records took, the waiting for others not counted.

    What passes between the end of a block and the beginning of the worker's next one, or between what a block needs and
    its beginning on an idle worker, is the agent's own work, and counts for that block. Of transfers those count that
    found their network resource idle.
    """
    ended: dict[tuple[str, int], SampleRecord] = {}
    steps = defaultdict[tuple[str, int], list[BlockRecord | TransferRecord]](list)
    for one in records:
        if isinstance(one, SampleRecord):
            ended[one.source, one.sample] = one
        else:
            steps[one.source, one.sample].append(one)
    computed = defaultdict[str, list[_Ready]](list)
    carried = defaultdict[str, list[TransferRecord]](list)
    for sample, alone in _alone(ended.values()):
        if sample.origin is None:
            continue
        ready_s = sample.created_s if alone else inf  # else it may have been held back at home
        for step in sorted(steps[sample.source, sample.sample], key=_place):
            if isinstance(step, BlockRecord):
                computed[step.worker].append(_Ready(step, sample.origin.model, ready_s))
            else:
                carried[step.resource].append(step)
            ready_s = step.end_s
    return InSituCosts(
        {worker: _block_costs(found) for worker, found in computed.items()},
        {resource: _transfer_costs(found) for resource, found in carried.items()},
    )


class _Ready(NamedTuple):
    """A block that was run, and since when it could have been, had nothing else gone on."""

    block: BlockRecord
    model: str
    since_s: float


def _block_costs(computed: Iterable[_Ready]) -> list[BlockTime]:
    """Give what one worker's blocks took, in the order in which they ran."""
    costs, free_s = [], -inf
    for block, model, since_s in sorted(computed, key=lambda one: one.block.start_s):
        begin_s = min(block.start_s, max(since_s, free_s))
        costs.append(BlockTime(model, block.block, block.end_s - begin_s))
        free_s = block.end_s
    return costs


def _transfer_costs(carried: Iterable[TransferRecord]) -> list[tuple[int, float]]:
    """Give sizes in bytes and times in seconds of one resource's transfers that found it idle."""
    costs, free_s = [], -inf
    for transfer in sorted(carried, key=lambda one: one.start_s):
        if free_s <= transfer.start_s:
            costs.append((transfer.size_bytes, transfer.end_s - transfer.start_s))
        free_s = max(free_s, transfer.end_s)
    return costs


def _alone(samples: Iterable[SampleRecord]) -> Iterator[tuple[SampleRecord, bool]]:
    """Give each sample, and whether no other one of its source was under way when it came."""
    last_s = defaultdict[str, float](lambda: -inf)
    for sample in sorted(samples, key=lambda one: one.created_s):
        yield sample, last_s[sample.source] <= sample.created_s
        last_s[sample.source] = max(last_s[sample.source], sample.finished_s)


def _place(step: BlockRecord | TransferRecord) -> tuple[int, bool, float]:
    """Sort a sample's steps: what is at a cut is carried before the block behind it runs."""
    if isinstance(step, BlockRecord):
        return step.block, True, step.start_s
    return step.cut, False, step.start_s


def with_in_situ_costs(instance: Instance, costs: InSituCosts) -> Instance:
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
    as_found = {name: {"device_class": found, "speed": 1.0} for name, found in classes.items()}
    paths = {
        sender: {
            receiver: NetworkPath(hops=tuple(_hop_at(hop, costs) for hop in path.hops))
            for receiver, path in ways.items()
        }
        for sender, ways in instance.paths.items()
    }
    return instance.with_workers(as_found).model_copy(update={"profiles": profiles, "paths": paths})


def _class_of(instance: Instance, worker: str) -> str:
    return f"{instance.worker(worker).device_class} as {worker}"


def _profile_at(instance: Instance, model: str, worker: str, costs: InSituCosts, slowness: float) -> Profile:
    profile, speed = instance.profile(model, worker), instance.worker(worker).speed
    found = costs.times_s(worker)

    def cost_at(index: int, block: BlockCost) -> BlockCost:
        times = found.get((model, index), ())
        mean_s = float(np.mean(times)) if times else block.mean_s / speed * slowness
        return block.model_copy(update={"mean_s": mean_s, "std_s": block.std_s * mean_s / block.mean_s})

    # What a stage costs beyond its blocks is in the time of its first block here.
    return profile.model_copy(
        update={
            "blocks": tuple(cost_at(index, block) for index, block in enumerate(profile.blocks)),
            "stage_overhead_s": 0.0,
            "device_class": _class_of(instance, worker),
        }
    )


def _hop_at(hop: Hop, costs: InSituCosts) -> Hop:
    found = costs.transfers.get(hop.resource)
    if not found:
        return hop
    sizes, times_s = np.array(found, float).T
    bytes_per_s, latency_s = hop.bytes_per_s, hop.latency_s
    if sizes.max() >= _APART * sizes.min():
        slope, at_zero_s = np.polyfit(sizes, times_s, 1)
        latency_s = max(at_zero_s, 0.0) if slope > 0 else inf
    if (rest_s := times_s.sum() - latency_s * len(found)) > 0:
        bytes_per_s = sizes.sum() / rest_s
    else:  # size tells nothing here
        latency_s = max(times_s.mean() - sizes.mean() / bytes_per_s, 0.0)
    return hop.model_copy(update={"bytes_per_s": float(bytes_per_s), "latency_s": float(latency_s)})
