"""The agent: a process on a device that is one worker of the runs a coordinator deploys, one after the other.

Life of a run: ``deploy`` names the blocks by hash; what is not in the cache is asked for (``missing``) and comes as
``block_file``; then sessions are made and warmed (``ready``); ``start`` sets the clock; ``stop`` asks for outputs and
report. A run that fails is reported (``fault``) and dropped; the agent waits for the next one.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import Final, TypeAlias

import numpy as np

from planner.errors import ExecuteError, PlannerError
from planner.execute.admission import check_fits
from planner.execute.answers import Answers, about_host, resident_bytes
from planner.execute.cache import BlockCache
from planner.execute.compute import ComputeThread, ModelBlocks, Outcome
from planner.execute.driver import Driver
from planner.execute.inputs import input_pool
from planner.execute.inquiries import About, Ask, Chunk, Echo, Flood, Ping
from planner.execute.messages import (
    COORDINATOR,
    Admit,
    BlockFile,
    Data,
    Deploy,
    Fault,
    Frame,
    Input,
    Member,
    Missing,
    Output,
    Ready,
    Refused,
    Replan,
    Report,
    Start,
    Stop,
    Submit,
    Tensors,
    prepare,
)
from planner.execute.sender import SenderThread
from planner.execute.transport import CONTROL, IDLE_BYTES, LEVELS, Connect
from planner.policy.registry import make_policy
from planner.runtime.providers import Provider
from planner.trace.records import encode_records
from planner.worker.events import STEPS

_LOG = logging.getLogger(__name__)

_WARM_RUNS: Final = 3

_SILENT_S: Final = 3.0
"""A link over which nothing is acknowledged for so long counts as broken for as long again. The transport's own lease
does not end one that it is writing to: that waits until TCP gives up, a quarter of an hour."""

Action: TypeAlias = Callable[[], None]


@dataclass(slots=True)
class _Run:
    """What the agent holds of the run at hand."""

    deploy: Deploy
    models: dict[str, ModelBlocks] = field(default_factory=dict)
    inputs: dict[str, list[Tensors]] = field(default_factory=dict)
    compute: ComputeThread | None = None
    driver: Driver | None = None
    early: list[Action] = field(default_factory=list)
    """What came between ``ready`` and ``start``: another agent may have begun a moment before this one."""


def _fail(error: Exception) -> None:
    raise error


class Agent:
    """One agent; :meth:`serve` runs until :meth:`close` is called from another thread or a signal handler.

    The transport's threads only put actions into the inbox, which the thread of :meth:`serve` carries out. The compute
    thread takes the end of a block itself, and so goes on with the next one without waiting for another thread to wake,
    which would cost a small block a tenth of its time. A lock keeps the two apart.

    Parameters
    ----------
    provider
        Execution provider of the blocks: a name of :data:`planner.runtime.providers.PROVIDERS`.
    threads
        Threads a block runs with; by default as many as the deployment says.
    """

    def __init__(
        self,
        name: str,
        connect: Connect,
        cache: BlockCache,
        *,
        provider: str | Provider = "cpu",
        threads: int | None = None,
    ) -> None:
        self.name = name
        self._cache = cache
        self._provider = provider
        self._threads = threads
        self._inbox: queue.SimpleQueue[Action | None] = queue.SimpleQueue()
        self._lock = threading.RLock()
        self._run: _Run | None = None
        self._present: set[str] = set()
        self._silent: dict[str, float] = {}
        self._transport = connect(
            lambda frame: self._inbox.put(partial(self._on_frame, frame)),
            lambda member, present: self._inbox.put(partial(self._on_presence, member, present=present)),
        )
        self._sender = SenderThread(
            self._transport, lambda *transfer: self._inbox.put(partial(self._on_sent, *transfer))
        )
        self._answers = Answers(name, self._sender)

    def close(self) -> None:
        """Make :meth:`serve` return."""
        self._inbox.put(None)

    def serve(self) -> None:
        """Do what comes until :meth:`close`; then leave the network."""
        prepare()
        try:
            while (action := self._next_action()) is not None:
                with self._lock:
                    self._guard(action)
        finally:
            with self._lock:
                compute = self._run.compute if self._run is not None else None
                self._drop_run()
            if compute is not None:
                compute.join()
            self._sender.close()
            self._transport.close()

    def _next_action(self) -> Action | None:
        driver = self._run.driver if self._run is not None else None
        if driver is None:
            return self._inbox.get()
        wait_s = driver.next_due_s - driver.now_s
        if wait_s > 0:
            try:
                return self._inbox.get(timeout=min(wait_s, 3600.0))
            except queue.Empty:
                pass
        return self._tend

    def _tend(self) -> None:
        """Do what is due, and give up links for a while over which nothing is acknowledged."""
        run, now_s = self._run, time.monotonic()
        if run is None or run.driver is None:
            return
        for member in self._sender.silent(_SILENT_S).intersection(run.deploy.instance.workers):
            self._silent[member] = now_s + _SILENT_S
            self._sender.forget(member)
            run.driver.on_link(member, present=False)
        for member in [member for member, until_s in self._silent.items() if until_s <= now_s]:
            del self._silent[member]
            run.driver.on_link(member, present=member in self._present)
        run.driver.run_due()

    def _guard(self, action: Action) -> None:
        try:
            action()
        except PlannerError as error:
            _LOG.warning("%s: the run ends: %s", self.name, error)
            run = self._run.deploy.run if self._run is not None else None
            self._drop_run()
            self._tell(Frame(Fault(worker=self.name, what=str(error), run=run)))

    def _tell(self, frame: Frame, level: int = CONTROL) -> None:
        self._sender.send(COORDINATOR, frame, level)

    def _drop_run(self, limit_bytes: int = IDLE_BYTES) -> None:
        run, self._run = self._run, None
        self._transport.limit(limit_bytes)
        if run is not None and run.compute is not None:
            run.compute.close()

    # ---- what comes -----------------------------------------------------------------------------------------------

    def _on_frame(self, frame: Frame) -> None:
        body = frame.body
        if isinstance(body, Refused):
            self._tell(frame)
        elif why := self._unfit(frame):
            self._refuse(frame, why)
        elif isinstance(body, Ask | Ping | Echo | Flood | Chunk):
            self._on_inquiry(frame)
        else:
            self._on_run_frame(frame)

    def _on_inquiry(self, frame: Frame) -> None:
        if isinstance(frame.body, Ask):
            self._tell(Frame(self._about()))
        elif self._run is None:
            self._answers.take(frame)
        elif isinstance(frame.body, Ping | Flood):
            self._refuse(frame, "links are not measured while a run goes on")

    def _on_run_frame(self, frame: Frame) -> None:
        body = frame.body
        if isinstance(body, Data | Admit | Submit | Member | Replan):
            self._in_run(body.run, partial(self._on_transfer, body, frame.tensors))
        elif isinstance(body, Input):
            self._on_input(body, frame.tensors)
        elif isinstance(body, Deploy):
            self._on_deploy(body)
        elif isinstance(body, BlockFile):
            self._on_block_file(body, frame.tensors)
        elif isinstance(body, Start):
            self._on_start(body)
        elif isinstance(body, Stop):
            self._on_stop()
        else:
            self._refuse(frame, f"an agent does not take {body.kind!r}")

    def _about(self) -> About:
        run = self._run
        about = About(
            worker=self.name,
            provider=self._provider if isinstance(self._provider, str) else self._provider.name,
            memory_bytes=resident_bytes(),
            cached=len(self._cache),
            present=tuple(sorted(self._present)),
            **about_host(),
        )
        if run is None:
            return about
        queued, running = run.driver.load if run.driver is not None else (0, None)
        return about.model_copy(
            update={
                "run": run.deploy.run,
                "policy": run.deploy.policy,
                "device_class": run.deploy.instance.worker(self.name).device_class,
                "loaded": {name: blocks.loaded for name, blocks in run.models.items()},
                "queued": queued,
                "running": f"{running.source} {running.sample}" if running is not None else None,
            }
        )

    def _unfit(self, frame: Frame) -> str | None:
        """Say why data for the run at hand is not to be let in."""
        run = self._run
        if isinstance(frame.body, BlockFile):
            announced = run is not None and frame.body.sha256 in self._announced(run.deploy)
            return None if announced else f"a block model that was not announced: {frame.body.sha256}"
        if run is None or not isinstance(frame.body, Data | Submit | Input) or frame.body.run != run.deploy.run:
            return None  # late data of an earlier run; nothing will take it
        try:
            check_fits(run.deploy, frame)
        except ExecuteError as error:
            return str(error)
        return None

    def _refuse(self, frame: Frame, why: str) -> None:
        """Tell what was not taken; the run goes on."""
        _LOG.warning("%s: refused: %s", self.name, why)
        self._tell(Frame(Refused(worker=self.name, sender=frame.sender, what=why)))

    def _in_run(self, run: str, action: Action) -> None:
        if self._run is None or self._run.deploy.run != run:
            return
        if self._run.driver is None:
            self._run.early.append(action)
        else:
            action()

    def _driver(self) -> Driver:
        if self._run is None or self._run.driver is None:
            raise ExecuteError("no run has started", where=self.name)
        return self._run.driver

    def _on_transfer(self, body: Data | Admit | Submit | Member | Replan, tensors: Tensors) -> None:
        driver = self._driver()
        if isinstance(body, Data):
            driver.on_data(body, tensors)
        elif isinstance(body, Submit):
            driver.on_submit(body, tensors)
        elif isinstance(body, Member):
            driver.on_member(body)
        elif isinstance(body, Replan):
            driver.on_replan(body)
        else:
            driver.on_admit(body)

    def _take_outcome(self, run: _Run, outcome: Outcome) -> None:
        """Take the end of a block, in the compute thread."""
        with self._lock:
            due_s = run.driver.next_due_s if run.driver is not None else inf
            try:
                self._guard(partial(self._on_outcome, run, outcome))
            except Exception as error:  # noqa: BLE001 - whatever it is ends the agent, not this thread alone
                self._inbox.put(partial(_fail, error))
            if run.driver is not None and run.driver.next_due_s < due_s:
                self._inbox.put(run.driver.run_due)  # wakes the other thread, which waits for something later

    def _on_outcome(self, run: _Run, outcome: Outcome) -> None:
        if run is self._run and run.driver is not None:
            run.driver.on_outcome(outcome)

    def _on_presence(self, member: str, *, present: bool) -> None:
        (self._present.add if present else self._present.discard)(member)
        self._silent.pop(member, None)
        if not present:
            self._sender.forget(member)
        if self._run is None:
            return
        if member == COORDINATOR and not present:
            # Nobody waits for this run any more, and the next coordinator will deploy its own.
            _LOG.warning("%s: the run ends: its coordinator is gone", self.name)
            self._drop_run()
        elif member in self._run.deploy.instance.workers:
            self._in_run(self._run.deploy.run, partial(self._on_link, member, present=present))

    def _on_sent(self, to: str, size_bytes: int, took_s: float) -> None:
        if self._run is not None and self._run.driver is not None:
            self._run.driver.on_sent(to, size_bytes, took_s)

    def _on_link(self, member: str, *, present: bool) -> None:
        self._driver().on_link(member, present=present)

    # ---- the life of a run ----------------------------------------------------------------------------------------

    def _on_deploy(self, deploy: Deploy) -> None:
        self._drop_run(deploy.largest_bytes)
        self._run = _Run(deploy)
        if self.name not in deploy.instance.workers:
            raise ExecuteError("the deployed scenario has no such worker", where="deploy", value=self.name)
        if not deploy.emulated:  # else all of them share this host's loopback interface
            paths = deploy.instance.paths[self.name]
            self._sender.route({other: path.hops[0].resource for other, path in paths.items() if path.hops})
        self._prepare(self._run)

    def _on_block_file(self, body: BlockFile, tensors: Tensors) -> None:
        if self._run is None:
            return
        trouble = self._cache.add(body.sha256, tensors["file"].tobytes())
        if trouble is not None:
            _LOG.warning("%s: %s", self.name, trouble)
            self._tell(Frame(Fault(worker=self.name, what=trouble)))
        self._prepare(self._run)

    def _on_input(self, body: Input, tensors: Tensors) -> None:
        if self._run is not None and self._run.deploy.run == body.run:
            self._run.inputs.setdefault(body.source, []).append(tensors)

    @staticmethod
    def _announced(deploy: Deploy) -> dict[str, None]:
        return dict.fromkeys(sha256 for model in deploy.models.values() for sha256 in model.block_sha256)

    def _prepare(self, run: _Run) -> None:
        """Ask for a block that is missing, or make everything ready when none is."""
        missing = next((sha256 for sha256 in self._announced(run.deploy) if not self._cache.has(sha256)), None)
        if missing is not None:
            self._tell(Frame(Missing(worker=self.name, sha256=missing)))
            return
        deploy = run.deploy
        for name, model in deploy.models.items():
            cuts = tuple(tuple(tensor.name for tensor in cut) for cut in model.cuts)
            files = tuple(self._cache.block(sha256) for sha256 in model.block_sha256)
            exits = deploy.instance.any_profile(name).exits
            run.models[name] = ModelBlocks(
                cuts, files, exits, provider=self._provider, threads=self._threads or deploy.threads
            )
        for index, (source, spec) in enumerate(deploy.instance.scenario.sources.items()):
            if spec.worker == self.name and not deploy.live and source not in deploy.sent:
                specs = deploy.models[spec.models[0]].cuts[0]
                run.inputs[source] = list(input_pool(specs, seed=deploy.seed, source_index=index, samples=spec.samples))
        make_policy(deploy.policy, deploy.instance, deploy.plan)  # what cannot be made is told before the start
        warm = {model: self._warm(run, model) for model in deploy.models}
        run.compute = ComputeThread(run.models, partial(self._take_outcome, run))
        self._tell(Frame(Ready(worker=self.name, warm_block_s=warm)))

    def _warm(self, run: _Run, model: str) -> tuple[float, ...]:
        """Load the resident blocks and run each a few times; give the shortest times in seconds."""
        deployed, blocks = run.deploy.models[model], run.models[model]
        shortest = [0.0] * len(deployed.block_sha256)
        for block in run.deploy.resident.get(model, ()):
            tensors = input_pool(deployed.cuts[block], seed=0, source_index=0, samples=1)[0]
            times = []
            for _ in range(_WARM_RUNS):
                start_s = time.monotonic()
                blocks.run(block, tensors)
                times.append(time.monotonic() - start_s)
            shortest[block] = min(times)
        return tuple(shortest)

    def _on_start(self, body: Start) -> None:
        run = self._run
        if run is None or run.compute is None:
            raise ExecuteError("start came before the run was ready", where=self.name)
        start_s = time.monotonic() + (body.at_unix_s - time.time())
        run.driver = Driver(
            self.name, run.deploy, run.inputs, send=self._sender.send, compute=run.compute, start_s=start_s
        )
        run.driver.begin(body)
        early, run.early = run.early, []
        for action in early:
            action()

    def _on_stop(self) -> None:
        if self._run is None or self._run.driver is None:
            return
        driver = self._driver()
        for (source, sample), tensors in driver.outputs.items():
            self._tell(Frame(Output(source=source, sample=sample), tensors), LEVELS)
        report = Report(
            worker=self.name,
            duplicates=driver.duplicates,
            late_blocks=driver.late_blocks,
            waited_s=self._run.compute.waited_s if self._run.compute is not None else 0.0,
        )
        logs = {"records": encode_records(driver.records), "steps": STEPS.dump_json(driver.steps)}
        tensors = {name: np.frombuffer(data, np.uint8) for name, data in logs.items()}
        self._tell(Frame(report, tensors), LEVELS)
        self._drop_run()
