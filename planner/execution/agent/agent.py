"""The agent: a process on a device that is one worker of the runs a coordinator deploys, one after the other.

Life of a run: ``deploy`` names the blocks by hash; what is not in the cache is asked for (``missing``) and comes as
``block_file``; then sessions are made and warmed (``ready``); ``start`` sets the clock; ``stop`` asks for outputs and
report. A run that fails is reported (``fault``) and dropped; the agent waits for the next one.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Collection
from contextlib import ExitStack
from functools import partial
from typing import TypeAlias

from planner.errors import ExecuteError, PlannerError, explain
from planner.execution.agent.block_cache import BlockCache
from planner.execution.agent.driver import Driver
from planner.execution.agent.executor import BlockResult
from planner.execution.agent.link_probe import LinkProbe, about_host, resident_bytes
from planner.execution.agent.worker_run import WorkerRun
from planner.execution.wire.checks import Refusals, check_fits
from planner.execution.wire.diagnostics import About, Ask, Chunk, Echo, Flood, Ping
from planner.execution.wire.frames import Frame, prepare
from planner.execution.wire.lanes import Lanes
from planner.execution.wire.messages import (
    COORDINATOR,
    Admit,
    BlockFile,
    Data,
    Deploy,
    Input,
    MembershipChange,
    Refused,
    Replan,
    Start,
    Stop,
    Submit,
    WorkerFault,
)
from planner.execution.wire.transport import CONTROL, IDLE_BYTES, Connect
from planner.runtime.providers import Provider

_LOG = logging.getLogger(__name__)

Action: TypeAlias = Callable[[], None]


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
    processors
        On which blocks are computed; by default on any. All else an agent does stays free to run where there is room.
    """

    def __init__(
        self,
        name: str,
        connect: Connect,
        cache: BlockCache,
        *,
        provider: str | Provider = "cpu",
        threads: int | None = None,
        processors: Collection[int] = (),
    ) -> None:
        self.name = name
        self._cache = cache
        self._provider = provider
        self._threads = threads
        self._processors = processors
        self._inbox: queue.SimpleQueue[Action | None] = queue.SimpleQueue()
        self._lock = threading.RLock()
        self._part: WorkerRun | None = None
        self._broken: Exception | None = None
        self._present: set[str] = set()
        self._transport = connect(
            lambda frame: self._inbox.put(partial(self._on_frame, frame)),
            lambda member, present: self._inbox.put(partial(self._on_presence, member, present=present)),
        )
        self._sender = Lanes(
            self._transport,
            lambda *transfer: self._inbox.put(partial(self._on_sent, *transfer)),
            on_unsent=lambda error: self._inbox.put(partial(self._end_run, error)),
            on_failure=self._leave,
        )
        self._answers = LinkProbe(name, self._sender)
        self._refusals = Refusals(self._tell_refused)

    def close(self) -> None:
        """Make :meth:`serve` return."""
        self._inbox.put(None)

    def serve(self) -> None:
        """Do what comes until :meth:`close`; then leave the network.

        Raises
        ------
        ExecuteError
            It left by itself, for nothing can be sent any more.
        """
        prepare()
        _LOG.info("%s: started, and waits for a coordinator; an interrupt ends it", self.name)
        with ExitStack() as leaving:
            leaving.callback(self._transport.close)
            leaving.callback(self._sender.close)
            leaving.callback(self._finish)
            while (action := self._next_action()) is not None:
                with self._lock:
                    self._guard(action)
        _LOG.info("%s: left", self.name)
        if self._broken is not None:
            what = f"the agent left: it can send nothing any more: {explain(self._broken)}"
            raise ExecuteError(what, where=self.name) from self._broken

    def _leave(self, error: Exception) -> None:
        """Leave, since nothing can be sent any more; called in any thread."""
        self._broken = error
        self.close()

    def _finish(self) -> None:
        """End the run at hand; try once, past the lanes, to tell why this agent leaves where it does so by itself."""
        with self._lock:
            part = self._part
            self._drop_run()
        if part is not None:
            part.join()
        if self._broken is None:
            return
        what = f"the agent leaves: it can send nothing any more: {explain(self._broken)}"
        fault = WorkerFault(worker=self.name, what=what, run=part.deploy.run if part is not None else None)
        try:
            self._transport.send(COORDINATOR, Frame(fault), CONTROL)
        except Exception:  # noqa: BLE001 - it was to be expected
            _LOG.debug("%s: nor can it tell the coordinator", self.name, exc_info=True)

    def _next_action(self) -> Action | None:
        part = self._part  # the compute thread may drop it meanwhile
        driver = part.driver if part is not None else None
        if driver is None:
            return self._inbox.get()
        wait_s = driver.next_due_s - driver.now_s
        if wait_s > 0:
            try:
                return self._inbox.get(timeout=min(wait_s, 3600.0))
            except queue.Empty:
                pass
        return partial(self._run_due, driver)

    def _run_due(self, driver: Driver) -> None:
        if self._part is not None and self._part.driver is driver:
            driver.run_due()

    def _guard(self, action: Action) -> None:
        """Do something; whatever it raises ends the run, which the coordinator learns, and not the agent."""
        try:
            action()
        except PlannerError as error:
            _LOG.warning("%s: cannot go on with the run", self.name, exc_info=True)
            self._fail(explain(error))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told, and no thread dies of it
            _LOG.exception("%s: cannot go on with the run", self.name)
            self._fail(f"the agent fails: {explain(error)}")

    def _end_run(self, error: Exception, part: WorkerRun | None = None) -> None:
        """End the run at hand, if it is the one of ``part``, by what a thread has come upon."""
        if part is None or part is self._part:
            raise error

    def _fail(self, what: str) -> None:
        run = self._part.deploy.run if self._part is not None else None
        self._drop_run()
        self._tell(Frame(WorkerFault(worker=self.name, what=what, run=run)))

    def _tell(self, frame: Frame, level: int = CONTROL) -> None:
        self._sender.send(COORDINATOR, frame, level)

    def _drop_run(self, limit_bytes: int = IDLE_BYTES) -> None:
        part, self._part = self._part, None
        self._transport.limit(limit_bytes)
        if part is not None:
            part.close()

    # ---- what comes -----------------------------------------------------------------------------------------------

    def _on_frame(self, frame: Frame) -> None:
        body = frame.body
        if isinstance(body, Refused):  # by the transport
            self._refusals.add(body.sender, body.what)
        elif why := self._unfit(frame):
            self._refusals.add(frame.sender, why)
        elif isinstance(body, Ask | Ping | Echo | Flood | Chunk):
            self._on_inquiry(frame)
        elif isinstance(body, Data | Admit | Submit | MembershipChange | Replan):
            if self._part is not None and self._part.deploy.run == body.run:
                self._part.take(frame)
        else:
            self._on_run_frame(frame)

    def _on_inquiry(self, frame: Frame) -> None:
        if isinstance(frame.body, Ask):
            self._tell(Frame(self._about()))
        elif self._part is None or isinstance(frame.body, Echo):
            self._answers.take(frame)
        elif isinstance(frame.body, Ping | Flood):
            self._refusals.add(frame.sender, "links are not measured while a run goes on")

    def _on_run_frame(self, frame: Frame) -> None:
        body, part = frame.body, self._part
        if isinstance(body, Deploy):
            self._on_deploy(body)
        elif isinstance(body, Start):
            self._on_start(body)
        elif isinstance(body, BlockFile | Input | Stop):
            if part is not None:
                self._on_own_frame(part, frame)
        else:
            self._refusals.add(frame.sender, f"an agent does not take {body.kind!r}")

    def _on_own_frame(self, part: WorkerRun, frame: Frame) -> None:
        body = frame.body
        if isinstance(body, BlockFile):
            part.take_block(body, frame.tensors)
        elif isinstance(body, Input) and body.run == part.deploy.run:
            part.take_input(body, frame.tensors)
        elif isinstance(body, Stop) and part.driver is not None:
            part.report()
            _LOG.info("%s: run %s has ended", self.name, part.deploy.run)
            self._drop_run()

    def _on_deploy(self, deploy: Deploy) -> None:
        _LOG.info("%s: run %s is deployed, by policy %s", self.name, deploy.run, deploy.policy)
        self._drop_run(deploy.largest_bytes)
        self._part = part = WorkerRun(
            self.name, deploy, self._cache, provider=self._provider, threads=self._threads,
            processors=self._processors, sender=self._sender,
            on_outcome=lambda outcome: self._take_outcome(part, outcome),
            on_failure=lambda error: self._inbox.put(partial(self._end_run, error, part)),
        )  # fmt: skip
        if not deploy.emulated:  # else all of them share this host's loopback interface
            paths = deploy.instance.paths[self.name]
            self._sender.route({other: path.hops[0].resource for other, path in paths.items() if path.hops})
        part.prepare()

    def _on_start(self, body: Start) -> None:
        if self._part is None:
            raise ExecuteError("start came before the run was ready", where=self.name)
        self._part.start(body)

    def _about(self) -> About:
        part = self._part
        about = About(
            worker=self.name,
            provider=self._provider if isinstance(self._provider, str) else self._provider.name,
            memory_bytes=resident_bytes(),
            cached=len(self._cache),
            present=tuple(sorted(self._present)),
            **about_host(),
        )
        if part is None:
            return about
        queued, running = part.driver.load if part.driver is not None else (0, None)
        return about.model_copy(
            update={
                "run": part.deploy.run,
                "policy": part.deploy.policy,
                "device_class": part.deploy.instance.worker(self.name).device_class,
                "loaded": {name: blocks.loaded for name, blocks in part.models.items()},
                "queued": queued,
                "running": f"{running.source} {running.sample}" if running is not None else None,
            }
        )

    def _unfit(self, frame: Frame) -> str | None:
        """Say why data for the run at hand is not to be let in."""
        part, body = self._part, frame.body
        if isinstance(body, BlockFile):
            announced = part is not None and part.announces(body.sha256)
            return None if announced else f"a block model that was not announced: {body.sha256}"
        if part is None or not isinstance(body, Data | Submit | Input) or body.run != part.deploy.run:
            return None  # late data of an earlier run; nothing will take it
        try:
            check_fits(part.deploy, frame)
        except ExecuteError as error:
            return str(error)
        return None

    def _tell_refused(self, sender: str, what: str) -> None:
        _LOG.warning("%s: refused: %s", self.name, what)
        self._tell(Frame(Refused(worker=self.name, sender=sender, what=what)))

    def _take_outcome(self, part: WorkerRun, outcome: BlockResult) -> None:
        """Take the end of a block, in the compute thread."""
        with self._lock:
            driver = part.driver
            if part is not self._part or driver is None:
                return
            due_s = driver.next_due_s
            self._guard(partial(driver.on_outcome, outcome))
            if driver.next_due_s < due_s:
                # Wakes the other thread, which waits for something later.
                self._inbox.put(partial(self._run_due, driver))

    def _on_presence(self, member: str, *, present: bool) -> None:
        if present != (member in self._present):
            who = "the coordinator" if member == COORDINATOR else member
            _LOG.info("%s: %s %s", self.name, who, "is there" if present else "is gone")
        (self._present.add if present else self._present.discard)(member)
        if not present:
            self._sender.forget(member)
        if self._part is None:
            return
        if member == COORDINATOR and not present:
            # Nobody waits for this run any more, and the next coordinator will deploy its own.
            _LOG.warning("%s: the run ends: its coordinator is gone", self.name)
            self._drop_run()
        elif member in self._part.deploy.instance.workers:
            self._part.drive(lambda driver: driver.on_link(member, present=present))

    def _on_sent(self, to: str, size_bytes: int, took_s: float) -> None:
        if self._part is not None and self._part.driver is not None:
            self._part.driver.on_sent(to, size_bytes, took_s)
