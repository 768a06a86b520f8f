"""What is to be run on agents: a plan with all that they need for it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from planner.errors import ExecuteError, Fault
from planner.execution.wire.frames import Tensors
from planner.execution.wire.messages import DeployedModel, Transmit
from planner.plan.replan import LiveReplanner, StartReplanner, TakeAnswer
from planner.plan.types import PlanSpec
from planner.policy.candidate_routes import resident_blocks
from planner.policy.registry import needs_plan
from planner.runtime.input_pool import input_pool
from planner.scenario.instance import Instance
from planner.trace.records import TransferRecord

if TYPE_CHECKING:
    from planner.model.load import ChainModel

SLACK: Final = 1.1
"""How much longer than the scenario allows the blocks of a worker may take on the host that plays it."""

IN_FLIGHT: Final = 32
"""How many samples of a source are on their way at most where the scenario does not say: it bounds agents' memory."""


class Emulation(Protocol):
    """A network that is played on this host (:mod:`planner.execution.launch.emulated`)."""

    def start(
        self,
        start_unix_s: float,
        admit: Callable[[str, str, float], None],
        sink: Callable[[TransferRecord], None],
        on_failure: Callable[[Exception], None],
    ) -> None:
        """Begin; ``admit(to, transfer, at_s)`` tells an agent when a transfer is there, ``sink`` takes its records.

        ``on_failure`` is told, in any thread, what has ended it before :meth:`stop`.
        """
        ...

    def transmit(self, request: Transmit) -> None:
        """Carry a transfer, or raise :class:`ExecuteError` where there is no way for it; called in any thread."""
        ...

    def stop(self) -> None:
        """End."""
        ...


@dataclass(frozen=True)
class Deployment:
    """What is to be run.

    Parameters
    ----------
    blocks
        The block models, serialised, by content hash.
    resident
        For each worker and model, the blocks to be loaded before the start.
    paced
        Whether blocks take the scenario's times, on hosts that are faster; otherwise they take their own.
    emulation
        Plays the scenario's network on this host; without it transfers take their own time.
    sent
        Inputs of sources that bring their own, which their samples take in turn; others draw theirs from the seed.
    live
        Whether samples are handed in while the run goes on, until :meth:`Coordinator.stop`, in place of the scenario's
        arrivals.
    replan
        Starts what solves the plan again when workers leave, come back or become slow; None where the plan stays.
    later
        Workers that need not be there at the start: they join the run when they come.
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
    live: bool = False
    replan: Callable[[TakeAnswer], LiveReplanner] | None = None
    later: frozenset[str] = frozenset()

    @property
    def samples(self) -> int:
        """How many samples all sources offer."""
        return sum(self.instance.samples(source) for source in self.instance.sources)

    def inputs(self, source: str) -> Sequence[Tensors]:
        """Give the inputs that the samples of a source take in turn, sent or drawn."""
        if source in self.sent:
            return self.sent[source]
        specs = self.models[self.instance.scenario.sources[source].models[0]].cuts[0]
        index, samples = self.instance.sources.index(source), self.instance.samples(source)
        return input_pool(specs, seed=self.seed, source_index=index, samples=samples)


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
    live: bool = False,
    later: Collection[str] = (),
    replan: StartReplanner | None = None,
) -> Deployment:
    """Cut the scenario's models into their blocks, and bound how many samples of a source are on their way.

    Parameters
    ----------
    models
        The scenario's models, loaded as their profiles say.
    replan
        Solves the plan again, where the policy follows one, when workers leave, come back or become slow; by default
        the plan stays, less the routes over those that left.
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
        live=live,
        replan=partial(replan, instance, plan) if replan and plan is not None and needs_plan(policy) else None,
        later=frozenset(later),
    )


def _bounded(instance: Instance) -> Instance:
    unbounded = [name for name, source in instance.scenario.sources.items() if not source.in_flight]
    return instance.with_sources({name: {"in_flight": IN_FLIGHT} for name in unbounded})


def check_host_speed(instance: Instance, warm_block_s: Mapping[str, Mapping[str, tuple[float, ...]]]) -> None:
    """Refuse to play workers that are faster than this host.

    Parameters
    ----------
    warm_block_s
        For each worker and model, the shortest time of each block on its host; 0 where it is not resident.

    Raises
    ------
    ExecuteError
        Names each worker, and the speed that can be played.
    """
    faults = []
    for worker, by_model in warm_block_s.items():
        for model, found_s in by_model.items():
            resident = [block for block, block_s in enumerate(found_s) if block_s > 0]
            wanted_s = float(instance.block_s(model, worker)[resident].sum())
            took_s = sum(found_s)
            if took_s > SLACK * wanted_s:
                faults.append(
                    Fault(
                        f"this host is too slow to play the worker: {model} takes {took_s * 1e3:.1f} ms here",
                        where=f"workers.{worker}.speed",
                        value=instance.worker(worker).speed,
                        expected=f"at most {instance.worker(worker).speed * wanted_s / took_s:.2g}",
                    )
                )
    if faults:
        raise ExecuteError(faults)
