"""An instance: a scenario together with its profiles and network paths, everything known before a plan is made.

Solvers, evaluation, verification, the simulator, the policies and the agents all start from an :class:`Instance`.
It contains no file paths and is sent as JSON, so an agent needs neither the scenario file nor the libraries to read it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from planner.base import FrozenModel
from planner.profiling.recorded_predictions import RecordedPredictions
from planner.profiling.sequences import TOKEN_BYTES, Run
from planner.profiling.types import OperatingPoint, Profile
from planner.scenario.decode import DecodeSpec
from planner.scenario.phases import SAMPLE, Phase, block_memory, phases
from planner.scenario.types import PolicySpec, ScenarioSpec, WorkerSpec

MOST_SAVED: Final = 0.9
"""Part of a block's time that joining it to the block before saves at most, whatever was measured."""

_R = TypeVar("_R", bound=FrozenModel)
_V = TypeVar("_V")


class Hop(FrozenModel):
    """One transfer on the path between two workers.

    Parameters
    ----------
    resource
        The network resource that it occupies: the name of a shared medium, or ``network:sender>receiver`` for a link.
    """

    sender: str
    receiver: str
    resource: str
    bytes_per_s: float
    """Bandwidth for payload: that of the medium, halved if an access point relays."""
    latency_s: float


class NetworkPath(FrozenModel):
    """The hops from one worker to another, in order; empty from a worker to itself."""

    hops: tuple[Hop, ...] = ()

    def transfer_s(self, size_bytes: float) -> float:
        """Return the time in seconds to send ``size_bytes`` from end to end when nothing else is sent."""
        return sum(size_bytes / hop.bytes_per_s + hop.latency_s for hop in self.hops)

    def without_latency(self) -> NetworkPath:
        """Return the path with hops without latency."""
        return NetworkPath(hops=tuple(hop.model_copy(update={"latency_s": 0.0}) for hop in self.hops))


