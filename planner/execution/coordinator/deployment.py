"""A plan with everything that agents need to run it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from planner.errors import ExecuteError, Fault
from planner.execution.coordinator.warm_up import WarmUp
from planner.execution.wire.frames import Tensors
from planner.execution.wire.messages import DeployedModel, Transmit
from planner.model.tokens import vocabulary
from planner.plan.replan import LiveReplanner, StartReplanner, TakeAnswer
from planner.plan.types import PlanSpec
from planner.policy.candidate_routes import resident_blocks, resident_sessions
from planner.policy.registry import needs_plan
from planner.runtime.input_pool import input_pool, prompt_pool
from planner.scenario.instance import Instance
from planner.trace.records import TransferRecord

if TYPE_CHECKING:
    from planner.model.load import ChainModel

SLACK: Final = 1.1
"""Factor by which a worker's blocks may take longer on its host than in the scenario."""

IN_FLIGHT: Final = 32
"""Default maximum number of in-flight samples of a source, which bounds the agents' memory."""

HOME_TIMEOUT_S: Final = 30.0
"""Default time for which a source waits for its worker to come back."""


class Emulation(Protocol):
    """A network emulated on this host (:mod:`planner.execution.launch.emulated`)."""

    def start(
        self,
        start_unix_s: float,
        admit: Callable[[str, str, float], None],
        sink: Callable[[TransferRecord], None],
        on_failure: Callable[[Exception], None],
    ) -> None:
        """Start the emulation.

        Parameters
        ----------
        start_unix_s
            Wall-clock time at which the run's clock reads 0.
        admit
            ``admit(to, transfer, at_s)`` informs an agent when a transfer arrives.
        sink
            Receives the record of each transfer.
        on_failure
            Called in any thread with an error that ends the emulation before :meth:`stop`.
        """
        ...

    def transmit(self, request: Transmit) -> None:
        """Carry a transfer, or raise :class:`ExecuteError` if no path exists; may be called in any thread."""
        ...

    def stop(self) -> None:
        """Stop the emulation."""
        ...


@dataclass(frozen=True)
class Deployment:
    """A run: instance, plan, models and options.

    Parameters
    ----------
    blocks
        Serialised block models by content hash.
    resident
        Blocks of each model that each worker loads before the start.
    paced
        Whether faster hosts slow blocks down to the scenario's times.
    emulation
        Emulates the scenario's network on this host; without it, transfers use the real network.
    sent
        Inputs of sources that have their own, used in turn; inputs of other sources are drawn from the seed.
    own_prompts
        Prompts of sources of sequences that have their own, used in turn; prompts of others are drawn from the seed.
    live
        Whether samples are submitted during the run, until :meth:`Coordinator.stop`, instead of arriving as in the
        scenario.
    replan
        Starts the solver that adapts the plan when workers leave, come back or slow down; None to keep the plan.
    later
        Workers that may be absent at the start: they join the run when they connect.
    home_timeout_s
        Time in seconds for which a source waits for its worker, if that is absent.
    warm_up
        Computes what agents warm their blocks up with.
    """

    instance: Instance
    plan: PlanSpec | None
    policy: str
    seed: int
    models: Mapping[str, DeployedModel]
    blocks: Mapping[str, bytes]
    resident: Mapping[str, Mapping[str, tuple[int, ...]]]
    paced: bool = False
    emulation: Emulation | None = None
    sent: Mapping[str, Sequence[Tensors]] = field(default_factory=dict)
    own_prompts: Mapping[str, Sequence[Sequence[int]]] = field(default_factory=dict)
    live: bool = False
    replan: Callable[[TakeAnswer], LiveReplanner] | None = None
    later: frozenset[str] = frozenset()
    home_timeout_s: float = HOME_TIMEOUT_S
    warm_up: WarmUp = field(default_factory=WarmUp, compare=False)

    @property
    def samples(self) -> int:
        """Number of samples of all sources."""
        return sum(self.instance.samples(source) for source in self.instance.sources)

    def sessions(self, worker: str) -> Mapping[str, Sequence[tuple[int, int]]]:
        """Return the first and last block of each session that a worker loads before the start, by model."""
        resident = self.resident.get(worker, {})
        return resident_sessions(self.instance, self.policy, self.plan, worker, resident)

    def inputs(self, source: str) -> Sequence[Tensors]:
        """Return the inputs that the samples of a source use in turn, sent or drawn."""
        return self.sent[source] if source in self.sent else self._drawn(source, self.instance.samples(source))

    def prompts(self, source: str) -> Sequence[Sequence[int]]:
        """Return the prompts that the sequences of a source begin with in turn."""
        spec = self.instance.scenario.sources[source]
        if spec.decode is None:
            raise ValueError(f"{source} produces no sequences")
        if source in self.own_prompts:
            return self.own_prompts[source]
        cuts = self.models[spec.models[0]].cuts
        return prompt_pool(
            spec.decode.prompt,
            vocabulary(cuts[0], cuts[-1], source),
            seed=self.seed,
            source_index=self.instance.sources.index(source),
            samples=self.instance.samples(source),
        )

    def first_input(self, source: str) -> Tensors:
        """Return the first of :meth:`inputs`; in a live run an input that is drawn likewise."""
        return (self.sent[source] if source in self.sent else self._drawn(source, 1))[0]

    def _drawn(self, source: str, samples: int) -> Sequence[Tensors]:
        specs = self.models[self.instance.scenario.sources[source].models[0]].cuts[0]
        return input_pool(specs, seed=self.seed, source_index=self.instance.sources.index(source), samples=samples)


