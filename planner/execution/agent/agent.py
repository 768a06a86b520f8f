"""The agent: a process on a device that acts as one worker in the runs that coordinators deploy.

The path of an inbound frame:

1. The transport's thread assembles and decodes it and checks who may send it (:mod:`planner.execution.wire.transport`),
   then puts it in the agent's inbox.
2. The agent's thread looks up its handler here: diagnostics are answered, ``claim`` decides which coordinators hold the
   agent (:mod:`planner.execution.agent.hold`), a ``deploy`` replaces the run of its coordinator, and the rest goes to
   the run that it names.
3. :meth:`WorkerRun.handle <planner.execution.agent.worker_run.WorkerRun.handle>` refuses content that does not fit the
   deployment, and keeps what arrives before ``start`` until then. It handles the messages of a run's life cycle; the
   rest goes to the driver.
4. :class:`~planner.execution.agent.driver.Driver` stores the tensors, steps the worker's state machine and carries out
   its effects: a block for the executor, a frame for the outbox, a report for the coordinator.

A run that fails is reported (``fault``) and dropped; the agent waits for the next one.

The agent has several runs where coordinators share it, and while a coordinator replaces its plan: the new one takes the
new samples, and the old one goes on until its samples have ended. Each run has a state machine, queues and tensors of
its own. They share the loaded blocks and the processor, one block at a time (:mod:`planner.execution.agent.turns`).
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Collection, Iterable
from contextlib import ExitStack
from functools import partial
from typing import TypeAlias, get_args

from planner.errors import ExecuteError, PlannerError, explain
from planner.execution.agent.block_cache import BlockCache
from planner.execution.agent.executor import BlockResult
from planner.execution.agent.hold import Holds
from planner.execution.agent.link_probe import LinkProbe, about_host, resident_bytes
from planner.execution.agent.runs import Runs
from planner.execution.agent.workbench import Workbench
from planner.execution.agent.worker_run import WorkerRun
from planner.execution.wire.checks import Refusals
from planner.execution.wire.diagnostics import About, Ask, Chunk, Echo, Flood, Ping
from planner.execution.wire.dispatch import Dispatch
from planner.execution.wire.frames import Frame, prepare
from planner.execution.wire.lanes import Lanes
from planner.execution.wire.messages import (
    COORDINATOR,
    BlockFile,
    Claim,
    Deploy,
    Refused,
    RunMessage,
    Submit,
    WorkerFault,
)
from planner.execution.wire.own_certificate import EndNotice
from planner.execution.wire.presence import whereabouts
from planner.execution.wire.transport import CONTROL, Connect
from planner.runtime.providers import Provider

_LOG = logging.getLogger(__name__)

_LONGEST_WAIT_S = 3600.0

_FAREWELL_S = 2.0
"""How long an agent that leaves tries to send what it has queued; receivers may have left, too."""

Action: TypeAlias = Callable[[], None]


class Agent:
    """One agent; :meth:`serve` runs until :meth:`close` is called from another thread or a signal handler.

    The transport's threads only put actions into the inbox; the thread of :meth:`serve` performs them. The executor's
    thread handles the end of a block itself, so that the next block starts without waiting for another thread to wake,
    which would cost a small block a tenth of its time. A lock keeps the two threads apart.

    Parameters
    ----------
    provider
        Execution provider of the blocks: a name of :data:`planner.runtime.providers.PROVIDERS`.
    threads
        Number of threads of a block; by default the number in the deployment.
    processors
        Processors that compute blocks; by default all. The agent's other threads are not restricted.
    certificate_ends_unix_s
        End of this agent's certificate, which it announces a month ahead; None without one.
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
        certificate_ends_unix_s: float | None = None,
    ) -> None:
        self.name = name
        self._certificate_ends_unix_s = certificate_ends_unix_s
        self._end_notice = EndNotice(name, certificate_ends_unix_s)
        self._cache = cache
        self._provider = provider
        self._threads = threads
        self._processors = processors
        self._inbox: queue.SimpleQueue[Action | None] = queue.SimpleQueue()
        self._lock = threading.RLock()
        self._runs = Runs()
        self._failing: WorkerRun | None = None
        """The run whose action raised an exception."""
        self._workbench = Workbench()
        self._leaving = False
        self._send_failure: Exception | None = None
        self._present: set[str] = set()
        self._dropped = 0
        """Number of samples whose coordinator had gone."""
        self._holds = Holds(name, lambda to, frame: self._lanes.send(to, frame, CONTROL), self._present)
        self._transport = connect(
            self._on_inbound,
            lambda member, present: self._inbox.put(partial(self._on_presence, member, present=present)),
        )
        self._lanes = Lanes(
            self._transport,
            lambda *transfer: self._inbox.put(partial(self._on_transfer, *transfer)),
            on_unsent=lambda error: self._inbox.put(partial(self._raise, error)),
            on_failure=self._leave,
        )
        self._link_probe = LinkProbe(name, self._lanes, self._report)
        self._refusals = Refusals(self._report_refusal)

    # ---- life of the process ----------------------------------------------------------------------------------------

    def close(self) -> None:
        """Make :meth:`serve` return, at once or after the block that it warms up; signal handlers may call this."""
        self._leaving = True  # seen while the thread of `serve` is busy
        self._inbox.put(None)

    def serve(self) -> None:
        """Perform the actions of the inbox until :meth:`close`; then leave the network.

        Raises
        ------
        ExecuteError
            The agent left because it can no longer send.
        """
        prepare()
        _LOG.info("%s: started, waiting for a coordinator; interrupt to stop", self.name)
        with ExitStack() as leaving:
            leaving.callback(self._transport.close)
            leaving.callback(self._lanes.close, _FAREWELL_S)
            leaving.callback(self._finish)
            while (action := self._next_action()) is not None:
                with self._lock:
                    self._guard(action)
        _LOG.info("%s: left", self.name)
        if self._send_failure is not None:
            what = f"the agent left because it can no longer send: {explain(self._send_failure)}"
            raise ExecuteError(what, where=self.name) from self._send_failure

    def _leave(self, error: Exception) -> None:
        """Leave because nothing can be sent; called in any thread."""
        self._send_failure = error
        self.close()

    def _finish(self) -> None:
        """End the run at hand; after a send failure, try once to report it without the lanes."""
        with self._lock:
            runs = list(self._runs)
            self._drop_runs(runs)
        for each in runs:
            each.join()
        if self._send_failure is None:
            return
        what = f"the agent leaves because it can no longer send: {explain(self._send_failure)}"
        told: list[tuple[str, str | None]] = [(run.coordinator, run.id) for run in runs]
        for to, ended in told or [(COORDINATOR, None)]:
            fault = WorkerFault(worker=self.name, what=what, run=ended, dropped=True)
            try:
                self._transport.send(to, Frame(fault), CONTROL)
            except Exception:  # noqa: BLE001 - the transport has already failed
                _LOG.debug("%s: the coordinator cannot be reached either", self.name, exc_info=True)

    def _next_action(self) -> Action | None:
        self._end_notice.log_if_due()
        wait_s = self._runs.wait_s
        if wait_s > 0:
            try:
                return self._inbox.get(timeout=min(wait_s, _LONGEST_WAIT_S))
            except queue.Empty:
                pass
        return self._run_due

    def _run_due(self) -> None:
        for run in self._runs:
            self._guard(run.run_due, run)

    def _in_run(self, run: WorkerRun, action: Action) -> None:
        """Perform an action of a run, to which :meth:`_guard` then attributes an exception."""
        try:
            action()
        except Exception:
            self._failing = run
            raise

    def _guard(self, action: Action, run: WorkerRun | None = None) -> None:
        """Perform an action; an exception ends its run, or all if it is of none, and is reported, but not the agent."""
        self._failing = run
        try:
            action()
        except PlannerError as error:
            _LOG.warning("%s: the run fails", self.name, exc_info=True)
            self._fail(explain(error), self._failing)
        except Exception as error:  # noqa: BLE001 - reported to the coordinator; the agent goes on
            _LOG.exception("%s: the run fails", self.name)
            self._fail(f"the agent fails: {explain(error)}", self._failing)

    def _fail(self, what: str, failed: WorkerRun | None) -> None:
        runs = list(self._runs) if failed is None else [failed]
        self._drop_runs(runs)
        for run in runs:
            fault = WorkerFault(worker=self.name, what=what, run=run.id, dropped=True)
            self._lanes.send(run.coordinator, Frame(fault), CONTROL)
        if not runs:
            self._report(Frame(WorkerFault(worker=self.name, what=what, dropped=True)))

    @staticmethod
    def _raise(error: Exception) -> None:
        """Raise, in the agent's thread, what failed in another one."""
        raise error

    def _drop_runs(self, runs: Iterable[WorkerRun]) -> None:
        self._runs.drop(runs)
        self._transport.limit(self._runs.largest_bytes)

    def _drop_lost_runs(self, why: str) -> None:
        """Drop the runs, if any, whose coordinator has gone or has lost the agent."""
        runs = self._runs.except_of(self._holds.by)
        if not runs:
            return
        samples = sum(run.unfinished for run in runs)
        self._dropped += samples
        _LOG.warning("%s: the run ends because %s; %d samples are dropped", self.name, why, samples)
        self._drop_runs(runs)

    def _report(self, frame: Frame) -> None:
        """Send a frame to the coordinators that hold the agent, or to all if none does."""
        for to in self._holds.by or (COORDINATOR,):
            self._lanes.send(to, frame, CONTROL)

    def _report_refusal(self, sender: str, what: str) -> None:
        _LOG.warning("%s: refused: %s", self.name, what)
        for to in self._holds.by or (COORDINATOR,):
            refused = Refused(worker=self.name, sender=sender, what=what, run=self._runs.newest(to))
            self._lanes.send(to, Frame(refused), CONTROL)

    # ---- inbound frames ---------------------------------------------------------------------------------------------

    def _on_inbound(self, frame: Frame) -> None:
        """Queue a frame, in the transport's thread; a claim that is refused is answered at once."""
        if not (isinstance(frame.body, Claim) and self._holds.refuses(frame.body, frame)):
            self._inbox.put(partial(self._on_frame, frame))

    def _on_frame(self, frame: Frame) -> None:
        if type(frame.body) in self._HANDLERS.kinds:
            self._HANDLERS.handle(self, frame)
        else:
            self._refusals.add(frame.sender, f"an agent does not handle {frame.body.kind!r}")

    def _on_refused(self, refused: Refused, _frame: Frame) -> None:
        """Report what the transport refused."""
        self._refusals.add(refused.sender, refused.what)

    def _on_ask(self, _ask: Ask, frame: Frame) -> None:
        about = About(
            worker=self.name,
            provider=self._provider if isinstance(self._provider, str) else self._provider.name,
            memory_bytes=resident_bytes(),
            cached=len(self._cache),
            present=tuple(sorted({member.partition("/")[0] for member in self._present})),
            certificate_ends_unix_s=self._certificate_ends_unix_s,
            dropped=self._dropped,
            links=self._workbench.links.describe(),
            holdings=self._holds.describe(),
            **about_host(),
        )
        self._lanes.send(frame.origin, Frame(about.model_copy(update=self._runs.describe())), CONTROL)

    def _on_echo(self, _echo: Echo, frame: Frame) -> None:
        self._probe_link(frame, frame.sender)

    def _on_probe(self, probe: Ping | Flood, frame: Frame) -> None:
        if not self._runs:
            self._probe_link(frame, probe.to)
        else:
            self._refusals.add(frame.sender, "links are not measured during a run")

    def _on_chunk(self, _chunk: Chunk, frame: Frame) -> None:
        if not self._runs:
            self._probe_link(frame, frame.sender)

    def _probe_link(self, frame: Frame, member: str) -> None:
        """Measure the link to a member that is present: each that is sent to costs a thread."""
        if member in self._present or member == COORDINATOR:
            self._link_probe.handle(frame)
        else:
            self._refusals.add(frame.sender, f"{frame.body.kind}: no such member is present: {member}")

    def _on_claim(self, claim: Claim, frame: Frame) -> None:
        if self._holds.refuses(claim, frame):
            return
        if frame.origin not in self._holds.by:
            share = f" for {claim.share * 100:g} %" if claim.share is not None else ""
            _LOG.info("%s: held by %s%s", self.name, claim.holder, share)
        self._holds.grant(claim, frame)
        self._drop_lost_runs(f"{claim.holder} takes the agent over")

    def _on_deploy(self, deploy: Deploy, frame: Frame) -> None:
        known = self._runs.get(deploy.run)
        if frame.origin not in self._holds.by or (known is not None and known.coordinator != frame.origin):
            self._refusals.add(frame.sender, "a deployment by a coordinator that does not hold this agent")
            return
        _LOG.info("%s: run %s is deployed with policy %s", self.name, deploy.run, deploy.policy)
        own = self._runs.of(frame.origin)
        self._drop_runs([run for run in own if run.id not in deploy.beside or run.id == deploy.run])
        run = WorkerRun(
            self.name,
            deploy,
            self._cache,
            provider=self._provider,
            threads=self._threads,
            processors=self._processors,
            coordinator=frame.origin,
            share=self._holds.share(frame.origin),
            lanes=self._lanes,
            refusals=self._refusals,
            workbench=self._workbench,
            on_block_end=self._on_block_end,
            on_failure=self._on_run_failure,
            leaving=lambda: self._leaving,
        )
        self._runs.add(run)
        self._transport.limit(self._runs.largest_bytes)
        self._cache.forget_others(self._runs.announced)
        self._in_run(run, run.prepare)

    def _on_run_message(self, body: RunMessage, frame: Frame) -> None:
        run = self._runs.get(body.run)
        if run is None:  # late, of an earlier run
            self._dropped += isinstance(body, Submit)
            if isinstance(body, BlockFile):
                self._refusals.add(frame.sender, f"a block model that was not announced: {body.sha256}")
            return
        if frame.sender == COORDINATOR and frame.origin != run.coordinator:
            self._refusals.add(frame.sender, f"{body.kind} by a coordinator that does not hold this agent")
            return
        self._in_run(run, partial(run.handle, frame))
        if run.over:
            _LOG.info("%s: run %s has ended", self.name, run.id)
            self._drop_runs([run])

    _HANDLERS = Dispatch["Agent", None]({
        **dict.fromkeys(get_args(RunMessage), _on_run_message),
        Refused: _on_refused,
        Ask: _on_ask,
        Echo: _on_echo,
        Ping: _on_probe,
        Flood: _on_probe,
        Chunk: _on_chunk,
        Claim: _on_claim,
        Deploy: _on_deploy,
    })  # fmt: skip

    # ---- what other threads report ----------------------------------------------------------------------------------

    def _on_presence(self, member: str, *, present: bool) -> None:
        if member == self.name:
            self._warn_of_others()
            return
        if present != (member in self._present):
            who = "a coordinator" if member.startswith(COORDINATOR) else member
            _LOG.info("%s: %s %s", self.name, who, "is present" if present else "left")
        (self._present.add if present else self._present.discard)(member)
        if not present:
            self._lanes.forget(member)
        if member in self._holds.by and not present:
            # Nobody waits for its run any more, and the next coordinator will deploy its own.
            self._holds.release(member)
            self._workbench.turns.forget(member)
            self._drop_lost_runs("its coordinator left")
            return
        for run in self._runs:
            self._guard(partial(run.on_link, member, present=present), run)

    def _warn_of_others(self) -> None:
        """Log which other agents have this one's name; the coordinator refuses runs as long as there are any."""
        if self.name in self._transport.shared_names():
            at = whereabouts(self._transport, self.name)
            _LOG.warning("%s: another agent has this name, and runs are refused: %s", self.name, at)
        else:
            _LOG.info("%s: no other agent has this name any more", self.name)

    def _on_transfer(self, to: str, size_bytes: int, took_s: float) -> None:
        self._workbench.links.add(to, size_bytes, took_s)
        for run in self._runs:
            self._guard(partial(run.on_transfer, to, size_bytes, took_s), run)

    def _on_block_end(self, run: WorkerRun, result: BlockResult) -> None:
        """Handle the end of a block, in the executor's thread."""
        with self._lock:
            if run not in self._runs:
                return
            wait_s = run.wait_s
            self._guard(partial(run.on_block_end, result), run)
            if run.wait_s < wait_s:
                self._inbox.put(self._run_due)  # wakes the agent's thread, which waits for longer

    def _on_run_failure(self, run: WorkerRun, error: Exception) -> None:
        """End a run, one of whose threads has failed; called in that thread."""
        self._inbox.put(partial(self._end_run, run, error))

    def _end_run(self, run: WorkerRun, error: Exception) -> None:
        if run in self._runs:
            self._in_run(run, partial(self._raise, error))
