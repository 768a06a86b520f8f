"""One worker's part in one run: everything an agent knows of it.

The life cycle:

1. *Deployed*. Tensors for the warm-up arrive as ``warm_up``. Then blocks that are not in the cache are requested
   (``missing``) one after the other; each arrives as ``block_file``. Inputs that the coordinator provides arrive as
   ``input``.
2. *Prepared*. With all blocks there, the sessions are created and warmed up in a thread (``ready``), while another run
   of the agent may go on.
3. *Running*. ``start`` sets the clock. Other workers may have started a moment earlier: what they sent before waits
   until then.
4. *Over*. ``stop`` asks for the outputs and the report; before the start it drops the run.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterable
from functools import partial
from math import inf
from typing import Any, Final

from planner.errors import ExecuteError, PlannerError
from planner.execution.agent.block_cache import BlockCache
from planner.execution.agent.block_loader import BlockLoader
from planner.execution.agent.driver import Driver
from planner.execution.agent.executor import BlockResult, Executor
from planner.execution.agent.model_blocks import ModelBlocks
from planner.execution.agent.warm_up import WarmUp
from planner.execution.agent.workbench import Workbench
from planner.execution.wire.checks import Refusals, check_fits
from planner.execution.wire.dispatch import Dispatch
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
    Ready,
    Replan,
    RunMessage,
    Start,
    Stop,
    Submit,
    WarmUpInput,
    WorkerFault,
)
from planner.execution.wire.threads import start_thread
from planner.execution.wire.transport import CONTROL
from planner.policy.candidate_routes import resident_sessions
from planner.runtime.input_pool import input_pool
from planner.runtime.providers import Provider

_LOG = logging.getLogger(__name__)

_WARM_RUNS: Final = 3


class WorkerRun:
    """One worker of one run, from its deployment on; the agent calls it in one thread at a time.

    Parameters
    ----------
    provider, threads, processors
        As for :class:`~planner.execution.agent.agent.Agent`.
    coordinator
        Address of the coordinator that deployed the run: what is meant for the coordinator goes there.
    share
        That coordinator's share of the agent's time.
    workbench
        Shared by the runs of the agent.
    on_block_end
        ``on_block_end(run, result)``: called in the executor's thread; to be passed on to :meth:`on_block_end`.
    on_failure
        ``on_failure(run, error)``: called in a thread of the run that has ended by an exception.
    leaving
        Tells whether the agent is to leave, which ends the preparation after the block at hand.
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
        coordinator: str,
        share: float,
        lanes: Lanes,
        refusals: Refusals,
        workbench: Workbench,
        on_block_end: Callable[[WorkerRun, BlockResult], None],
        on_failure: Callable[[WorkerRun, Exception], None],
        leaving: Callable[[], bool],
    ) -> None:
        self.id = deploy.run
        self.over = False
        """Whether the run has ended and been reported."""
        self._name = name
        self._deploy = deploy
        self._cache = cache
        self._provider = provider
        self._threads = threads
        self._processors = processors
        self.coordinator = coordinator
        self._share = share
        self._lanes = lanes
        self._refusals = refusals
        self._workbench = workbench
        self._on_block_end = partial(on_block_end, self)
        self._on_failure = partial(on_failure, self)
        self._leaving = leaving
        self._closed = False
        self._announced = dict.fromkeys(sha256 for model in deploy.models.values() for sha256 in model.block_sha256)
        self._sessions = resident_sessions(deploy.instance, deploy.policy, deploy.plan, name, deploy.resident)
        self._unchecked = list(reversed(self._announced))
        """Blocks whose files in the cache remain to be checked, the next one last."""
        self._inputs: dict[str, list[Tensors]] = {}
        self._awaited = frozenset(deploy.warm_up)
        self._warm_up_inputs: dict[tuple[str, int], Tensors] = {}
        self._models: dict[str, ModelBlocks] = {}
        self._executor: Executor | None = None
        self._loader: BlockLoader | None = None
        self._driver: Driver | None = None
        """Present once all blocks are there."""
        self._preparing: threading.Thread | None = None
        self._early: list[Callable[[], None]] = []
        """What arrived before the start and is handled right after it."""

    def _send(self, to: str, frame: Frame, level: int) -> None:
        self._lanes.send(self.coordinator if to == COORDINATOR else to, frame, level)

    def _report(self, frame: Frame) -> None:
        self._send(COORDINATOR, frame, CONTROL)

    def _report_problem(self, what: str) -> None:
        """Report a problem that does not end the run."""
        self._report(Frame(WorkerFault(worker=self._name, what=what, run=self.id)))

    @property
    def unfinished(self) -> int:
        """Number of samples of this worker's sources that have not ended."""
        return self._driver.unfinished if self._driver is not None else 0

    @property
    def largest_bytes(self) -> int:
        """Size of the largest message that the run needs, in bytes."""
        return self._deploy.largest_bytes

    @property
    def announced(self) -> Iterable[str]:
        """Hashes of the block models of the run."""
        return self._announced

    def describe(self) -> dict[str, Any]:
        """Return the fields of :class:`~planner.execution.wire.diagnostics.About` that describe the run."""
        running = self._driver.running if self._driver is not None else None
        return {
            "run": self.id,
            "policy": self._deploy.policy,
            "device_class": self._deploy.instance.worker(self._name).device_class,
            "loaded": {name: blocks.loaded for name, blocks in self._models.items()},
            "queued": self._driver.queued if self._driver is not None else 0,
            "running": f"{running.source} {running.sample}" if running is not None else None,
        }

    # ---- preparation ------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Await the inputs of the warm-up; then request a block model that is missing; when none is, load the blocks.

        Raises
        ------
        PlannerError
            The scenario has no such worker, or the policy cannot be created.
        """
        deploy, instance = self._deploy, self._deploy.instance
        if self._name not in instance.workers:
            raise ExecuteError("the deployed scenario has no such worker", where="deploy", value=self._name)
        if not self._awaited <= self._warm_up_inputs.keys():
            return
        while self._unchecked:
            if not self._cache.has(self._unchecked[-1]):
                self._report(Frame(Missing(run=self.id, worker=self._name, sha256=self._unchecked[-1])))
                return
            self._unchecked.pop()
        if not deploy.emulated:  # in an emulated network all transfers share this host's loopback interface
            paths = instance.paths[self._name]
            self._lanes.route({other: path.hops[0].resource for other, path in paths.items() if path.hops})
        self._open_models()
        self._draw_inputs()
        turn = self._workbench.turns.turn(self.coordinator, self._share)
        self._executor = Executor(self._models, self._on_block_end, self._on_failure, self._processors, turn)
        warm_up = WarmUp(self._models, self._warm_up_inputs, self._report_problem, self._is_stopping)
        self._warm_up_inputs.clear()
        self._loader = BlockLoader(
            self._name,
            deploy,
            self._models,
            warm_up,
            on_problem=self._report_problem,
            on_failure=self._on_failure,
        )
        self._driver = Driver(
            self._name,
            deploy,
            self._inputs,
            send=self._send,
            executor=self._executor,
            follow=self._loader.follow,
            links=self._workbench.links.describe,
            refuse=self._refusals.add,
            models=self._models,
            routes=self._workbench.routes,
        )
        self._preparing = start_thread("prepare", partial(self._load, warm_up), self._on_failure, awaited_at_exit=True)

    def _load(self, warm_up: WarmUp) -> None:
        """Load the blocks and report readiness, in a thread of its own."""
        try:
            warm_block_s = {model: self._warm_up(warm_up, model) for model in self._deploy.models}
        except PlannerError as error:  # of the input, and reported: nothing to log
            self._on_failure(error)
            return
        if self._is_stopping():
            return
        _LOG.info("%s: ready for run %s", self._name, self.id)
        provider = self._provider if isinstance(self._provider, str) else self._provider.name
        self._report(Frame(Ready(run=self.id, worker=self._name, warm_block_s=warm_block_s, provider=provider)))

    def _is_stopping(self) -> bool:
        return self._closed or self._leaving()

    def _open_models(self) -> None:
        for name, model in self._deploy.models.items():
            cuts = tuple(tuple(tensor.name for tensor in cut) for cut in model.cuts)
            exits = self._deploy.instance.any_profile(name).exits
            threads = self._threads or self._deploy.threads
            self._models[name] = self._workbench.blocks(
                (cuts, model.block_sha256, tuple((each.name, each.cut) for each in exits), threads),
                partial(
                    ModelBlocks,
                    cuts,
                    tuple(self._cache.block(sha256) for sha256 in model.block_sha256),
                    exits,
                    provider=self._provider,
                    threads=threads,
                    processors=self._processors,
                ),
            )

    def _draw_inputs(self) -> None:
        """Draw the inputs of this worker's sources from the seed, except those that the coordinator provides."""
        deploy = self._deploy
        for index, (source, spec) in enumerate(deploy.instance.scenario.sources.items()):
            if spec.worker == self._name and not deploy.live and source not in deploy.sent:
                specs = deploy.models[spec.models[0]].cuts[0]
                pool = input_pool(specs, seed=deploy.seed, source_index=index, samples=spec.samples)
                self._inputs[source] = list(pool)

    def _warm_up(self, warm_up: WarmUp, model: str) -> tuple[float, ...]:
        """Load the resident blocks and run each a few times; return the shortest times in seconds, 0 if not run.

        That of a session of several blocks is divided among them as profiled. A session that another run of the agent
        uses runs only once, for the blocks after it.
        """
        shortest_s = [0.0] * len(self._deploy.models[model].block_sha256)
        profiled_s = self._deploy.instance.block_s(model, self._name)
        for first, last in self._sessions.get(model, ()):
            used = self._deploy.beside and (first, last) in self._models[model].sessions
            time_s = warm_up.warm_up(model, first, 1 if used else _WARM_RUNS, last)
            inside = profiled_s[first : last + 1]
            shortest_s[first : last + 1] = (time_s * inside / inside.sum()).tolist()
        return tuple(shortest_s)

    # ---- inbound messages -------------------------------------------------------------------------------------------

    def handle(self, frame: Frame) -> None:
        """Handle a message of the run; one that does not fit the deployment is refused.

        Raises
        ------
        PlannerError
            The run cannot go on.
        """
        try:
            check_fits(self._deploy, frame)
        except ExecuteError as error:
            self._refusals.add(frame.sender, str(error))
        else:
            self._HANDLERS.handle(self, frame)

    def _on_block_file(self, body: BlockFile, frame: Frame) -> None:
        if body.sha256 not in self._announced:
            self._refusals.add(frame.sender, f"a block model that was not announced: {body.sha256}")
            return
        problem = self._cache.add(body.sha256, frame.tensors["file"].tobytes())
        if problem is not None:
            _LOG.warning("%s: %s", self._name, problem)
            self._report_problem(problem)
        if self._unchecked and self._unchecked[-1] == body.sha256:
            self._unchecked.pop()
        if self._driver is None:
            self.prepare()

    def _on_input(self, body: Input, frame: Frame) -> None:
        self._inputs.setdefault(body.source, []).append(frame.tensors)

    def _on_warm_up_input(self, body: WarmUpInput, frame: Frame) -> None:
        if (body.model, body.cut) in self._awaited and self._driver is None:
            self._warm_up_inputs[body.model, body.cut] = frame.tensors
            self.prepare()

    def _on_start(self, body: Start, frame: Frame) -> None:
        if self._driver is None:
            raise ExecuteError("start arrived before the run was ready", where=self._name)
        if self._driver.started:
            self._refusals.add(frame.sender, "start of a run that has started")
            return
        _LOG.info("%s: run %s starts", self._name, self.id)
        self._driver.start(body)
        early, self._early = self._early, []
        for handle in early:
            handle()

    def _on_stop(self, _stop: Stop, _frame: Frame) -> None:
        if self._driver is not None and self._driver.started:
            self._driver.report()
        self.over = True

    def _on_driver_message(self, _body: RunMessage, frame: Frame) -> None:
        if self._driver is not None and self._driver.started:
            self._driver.handle(frame)
        else:
            self._early.append(partial(self._HANDLERS.handle, self, frame))

    _HANDLERS = Dispatch["WorkerRun", None]({
        BlockFile: _on_block_file,
        Input: _on_input,
        WarmUpInput: _on_warm_up_input,
        Start: _on_start,
        Stop: _on_stop,
        **dict.fromkeys((Data, Submit, Admit, MembershipChange, Replan), _on_driver_message),
    })  # fmt: skip

    # ---- what happens on this device --------------------------------------------------------------------------------

    @property
    def wait_s(self) -> float:
        """Seconds until :meth:`run_due` has something to do; infinite before the start."""
        if self._driver is None or not self._driver.started:
            return inf
        return self._driver.next_due_s - self._driver.now_s

    def run_due(self) -> None:
        """Handle the events whose time has come."""
        if self._driver is not None and self._driver.started:
            self._driver.run_due()

    def on_block_end(self, result: BlockResult) -> None:
        """Handle the end of a block."""
        if self._driver is not None:
            self._driver.on_block_end(result)

    def on_link(self, member: str, *, present: bool) -> None:
        """Handle that the link to another member came up or broke."""
        if member not in self._deploy.instance.workers:
            return
        if self._driver is not None and self._driver.started:
            self._driver.on_link(member, present=present)
        else:
            self._early.append(partial(self.on_link, member, present=present))

    def on_transfer(self, to: str, size_bytes: int, took_s: float) -> None:
        """Handle the measured duration of a transfer to another member."""
        if self._driver is not None and self._driver.started:
            self._driver.on_transfer(to, size_bytes, took_s)

    # ---- end --------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End the threads after the block at hand."""
        self._closed = True
        for thread in (self._executor, self._loader):
            if thread is not None:
                thread.close()

    def join(self) -> None:
        """Wait until the threads have ended."""
        for thread in (self._preparing, self._executor, self._loader):
            if thread is not None:
                thread.join()
