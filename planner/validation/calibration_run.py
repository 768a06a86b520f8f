"""Calibration runs: the in-situ costs of blocks and transfers, measured just before and just after a run.

A profile is measured by a process that does nothing else, perhaps on another day. In a run, a device communicates while
it computes, shares its memory, and has today's power mode. A prediction from in-situ costs tests how well the plan's
model of queues and pipelines holds; the difference between in-situ and profiled costs tests whether the profile still
holds. Without in-situ costs, an error of one would be attributed to the other.

Samples arrive at the rates of the run but at other times, drawn with another seed. Single samples would find all
processors and caches idle, and cost less than in the run. Causes that slow one block down, such as heat, another
program or the agent's own messages, slow the next blocks down, too, which makes queues longer. So the order of the
measured times is kept.

The runs of a sequence have unlike tokens, so their times count relative to those of the profile's curves: a block is
slower by one factor in prompts, and by another in steps.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from math import inf
from typing import Final, NamedTuple, TypeVar

import numpy as np

from planner.execution.coordinator.coordinator import READY_TIMEOUT_S, Coordinator
from planner.execution.coordinator.deployment import Deployment
from planner.profiling.sequences import Run
from planner.profiling.types import BlockCost, Profile
from planner.scenario.arrivals import instance_arrivals
from planner.scenario.instance import Hop, Instance, NetworkPath
from planner.scenario.run_times import RunTimes
from planner.trace.records import BlockRecord, Record, SampleRecord, TransferRecord

_K = TypeVar("_K")
_V = TypeVar("_V")

DRIFT: Final = 0.1
"""Relative change of a worker's speed during a run above which its host counts as the limit."""

_FEWEST: Final = 5
"""Minimum number of samples of a source; if its rate is too low for them, they arrive sooner."""

_APART: Final = 1.5
"""Ratio of the largest and smallest size above which bandwidth and latency can be told apart."""


class BlockTime(NamedTuple):
    """Time of a block, or of several up to ``last_block`` in one session, in seconds."""

    model: str
    block: int
    time_s: float
    last_block: int | None = None
    run: Run | None = None
    """Tokens of the run of a sequence."""

    @property
    def session(self) -> tuple[str, int, int]:
        """The model, and the first and last block of the session."""
        return self.model, self.block, self.block if self.last_block is None else self.last_block

    @property
    def kind(self) -> str:
        """Which curve of the profile it belongs to: that of prompts, that of steps, or none of them."""
        return "" if self.run is None else "step" if self.run.new == 1 else "prompt"


@dataclass(frozen=True)
class InSituCosts:
    """Times of single blocks and transfers, in seconds.

    Parameters
    ----------
    blocks
        Times of the blocks of each worker, in the order in which they ran.
    transfers
        Sizes in bytes and times of the transfers over each network resource.
    """

    blocks: Mapping[str, Sequence[BlockTime]]
    transfers: Mapping[str, Sequence[tuple[int, float]]]

    def times_s(self, worker: str) -> dict[tuple[str, int, int], list[float]]:
        """Return the times of each session that a worker ran, by model, first and last block."""
        times = defaultdict[tuple[str, int, int], list[float]](list)
        for time in self.blocks.get(worker, ()):
            times[time.session].append(time.time_s)
        return times

    def means_s(self, instance: Instance, worker: str) -> dict[tuple[str, int, int], dict[str, tuple[float, float]]]:
        """Return the mean time of each session and kind of run, as measured and as profiled."""
        found: dict[tuple[str, int, int], dict[str, tuple[float, float]]] = {}
        by_kind = defaultdict[tuple[tuple[str, int, int], str], list[tuple[float, float]]](list)
        expected_s = _Expected(instance, worker)
        for time in self.blocks.get(worker, ()):
            by_kind[time.session, time.kind].append((time.time_s, expected_s.of(time)))
        for (session, kind), times in by_kind.items():
            measured, expected = np.mean(times, axis=0).tolist()
            found.setdefault(session, {})[kind] = measured, expected
        return found

    def slowness(self, instance: Instance) -> dict[str, float]:
        """Return measured divided by profiled time of the blocks of each worker that ran any."""
        found = {}
        for worker in self.blocks:
            means_s = [pair for kinds in self.means_s(instance, worker).values() for pair in kinds.values()]
            if means_s:
                found[worker] = sum(measured for measured, _ in means_s) / sum(expected for _, expected in means_s)
        return found

    def factors(self, instance: Instance) -> dict[str, list[float]]:
        """Return the time of each block relative to the mean time of that block, by worker and in order."""
        factors = {}
        for worker, blocks in self.blocks.items():
            means_s, expected_s = self.means_s(instance, worker), _Expected(instance, worker)
            ratios = {
                (session, kind): measured / expected
                for session, kinds in means_s.items()
                for kind, (measured, expected) in kinds.items()
            }
            factors[worker] = [time.time_s / expected_s.of(time) / ratios[time.session, time.kind] for time in blocks]
        return factors