class Instance(FrozenModel):
    """A scenario, the profile of each (model, device class), and the path between each two workers.

    Build one with :func:`planner.scenario.load.load_instance`.

    Parameters
    ----------
    profiles
        By model name, then device class.
    paths
        By sender, then receiver; an entry is missing if there is no path.
    traces
        Arrival times in seconds of each source with ``arrivals: trace``.
    predictions
        Recorded predictions by source, then model, if known; sample k is entry k modulo their number.
    company
        By worker, the mean number of other workers on its host that compute while it does; none if not stated.
    full_batches
        Whether times are those of one sample in batches of the best size: see :meth:`in_full_batches`.
    """

    scenario: ScenarioSpec
    profiles: dict[str, dict[str, Profile]]
    paths: dict[str, dict[str, NetworkPath]]
    traces: dict[str, tuple[float, ...]] = {}
    predictions: dict[str, dict[str, RecordedPredictions]] = {}
    company: dict[str, float] = {}
    full_batches: bool = False

    @cached_property
    def workers(self) -> tuple[str, ...]:
        """Names of the workers, in the scenario's order."""
        return tuple(self.scenario.workers)

    @cached_property
    def sources(self) -> tuple[str, ...]:
        """Names of the sources, in the scenario's order."""
        return tuple(self.scenario.sources)

    @cached_property
    def resources(self) -> tuple[str, ...]:
        """Names of all network resources, in the scenario's order; the two directions of a link are adjacent."""
        names: list[str] = []
        for name, network in self.scenario.networks.items():
            if network.kind == "shared":
                names.append(name)
            for a, b in network.links:
                names += [f"{name}:{a}>{b}", f"{name}:{b}>{a}"]
        return tuple(names)

    def profile(self, model: str, worker: str) -> Profile:
        """Return the profile of ``model`` on the device class of ``worker``."""
        return self.profiles[model][self.scenario.workers[worker].device_class]

    def any_profile(self, model: str) -> Profile:
        """Return a profile of ``model`` for any device class, for values equal in all: cuts, exits, parameters.

        Times and memory differ from class to class; they come from :meth:`profile`.
        """
        return next(iter(self.profiles[model].values()))

    def length(self, model: str) -> int:
        """Return L, the number of blocks of ``model``."""
        return len(self.any_profile(model).blocks)

    @cached_property
    def phases(self) -> dict[str, tuple[Phase, ...]]:
        """Phases of the samples of each source."""
        return {name: phases(spec.decode) for name, spec in self.scenario.sources.items()}

    def run_s(self, model: str, worker: str, runs: Sequence[Run]) -> NDArray[np.float64]:
        """Return the mean time of each block in runs of a sequence on ``worker``; shape [n, L], seconds."""
        costs = self.profile(model, worker).sequences
        if costs is None:
            raise KeyError(f"the profile of {model} on {worker} knows no sequences")
        return np.asarray(costs.block_s(runs) * self._relative(model, worker))

    def block_s(self, model: str, worker: str, phase: Phase = SAMPLE, most: int | None = None) -> NDArray[np.float64]:
        """Return the mean time of each block in a run on ``worker`` at its speed; shape [L], seconds.

        Parameters
        ----------
        most
            For times in full batches, the largest batch, where it has a further limit.
        """
        if phase.runs:
            return np.asarray(self.run_s(model, worker, phase.runs).mean(axis=0))
        means = np.array([block.mean_s for block in self.profile(model, worker).blocks])
        return np.asarray(means * self._relative(model, worker, most))

    def block_std_s(
        self, model: str, worker: str, phase: Phase = SAMPLE, most: int | None = None
    ) -> NDArray[np.float64]:
        """Return the standard deviation of the time of each block in a run on ``worker``; shape [L], seconds."""
        blocks = self.profile(model, worker).blocks
        if phase.runs:
            times_s = self.run_s(model, worker, phase.runs)
            relative = np.array([block.std_s / block.mean_s for block in blocks])
            return np.asarray(np.sqrt(times_s.var(axis=0) + (relative**2 * times_s**2).mean(axis=0)))
        deviations = np.array([block.std_s for block in blocks])
        return np.asarray(deviations * self._relative(model, worker, most))

    def _relative(self, model: str, worker: str, most: int | None = None) -> NDArray[np.float64]:
        """Return the time of each block on ``worker`` at its speed and in its company, relative to the profile."""
        profile = self.profile(model, worker)
        slowdown = profile.slowdown(self.company.get(worker, 0.0))
        if self.full_batches and profile.batches is not None:
            slowdown = slowdown * profile.batches.least(self._full(model, worker, most))
        return slowdown / self.scenario.workers[worker].speed

    def _full(self, model: str, worker: str, most: int | None) -> int:
        largest = self.max_batch(model, worker)
        return largest if most is None else min(largest, most)

    def max_batch(self, model: str, worker: str | None = None) -> int:
        """Return the largest number of samples that run as one batch of ``model``, on ``worker`` if it is given.

        It is 1 where none do.
        """
        most = self._max_batch.get(model, 1)
        if worker is None or most == 1:
            return most
        known = self.profile(model, worker).batches is not None
        return min(most, self.scenario.workers[worker].max_batch or most) if known else 1

    def max_batch_wait_s(self, source: str, worker: str) -> float:
        """Return how long an idle ``worker`` waits for a larger batch of samples of ``source``, in seconds."""
        own_s = self.scenario.workers[worker].max_batch_wait_s
        return self.scenario.sources[source].max_batch_wait_s if own_s is None else own_s

    @cached_property
    def _max_batch(self) -> dict[str, int]:
        return {model: spec.max_batch for spec in self.scenario.sources.values() for model in spec.models}

    @cached_property
    def batches(self) -> bool:
        """Whether samples of any source may run as batches."""
        return max(self._max_batch.values()) > 1

    def batch_s(self, model: str, worker: str, first: int, last: int, size: float) -> float:
        """Return how much longer blocks ``first`` to ``last`` take for a batch than for one sample, in seconds."""
        costs = self.profile(model, worker).batches
        if costs is None or size == 1:
            return 0.0
        more = (costs.times(size) - 1)[first : last + 1]
        return float(more @ self.block_s(model, worker)[first : last + 1])

    def in_full_batches(self) -> Instance:
        """Return the instance in which blocks take the least time per sample that a batch can bring.

        No worker carries more samples than its time by these allows; those that run alone take longer.
        """
        return self._in_full_batches if self.batches else self

    @cached_property
    def _in_full_batches(self) -> Instance:
        return self.model_copy(update={"full_batches": True})

    @cached_property
    def colocated(self) -> dict[str, tuple[str, ...]]:
        """The other workers on the host of each worker that shares one with others and may be slowed down by them."""
        hosts: dict[str, list[str]] = {}
        for name, spec in self.scenario.workers.items():
            if spec.host is not None:
                hosts.setdefault(spec.host, []).append(name)
        return {
            name: tuple(other for other in together if other != name)
            for together in hosts.values()
            if len(together) > 1
            for name in together
            if any(self.profile(model, name).colocation is not None for model in self.profiles)
        }

    def saving_s(self, model: str, worker: str, most: int | None = None) -> NDArray[np.float64]:
        """Return how much less time each block takes on ``worker`` if one session runs it and the block before.

        Shape [L], seconds. It is 0 where the profile knows of no gain, behind an exit, which ends a session, and for
        models that keep state, whose blocks are not joined.
        """
        profile = self.profile(model, worker)
        savings = np.zeros(len(profile.blocks))
        if any(profile.fusion_saving_s) and profile.sequences is None:
            largest_s = [MOST_SAVED * block.mean_s for block in profile.blocks[1:]]
            savings[1:] = np.clip(profile.fusion_saving_s, 0.0, largest_s)
            savings[[exit_.cut for exit_ in profile.exits]] = 0.0
        return np.asarray(savings * self._relative(model, worker, most))

    @cached_property
    def joins(self) -> bool:
        """Whether joining any blocks to one session saves time on any worker."""
        return any(self.saving_s(model, worker).any() for model in self.profiles for worker in self.workers)

    def without_savings(self) -> Instance:
        """Return the instance in which each block has a session of its own, as if joining them saved nothing."""
        profiles = {
            model: {name: profile.model_copy(update={"fusion_saving_s": ()}) for name, profile in by_class.items()}
            for model, by_class in self.profiles.items()
        }
        return self.model_copy(update={"profiles": profiles})

    def sessions_s(
        self,
        model: str,
        worker: str,
        spans: Sequence[tuple[int, int]],
        phase: Phase = SAMPLE,
        most: int | None = None,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return mean and standard deviation of the time of sessions on ``worker``; shape [n] each, seconds.

        Parameters
        ----------
        spans
            First and last block of each session, both inclusive.
        most
            As for :meth:`block_s`.
        """
        block_s, std_s = self.block_s(model, worker, phase, most), self.block_std_s(model, worker, phase, most)
        saved_s = self.saving_s(model, worker, most)
        means = [block_s[first : last + 1].sum() - saved_s[first + 1 : last + 1].sum() for first, last in spans]
        return np.array(means), np.array([np.hypot.reduce(std_s[first : last + 1]) for first, last in spans])

    def stage_overhead_s(self, model: str, worker: str, most: int | None = None) -> float:
        """Return the time of each stage on ``worker`` in addition to its blocks, in seconds; for ``most`` see above."""
        samples = self._full(model, worker, most) if self.full_batches else 1
        return self.profile(model, worker).stage_overhead_s / samples / self.scenario.workers[worker].speed

    def cut_bytes(self, model: str) -> tuple[int, ...]:
        """Return the bytes across each cut; length L + 1."""
        return self.any_profile(model).cut_bytes

    def run_bytes(self, model: str, phase: Phase) -> tuple[float, ...]:
        """Return the mean bytes across each cut in a run of a phase; length L + 1."""
        costs = self.any_profile(model).sequences
        if phase.runs and costs is not None:
            *sizes, _ = costs.cut_bytes(phase.runs).mean(axis=0).tolist()
            return (*sizes, float(TOKEN_BYTES))
        return tuple(map(float, self.cut_bytes(model)))

    def largest_state_bytes(self, model: str) -> int:
        """Return the largest state of a sequence at a block of a model: at the model's limit, or as far as is known."""
        costs = self.any_profile(model).sequences
        if costs is None:
            return 0
        decoding = [spec.decode.context for spec in self.scenario.sources.values() if spec.decode is not None]
        context = costs.max_context or max(costs.measured_context, *decoding, 0)
        return max(block.state_bytes(context) for block in costs.blocks)

    def held_bytes(self, model: str, worker: str) -> tuple[int, ...]:
        """Return the memory that each block takes on ``worker`` while it resides there; length L.

        That is its weights, and room for the state of all sequences at a time of every source that uses the model.
        """
        return self._memory(model, worker)[0]

    def peak_bytes(self, model: str, worker: str) -> tuple[int, ...]:
        """Return the peak of the tensors alive while each block runs on ``worker``; length L."""
        return self._memory(model, worker)[1]

    def _memory(self, model: str, worker: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return what each block holds between runs and needs in one, in bytes; of largest batches."""
        key = model, self.scenario.workers[worker].device_class, self.max_batch(model, worker)
        if key not in self._known_memory:
            self._known_memory[key] = block_memory(self.profile(model, worker), self._decoding[model], key[2])
        return self._known_memory[key]

    @cached_property
    def _known_memory(self) -> dict[tuple[str, str, int], tuple[tuple[int, ...], tuple[int, ...]]]:
        return {}

    @cached_property
    def _decoding(self) -> dict[str, list[DecodeSpec]]:
        """How the sources of each model decode."""
        found: dict[str, list[DecodeSpec]] = {model: [] for model in self.profiles}
        for spec in self.scenario.sources.values():
            for model in spec.models:
                found[model] += [spec.decode] if spec.decode is not None else []
        return found

    def operating_points(self, model: str) -> tuple[OperatingPoint, ...]:
        """Return the operating points of ``model``; without any, one that reaches every block with accuracy 1."""
        points = self.any_profile(model).operating_points
        return points or (OperatingPoint(name="full", accuracy=1.0, reach=(1.0,) * self.length(model)),)

    @property
    def calibrated(self) -> bool:
        """Whether the accuracy of any model is known."""
        return any(self.any_profile(model).operating_points for model in self.profiles)

    @property
    def deadlines(self) -> dict[str, float | None]:
        """Deadline of a sample of each source, in seconds."""
        return {name: spec.deadline_s for name, spec in self.scenario.sources.items()}

    @cached_property
    def accuracies(self) -> dict[str, tuple[float, ...]]:
        """Accuracy of each operating point, by model."""
        return {model: tuple(point.accuracy for point in self.operating_points(model)) for model in self.profiles}

    @cached_property
    def max_utilisation(self) -> dict[str, float]:
        """Largest share of each worker's and network resource's time that a plan may use; 1 where it is not limited."""
        workers = {name: worker.max_utilisation for name, worker in self.scenario.workers.items()}
        return workers | dict.fromkeys(self.resources, 1.0)

    def worker(self, name: str) -> WorkerSpec:
        """Return the specification of a worker."""
        return self.scenario.workers[name]

    def home(self, source: str) -> str:
        """Return the worker at which the samples of ``source`` arrive and to which their results return."""
        return self.scenario.sources[source].worker

    def samples(self, source: str) -> int:
        """Return the number of samples of ``source``; a trace may hold fewer than the scenario specifies."""
        count = self.scenario.sources[source].samples
        return min(count, len(self.traces[source])) if source in self.traces else count

    def path(self, sender: str, receiver: str) -> NetworkPath | None:
        """Return the path between two workers, or None if there is none."""
        return NetworkPath() if sender == receiver else self.paths.get(sender, {}).get(receiver)

    @cached_property
    def provenance(self) -> str:
        """``estimated`` if any profile is estimated, otherwise ``measured``."""
        kinds = {profile.provenance for by_class in self.profiles.values() for profile in by_class.values()}
        return "estimated" if "estimated" in kinds else "measured"

    # ---- changed copies -------------------------------------------------------------------------------------------

    def in_order_of_names(self) -> Instance:
        """Return the instance with workers, sources, models and networks sorted by name, and the same ring.

        Methods break ties and take turns by order. On this copy the order in a file has no influence on a plan.
        """
        scenario = self.scenario
        sources = {name: {"models": tuple(sorted(spec.models))} for name, spec in scenario.sources.items()}
        networks = {
            name: {
                "members": tuple(sorted(spec.members)),
                "links": tuple(sorted((min(link), max(link)) for link in spec.links)),
            }
            for name, spec in scenario.networks.items()
        }
        return self.with_scenario(
            workers=dict(sorted(scenario.workers.items())),
            sources=dict(sorted(_changed(scenario.sources, sources).items())),
            networks=dict(sorted(_changed(scenario.networks, networks).items())),
            policy=scenario.policy.model_copy(update={"ring": scenario.policy.ring or self.workers}),
        )

    def with_scenario(self, **changes: Any) -> Instance:
        """Return the instance with fields of its scenario changed."""
        return self.model_copy(update={"scenario": self.scenario.model_copy(update=changes)})

    def with_objective(self, **changes: Any) -> Instance:
        """Return the instance with fields of its objective changed."""
        return self.with_scenario(objective=self.scenario.objective.model_copy(update=changes))

    def with_sources(self, changes: Mapping[str, Mapping[str, Any]]) -> Instance:
        """Return the instance with some sources changed; ``changes`` maps a source to its new field values."""
        return self.with_scenario(sources=_changed(self.scenario.sources, changes))

    def with_workers(self, changes: Mapping[str, Mapping[str, Any]]) -> Instance:
        """Return the instance with some workers changed; ``changes`` maps a worker to its new field values."""
        return self.with_scenario(workers=_changed(self.scenario.workers, changes))

    def with_samples(self, counts: Mapping[str, int]) -> Instance:
        """Return the instance with the number of samples of some sources changed; a trace may hold fewer."""
        return self.with_sources({source: {"samples": count} for source, count in counts.items()})

    def slowed(self, slowness: Mapping[str, float]) -> Instance:
        """Return the instance with some workers slower by a factor each."""
        return self.with_workers(
            {name: {"speed": self.worker(name).speed / factor} for name, factor in slowness.items()}
        )

    def on_hosts(self, host: str | None) -> Instance:
        """Return the instance with all workers on one host, or each on a host of its own."""
        return self.with_workers({name: {"host": host} for name in self.workers})

    def with_share(self, share: float | None) -> Instance:
        """Return the instance for a run that has a share of each worker's memory beside others; None for all of it.

        What a worker needs without any block is there once for all runs.
        """
        if share is None:
            return self
        memory = {name: (spec.base_memory_bytes, spec.memory_bytes) for name, spec in self.scenario.workers.items()}
        return self.with_workers(
            {name: {"memory_bytes": base + share * max(0.0, whole - base)} for name, (base, whole) in memory.items()}
        )

    def without_latency(self) -> Instance:
        """Return the instance with all networks at their bandwidths but without latency."""
        paths = {
            sender: {receiver: path.without_latency() for receiver, path in by_receiver.items()}
            for sender, by_receiver in self.paths.items()
        }
        networks = _changed(self.scenario.networks, {name: {"latency_s": 0.0} for name in self.scenario.networks})
        return self.with_scenario(networks=networks).model_copy(update={"paths": paths})

    def only_sources(self, names: Collection[str]) -> Instance:
        """Return the instance with only the named sources."""
        sources = _only(self.scenario.sources, names)
        kept = {"traces": _only(self.traces, names), "predictions": _only(self.predictions, names)}
        return self.with_scenario(sources=sources).model_copy(update=kept)

    def without_workers(self, absent: Collection[str]) -> Instance:
        """Return the instance without some workers, their sources, the paths through them, and all events."""
        present = [name for name in self.workers if name not in absent]
        networks = {name: network.among(present) for name, network in self.scenario.networks.items()}
        remaining = self.only_sources([name for name in self.sources if self.home(name) in present]).with_scenario(
            workers=_only(self.scenario.workers, present),
            networks={name: network for name, network in networks.items() if network.members or network.links},
            policy=PolicySpec(),  # its ring and neighbours name all workers
            events=(),
        )
        paths = {
            sender: {
                receiver: path
                for receiver, path in self.paths.get(sender, {}).items()
                if all(hop.receiver in present for hop in path.hops)
            }
            for sender in present
        }
        return remaining.model_copy(update={"paths": paths})


def _only(entries: Mapping[str, _V], names: Collection[str]) -> dict[str, _V]:
    return {name: entry for name, entry in entries.items() if name in names}


def _changed(entries: Mapping[str, _R], changes: Mapping[str, Mapping[str, Any]]) -> dict[str, _R]:
    if unknown := changes.keys() - entries.keys():
        raise KeyError(f"the scenario has no {', '.join(sorted(unknown))}")
    return {
        name: entry.model_copy(update=changes[name]) if name in changes else entry for name, entry in entries.items()
    }