def deploy(
    instance: Instance,
    plan: PlanSpec | None,
    models: Mapping[str, ChainModel],
    *,
    policy: str,
    seed: int = 0,
    paced: bool = False,
    emulation: Emulation | None = None,
    sent: Mapping[str, Sequence[Tensors]] | None = None,
    own_prompts: Mapping[str, Sequence[Sequence[int]]] | None = None,
    live: bool = False,
    later: Collection[str] = (),
    home_timeout_s: float = HOME_TIMEOUT_S,
    replan: StartReplanner | None = None,
) -> Deployment:
    """Return a deployment: split the scenario's models into blocks, and bound the in-flight samples of each source.

    The other parameters are those of :class:`Deployment`.

    Parameters
    ----------
    models
        The scenario's models, loaded with the cuts of their profiles.
    replan
        Starts the solver that adapts the plan, if the policy follows one, when workers leave, come back or slow down.
        By default the plan stays, without the routes over absent workers.
    """
    files = {name: [model.block_model(index) for index in range(len(model.chain))] for name, model in models.items()}
    hashes = {name: tuple(hashlib.sha256(data).hexdigest() for data in blocks) for name, blocks in files.items()}
    return Deployment(
        instance=_bounded(instance),
        plan=plan,
        policy=policy,
        seed=seed,
        models={
            name: DeployedModel(
                cuts=tuple(cut.tensors for cut in model.chain.cuts),
                block_sha256=hashes[name],
                block_bytes=tuple(map(len, files[name])),
            )
            for name, model in models.items()
        },
        blocks={sha256: data for name in files for sha256, data in zip(hashes[name], files[name], strict=True)},
        resident=resident_blocks(instance, policy, plan),
        paced=paced,
        emulation=emulation,
        sent=sent or {},
        own_prompts=own_prompts or {},
        live=live,
        replan=partial(replan, instance, plan) if replan and plan is not None and needs_plan(policy) else None,
        later=frozenset(later),
        home_timeout_s=home_timeout_s,
    )


def _bounded(instance: Instance) -> Instance:
    unbounded = {name: source for name, source in instance.scenario.sources.items() if not source.in_flight}
    return instance.with_sources(
        {name: {"in_flight": IN_FLIGHT * source.max_batch} for name, source in unbounded.items()}
    )


def check_host_speed(instance: Instance, warm_block_s: Mapping[str, Mapping[str, tuple[float, ...]]]) -> None:
    """Refuse to emulate workers that are faster than their host.

    Parameters
    ----------
    warm_block_s
        Shortest time of each block on the worker's host, by worker and model; 0 for a block that is not resident.

    Raises
    ------
    ExecuteError
        If a host is too slow; names each such worker and the highest possible speed.
    """
    faults = []
    for worker, by_model in warm_block_s.items():
        for model, measured_s in by_model.items():
            resident = [block for block, block_s in enumerate(measured_s) if block_s > 0]
            allowed_s = float(instance.block_s(model, worker)[resident].sum())
            took_s = sum(measured_s)
            if took_s > SLACK * allowed_s:
                faults.append(
                    Fault(
                        f"this host is too slow to emulate the worker: {model} takes {took_s * 1e3:.1f} ms here",
                        where=f"workers.{worker}.speed",
                        value=instance.worker(worker).speed,
                        expected=f"at most {instance.worker(worker).speed * allowed_s / took_s:.2g}",
                    )
                )
    if faults:
        raise ExecuteError(faults)