@dataclass(frozen=True)
class CalibrationRuns:
    """In-situ costs just before and just after a run; not after one that workers left."""

    before: InSituCosts
    after: InSituCosts | None

    @property
    def costs(self) -> InSituCosts:
        """Costs of both runs together."""
        if self.after is None:
            return self.before
        return InSituCosts(
            _joined(self.before.blocks, self.after.blocks), _joined(self.before.transfers, self.after.transfers)
        )

    def slowness(self, instance: Instance) -> dict[str, tuple[float, float | None]]:
        """Return the slowness of each worker before and after the run."""
        after = self.after.slowness(instance) if self.after is not None else {}
        return {worker: (ratio, after.get(worker)) for worker, ratio in self.before.slowness(instance).items()}

    def drifted(self, instance: Instance) -> list[str]:
        """Return the workers whose speed changed in between."""
        slowness = self.slowness(instance)
        return [worker for worker, (before, after) in slowness.items() if after and abs(after / before - 1) > DRIFT]


class _Expected:
    """Times of sessions on a worker by the profiles, in seconds."""

    def __init__(self, instance: Instance, worker: str) -> None:
        self._instance, self._worker = instance, worker
        self._runs = RunTimes(instance)

    def of(self, time: BlockTime) -> float:
        """Return the profiled time of what has been measured."""
        if time.run is None:
            return float(self._instance.sessions_s(time.model, self._worker, [time.session[1:]])[0][0])
        return float(self._runs.block_s(time.model, self._worker, time.run)[time.block])


def _joined(first: Mapping[_K, Sequence[_V]], second: Mapping[_K, Sequence[_V]]) -> dict[_K, list[_V]]:
    return {key: [*first.get(key, ()), *second.get(key, ())] for key in {**first, **second}}


def calibrate(
    coordinator: Coordinator,
    deployment: Deployment,
    predicted: Iterable[Record],
    duration_s: float,
    ready_timeout_s: float = READY_TIMEOUT_S,
) -> InSituCosts:
    """Run a deployment's plan and policy for about ``duration_s`` on the coordinator's agents.

    Parameters
    ----------
    predicted
        Simulated records of the deployment.

    Raises
    ------
    PlannerError
        If the run fails.
    """
    # Without re-planning, since the costs of this plan are wanted.
    shortened = replace(deployment, instance=shortened_instance(deployment, predicted, duration_s), replan=None)
    records = coordinator.run(shortened, ready_timeout_s=ready_timeout_s).records
    return in_situ_costs(records, partial(runs_of, deployment))


def runs_of(deployment: Deployment, sample: SampleRecord) -> Sequence[Run] | None:
    """Return the runs of a sample that is a sequence, in order; None for any other."""
    decode = deployment.instance.scenario.sources[sample.source].decode
    if decode is None:
        return None
    prompts = deployment.prompts(sample.source)
    prompt = len(prompts[sample.sample % len(prompts)])
    return decode.model_copy(update={"prompt": prompt, "max_new": max(sample.tokens or 0, 1)}).runs


def shortened_instance(deployment: Deployment, predicted: Iterable[Record], duration_s: float) -> Instance:
    """Return the instance without events, and with about as many samples as end within ``duration_s``."""
    instance = deployment.instance
    ended = Counter(
        record.source for record in predicted if isinstance(record, SampleRecord) and record.finished_s <= duration_s
    )
    traces = {}
    for source in instance.sources:
        count = min(max(ended[source], _FEWEST), instance.samples(source))
        times_s = list(islice(instance_arrivals(instance, source, deployment.seed + 1), count))
        last_s = max(times_s, default=0.0)
        scale = min(duration_s / last_s, 1.0) if last_s > 0 else 1.0
        traces[source] = tuple(time_s * scale for time_s in times_s)
    replayed = {name: {"arrivals": "trace", "samples": len(times_s)} for name, times_s in traces.items()}
    return instance.with_sources(replayed).with_scenario(events=()).model_copy(update={"traces": traces})


