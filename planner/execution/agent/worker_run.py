"""The part that an agent plays in one run: it gets ready, starts, and tells at the end what is left to tell."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from typing import Final

from planner.errors import ExecuteError
from planner.execution.agent.block_cache import BlockCache
from planner.execution.agent.block_loader import BlockLoader
from planner.execution.agent.driver import Driver
from planner.execution.agent.executor import BlockResult, Executor, ModelBlocks
from planner.execution.wire.frames import Frame, Tensors
from planner.execution.wire.lanes import Lanes
from planner.execution.wire.messages import (
    COORDINATOR,
    Admit,
    BlockFile,
    Data,
    Deploy,
    Input,
    MembershipChange,
    Missing,
    Output,
    Ready,
    Replan,
    Report,
    Start,
    Submit,
    WorkerFault,
)
from planner.execution.wire.transport import CONTROL, LEVELS
from planner.policy.registry import make_policy
from planner.runtime.input_pool import input_pool
from planner.runtime.providers import Provider

_LOG = logging.getLogger(__name__)

_WARM_RUNS: Final = 3


class WorkerRun:
    """One worker of one run, from its deployment on.

    Parameters
    ----------
    provider, threads, processors
        As for :class:`~planner.execution.agent.agent.Agent`.
    on_outcome
        Called in the compute thread at the end of each block.
    on_failure
        Called in a thread of the run that has failed, and ended.
    """

    def __init__(
        self,
        name: str,
        deploy: Deploy,
        cache: BlockCache,
        *,
        provider: str | Provider,
        threads: int | None,
        processors: Collection[int],
        sender: Lanes,
        on_outcome: Callable[[BlockResult], None],
        on_failure: Callable[[Exception], None],
    ) -> None:
        self.deploy = deploy
        self.driver: Driver | None = None
        """There from the start on."""
        self.models: dict[str, ModelBlocks] = {}
        self._name = name
        self._cache = cache
        self._provider = provider
        self._threads = threads
        self._processors = processors
        self._sender = sender
        self._on_outcome = on_outcome
        self._on_failure = on_failure
        self._inputs: dict[str, list[Tensors]] = {}
        self._compute: Executor | None = None
        self._residency: BlockLoader | None = None
        self._early: list[Callable[[Driver], None]] = []
        self._announced = dict.fromkeys(sha256 for model in deploy.models.values() for sha256 in model.block_sha256)

    def _tell(self, frame: Frame, level: int = CONTROL) -> None:
        self._sender.send(COORDINATOR, frame, level)

    def _tell_trouble(self, what: str) -> None:
        """Tell what is wrong here; the run goes on."""
        self._tell(Frame(WorkerFault(worker=self._name, what=what)))

    # ---- getting ready ----------------------------------------------------------------------------------------------

    def announces(self, sha256: str) -> bool:
        """Tell whether a block model belongs to the run."""
        return sha256 in self._announced

    def take_block(self, body: BlockFile, tensors: Tensors) -> None:
        """Take a block model that was asked for, and go on."""
        trouble = self._cache.add(body.sha256, tensors["file"].tobytes())
        if trouble is not None:
            _LOG.warning("%s: %s", self._name, trouble)
            self._tell_trouble(trouble)
        self.prepare()

    def take_input(self, body: Input, tensors: Tensors) -> None:
        """Take the next input of a source that brings its own."""
        self._inputs.setdefault(body.source, []).append(tensors)

    def prepare(self) -> None:
        """Ask for a block model that is missing, or make everything ready when none is.

        Raises
        ------
        PlannerError
            The scenario has no such worker, a block model cannot be loaded or fails, or the policy cannot be made.
        """
        if self._name not in self.deploy.instance.workers:
            raise ExecuteError("the deployed scenario has no such worker", where="deploy", value=self._name)
        missing = next((sha256 for sha256 in self._announced if not self._cache.has(sha256)), None)
        if missing is not None:
            self._tell(Frame(Missing(worker=self._name, sha256=missing)))
            return
        deploy = self.deploy
        for name, model in deploy.models.items():
            cuts = tuple(tuple(tensor.name for tensor in cut) for cut in model.cuts)
            files = tuple(self._cache.block(sha256) for sha256 in model.block_sha256)
            exits = deploy.instance.any_profile(name).exits
            threads = self._threads or deploy.threads
            self.models[name] = ModelBlocks(
                cuts, files, exits, provider=self._provider, threads=threads, processors=self._processors
            )
        self._draw_inputs()
        make_policy(deploy.policy, deploy.instance, deploy.plan)  # what cannot be made is told before the start
        warm = {model: self._warm(model) for model in deploy.models}
        self._compute = Executor(self.models, self._on_outcome, self._on_failure, self._processors)
        _LOG.info("%s: ready for run %s", self._name, deploy.run)
        self._tell(Frame(Ready(worker=self._name, warm_block_s=warm)))

    def _draw_inputs(self) -> None:
        deploy = self.deploy
        for index, (source, spec) in enumerate(deploy.instance.scenario.sources.items()):
            if spec.worker == self._name and not deploy.live and source not in deploy.sent:
                specs = deploy.models[spec.models[0]].cuts[0]
                pool = input_pool(specs, seed=deploy.seed, source_index=index, samples=spec.samples)
                self._inputs[source] = list(pool)

    def _warm(self, model: str) -> tuple[float, ...]:
        """Load the resident blocks and run each a few times; give the shortest times in seconds."""
        deployed, blocks = self.deploy.models[model], self.models[model]
        shortest = [0.0] * len(deployed.block_sha256)
        for block in self.deploy.resident.get(model, ()):
            tensors = input_pool(deployed.cuts[block], seed=0, source_index=0, samples=1)[0]
            times = []
            for _ in range(_WARM_RUNS):
                start_s = time.monotonic()
                blocks.run(block, tensors)
                times.append(time.monotonic() - start_s)
            shortest[block] = min(times)
        return tuple(shortest)

    # ---- the run ----------------------------------------------------------------------------------------------------

    def start(self, body: Start) -> None:
        """Begin, and do what came before: another agent may have begun a moment before this one.

        Raises
        ------
        ExecuteError
            It is not ready.
        """
        if self._compute is None:
            raise ExecuteError("start came before the run was ready", where=self._name)
        start_s = time.monotonic() + (body.at_unix_s - time.time())
        self.driver = Driver(
            self._name, self.deploy, self._inputs, send=self._sender.send, compute=self._compute, start_s=start_s
        )
        self._residency = BlockLoader(self._name, self.deploy, self.models, self._tell_trouble, self._on_failure)
        _LOG.info("%s: run %s begins", self._name, self.deploy.run)
        self.driver.begin(body)
        early, self._early = self._early, []
        for action in early:
            action(self.driver)

    def drive(self, action: Callable[[Driver], None]) -> None:
        """Have the driver do something, once it is there."""
        if self.driver is None:
            self._early.append(action)
        else:
            action(self.driver)

    def take(self, frame: Frame) -> None:
        """Take what is for the run that is on."""
        body, tensors = frame.body, frame.tensors
        if isinstance(body, Data):
            self.drive(lambda driver: driver.on_data(body, tensors))
        elif isinstance(body, Submit):
            self.drive(lambda driver: driver.on_submit(body, tensors))
        elif isinstance(body, Admit):
            self.drive(lambda driver: driver.on_admit(body))
        elif isinstance(body, MembershipChange):
            _LOG.info("%s: %s %s the run", self._name, body.worker, "joins" if body.present else "leaves")
            self.drive(lambda driver: driver.on_member(body))
        elif isinstance(body, Replan):
            self.drive(lambda driver: self._follow(driver, body))

    def _follow(self, driver: Driver, replan: Replan) -> None:
        _LOG.info("%s: another plan, by %s", self._name, replan.plan.method)
        if self._residency is not None:
            self._residency.follow(replan.plan)
        driver.on_replan(replan)

    def report(self) -> None:
        """Tell the outputs, and what there still is to tell."""
        if self.driver is None or self._compute is None:
            return
        self.driver.tell_log()
        journal = self.driver.journal
        for source, samples, tensors in journal.outputs():
            self._tell(Frame(Output(source=source, samples=tuple(samples)), tensors), LEVELS)
        report = Report(
            worker=self._name,
            duplicates=journal.duplicates,
            late_blocks=journal.late_blocks,
            waited_s=self._compute.waited_s,
        )
        self._tell(Frame(report), LEVELS)

    def close(self) -> None:
        """Let the threads end after the block at hand."""
        if self._compute is not None:
            self._compute.close()
        if self._residency is not None:
            self._residency.close()

    def join(self) -> None:
        """Wait until the threads have ended."""
        if self._compute is not None:
            self._compute.join()
        if self._residency is not None:
            self._residency.join()