def in_situ_costs(
    records: Iterable[Record], runs: Callable[[SampleRecord], Sequence[Run] | None] = lambda _: None
) -> InSituCosts:
    """Return the times of blocks and transfers in a run's records, without the waiting for others.

    The time between the end of a block and the start of the worker's next one, or between the arrival of a block's
    input and its start on an idle worker, is work of the agent and counts for that block. Only transfers that found
    their network resource idle count. Sequences that have started again do not count.

    Parameters
    ----------
    runs
        Returns the runs of a sequence; None for other samples.
    """
    ended: dict[tuple[str, int], SampleRecord] = {}
    steps = defaultdict[tuple[str, int], list[BlockRecord | TransferRecord]](list)
    for record in records:
        if isinstance(record, SampleRecord):
            ended[record.source, record.sample] = record
        else:
            steps[record.source, record.sample].append(record)
    computed = defaultdict[str, list[_Ready]](list)
    carried = defaultdict[str, list[TransferRecord]](list)
    for sample, alone in _alone(ended.values()):
        own = steps[sample.source, sample.sample]
        of_sample = runs(sample)
        if sample.origin is None or not _ran_once(own, of_sample):
            continue
        ready_s = sample.created_s if alone else inf  # otherwise its worker may have held it back
        seen = Counter[int]()
        for step in sorted(own, key=_order if of_sample is None else lambda step: step.start_s):
            if isinstance(step, BlockRecord):
                run = None if of_sample is None else of_sample[seen[step.block]]
                seen[step.block] += 1
                computed[step.worker].append(_Ready(step, sample.origin.model, ready_s, run))
            else:
                carried[step.resource].append(step)
            ready_s = step.end_s
    return InSituCosts(
        {worker: _block_costs(blocks) for worker, blocks in computed.items()},
        {resource: _transfer_costs(transfers) for resource, transfers in carried.items()},
    )


def _ran_once(steps: Iterable[BlockRecord | TransferRecord], runs: Sequence[Run] | None) -> bool:
    """Return whether each block of a sequence ran once in each of its runs; other samples may run again."""
    if runs is None:
        return True
    counts = Counter(step.block for step in steps if isinstance(step, BlockRecord))
    return all(count == len(runs) for count in counts.values())


class _Ready(NamedTuple):
    """A block that was run, and the time from which it could have run on an idle worker."""

    block: BlockRecord
    model: str
    since_s: float
    run: Run | None


def _block_costs(computed: Iterable[_Ready]) -> list[BlockTime]:
    """Return the times of one worker's blocks, in the order in which they ran."""
    costs, free_s = [], -inf
    for block, model, since_s, run in sorted(computed, key=lambda ready: ready.block.start_s):
        begin_s = min(block.start_s, max(since_s, free_s))
        if block.batch == 1:
            costs.append(BlockTime(model, block.block, block.end_s - begin_s, block.last_block, run))
        free_s = block.end_s
    return costs


def _transfer_costs(carried: Iterable[TransferRecord]) -> list[tuple[int, float]]:
    """Return sizes in bytes and times in seconds of the transfers that found the resource idle."""
    costs, free_s = [], -inf
    for transfer in sorted(carried, key=lambda transfer: transfer.start_s):
        if free_s <= transfer.start_s:
            costs.append((transfer.size_bytes, transfer.end_s - transfer.start_s))
        free_s = max(free_s, transfer.end_s)
    return costs


def _alone(samples: Iterable[SampleRecord]) -> Iterator[tuple[SampleRecord, bool]]:
    """Yield each sample, and whether no other sample of its source was in flight when it arrived."""
    last_s = defaultdict[str, float](lambda: -inf)
    for sample in sorted(samples, key=lambda sample: sample.created_s):
        yield sample, last_s[sample.source] <= sample.created_s
        last_s[sample.source] = max(last_s[sample.source], sample.finished_s)


def _order(step: BlockRecord | TransferRecord) -> tuple[int, bool, float]:
    """Return the sort key of a sample's steps: a cut is transferred before the block after it runs."""
    if isinstance(step, BlockRecord):
        return step.block, True, step.start_s
    return step.cut, False, step.start_s


def with_in_situ_costs(instance: Instance, costs: InSituCosts) -> Instance:
    """Return an instance with in-situ costs.

    Blocks that a worker did not run are slowed down by the same factor as those that it ran. A resource that carried
    very different sizes gets a bandwidth and a latency; if all sizes were similar, it keeps its latency.
    """
    slowness = costs.slowness(instance)
    classes = {worker: _class_of(instance, worker) for worker in slowness}
    profiles = {
        model: by_class
        | {classes[worker]: _profile_at(instance, model, worker, costs, slowness[worker]) for worker in slowness}
        for model, by_class in instance.profiles.items()
    }
    at_own_speed = {name: {"device_class": device_class, "speed": 1.0} for name, device_class in classes.items()}
    paths = {
        sender: {
            receiver: NetworkPath(hops=tuple(_hop_at(hop, costs) for hop in path.hops))
            for receiver, path in by_receiver.items()
        }
        for sender, by_receiver in instance.paths.items()
    }
    return instance.with_workers(at_own_speed).model_copy(update={"profiles": profiles, "paths": paths})


def _class_of(instance: Instance, worker: str) -> str:
    return f"{instance.worker(worker).device_class} as {worker}"


def _profile_at(instance: Instance, model: str, worker: str, costs: InSituCosts, slowness: float) -> Profile:
    """Return a profile by what was measured; blocks that are joined are slower by the same factor, and so their saving.

    One that ran in several sessions has the mean of their factors.
    """
    profile, block_s = instance.profile(model, worker), instance.block_s(model, worker).tolist()
    found: list[dict[str, list[float]]] = [defaultdict(list) for _ in profile.blocks]
    for (name, first, last), kinds in costs.means_s(instance, worker).items():
        for kind, (measured, expected) in kinds.items():
            for index in range(first, last + 1) if name == model else ():
                found[index][kind].append(measured / expected)
    kinds_of = [{kind: float(np.mean(each)) for kind, each in kinds.items()} for kinds in found]
    factors = [float(np.mean(list(kinds.values()))) if kinds else slowness for kinds in kinds_of]
    relative = float(np.mean(instance.block_s(model, worker) / [block.mean_s for block in profile.blocks]))

    def cost_at(index: int, block: BlockCost) -> BlockCost:
        mean_s = block_s[index] * factors[index]
        return block.model_copy(update={"mean_s": mean_s, "std_s": block.std_s * mean_s / block.mean_s})

    # The overhead of a stage is part of the in-situ time of its first block, and so is what co-located workers cost.
    return profile.model_copy(
        update={
            "blocks": tuple(cost_at(index, block) for index, block in enumerate(profile.blocks)),
            "stage_overhead_s": 0.0,
            "fusion_saving_s": tuple(
                saving_s * block_s[index] / profile.blocks[index].mean_s * factors[index]
                for index, saving_s in enumerate(profile.fusion_saving_s, start=1)
            ),
            "sequences": None
            if profile.sequences is None
            else profile.sequences.scaled(
                [relative * kinds.get("prompt", factor) for kinds, factor in zip(kinds_of, factors, strict=True)],
                [relative * kinds.get("step", factor) for kinds, factor in zip(kinds_of, factors, strict=True)],
            ),
            "interval": None,
            "colocation": None,
            "device_class": _class_of(instance, worker),
        }
    )


def _hop_at(hop: Hop, costs: InSituCosts) -> Hop:
    transfers = costs.transfers.get(hop.resource)
    if not transfers:
        return hop
    sizes, times_s = np.array(transfers, float).T
    bytes_per_s, latency_s = hop.bytes_per_s, hop.latency_s
    if sizes.max() > _APART * sizes.min():
        slope, at_zero_s = np.polyfit(sizes, times_s, 1)
        latency_s = max(at_zero_s, 0.0) if slope > 0 else inf
    if sizes.any() and (sending_s := times_s.sum() - latency_s * len(transfers)) > 0:
        bytes_per_s = sizes.sum() / sending_s
    else:  # the sizes do not determine the bandwidth
        latency_s = max(times_s.mean() - sizes.mean() / bytes_per_s, 0.0)
    return hop.model_copy(update={"bytes_per_s": float(bytes_per_s), "latency_s": float(latency_s)})
