"""The real-time driver: carries out one worker's effects with onnxruntime, a transport and the clock.

It is the counterpart of :class:`planner.simulation.simulator.Simulator` for a single worker on real hardware. The
agent's thread and the executor's thread call it in turn, never both at once.
"""

from __future__ import annotations

import heapq
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import chain, count

import numpy as np

from planner.errors import PlannerError
from planner.execution.agent.block_times import BlockTimes
from planner.execution.agent.executor import BlockJob, BlockResult, Executor
from planner.execution.agent.feedback import Feedback
from planner.execution.agent.model_blocks import ModelBlocks
from planner.execution.agent.next_tokens import NextTokens
from planner.execution.agent.outbox import Outbox, SendFrame
from planner.execution.agent.reporter import Reporter
from planner.execution.agent.sequences import Sequences
from planner.execution.agent.tensors import TensorStore
from planner.execution.wire.diagnostics import LinkSpeed
from planner.execution.wire.dispatch import Dispatch
from planner.execution.wire.frames import Frame, Tensors
from planner.execution.wire.messages import TOKENS, Admit, Data, Deploy, MembershipChange, Replan, Start, Submit
from planner.plan.types import PlanSpec
from planner.policy.costs import CostTable
from planner.policy.registry import make_policy
from planner.policy.types import RUN_STRIDE, Progress, SampleKey
from planner.runtime.state import sequence_of
from planner.scenario.arrivals import instance_arrivals
from planner.trace.records import BlockRecord, SampleRecord
from planner.worker.event_checks import ProtocolError
from planner.worker.events import (
    Arrived,
    BlockEnded,
    BlockFailed,
    Complete,
    Discard,
    Effect,
    Event,
    Fail,
    FeedBack,
    Forget,
    Joined,
    Left,
    Note,
    Parcel,
    Received,
    Replanned,
    RunBlock,
    Send,
    SequenceEnded,
    SetTimer,
    StateMessage,
    Step,
    Tell,
    TimedOut,
    Transferred,
)
from planner.worker.stickiness import SequenceRoutes
from planner.worker.worker import Worker

_LOG = logging.getLogger(__name__)


class Driver:
    """Drives the state machine of one worker of one run, from :meth:`start` on.

    Parameters
    ----------
    inputs
        As for :class:`~planner.execution.agent.tensors.TensorStore`.
    executor
        Runs the blocks; its results are to be passed to :meth:`on_block_end`.
    follow
        Called with each new plan, to load the blocks that it needs here.
    links
        Returns what is known of the links to other agents.
    models
        As for :class:`~planner.execution.agent.tensors.TensorStore`.
    routes
        As for :class:`~planner.worker.worker.Worker`.
    """

    def __init__(
        self,
        name: str,
        deploy: Deploy,
        inputs: Mapping[str, list[Tensors]],
        *,
        send: SendFrame,
        executor: Executor,
        follow: Callable[[PlanSpec], None],
        links: Callable[[], Mapping[str, LinkSpeed]],
        refuse: Callable[[str, str], None],
        models: Mapping[str, ModelBlocks],
        routes: SequenceRoutes,
    ) -> None:
        instance = deploy.instance
        self.name = name
        self.started = False
        self._deploy = deploy
        self._instance = instance
        self._costs = CostTable(instance)
        self._inputs = inputs
        self._executor = executor
        self._follow = follow
        self._links = links
        self._refuse = refuse
        policy = make_policy(deploy.policy, instance, deploy.plan)
        self._worker = Worker(name, instance, policy, costs=self._costs, routes=routes)
        self._store = TensorStore(deploy, inputs, models)
        specs = instance.scenario.sources.items()
        self._feedback = Feedback({source: deploy.models[spec.models[0]] for source, spec in specs})
        self._sequences = Sequences(name, deploy)
        self._next_tokens = NextTokens(deploy.models)
        self._follow_ups: deque[Event] = deque()
        self._outbox = Outbox(name, deploy, send)
        self._reporter = Reporter(name, deploy, send)
        self._start_s = 0.0
        """Monotonic time at which the run's clock reads 0."""
        self._due: list[tuple[float, int, Event]] = []
        self._sequence = count()
        self._arrivals: dict[str, Iterator[tuple[int, float]]] = {}
        self._block_times = BlockTimes(name, deploy)
        self._free_s: float | None = None
        """While the end of a block is handled, the time of that end."""
        self._unlinked: set[str] = set()
        self._out: set[str] = set()
        self._effects: dict[type, Callable[..., None]] = {
            RunBlock: self._run_block,
            Send: self._send,
            Tell: self._send_note,
            SetTimer: self._set_timer,
            Discard: self._discard,
            Complete: self._complete,
            Fail: self._end_run,
            Forget: self._forget,
            FeedBack: self._feed_back,
        }

    # ---- clock ------------------------------------------------------------------------------------------------------

    def start(self, start: Start) -> None:
        """Start the clock, and the arrivals at this worker's sources; in a run under way, those from now on."""
        self._start_s = time.monotonic() + (start.at_unix_s - time.time())
        self.started = True
        for worker in start.absent:
            self._change_membership(self._out, worker, present=False)
        for source in (source for source in self._instance.sources if source in self._inputs):
            self._arrivals[source] = enumerate(instance_arrivals(self._instance, source, self._deploy.seed))
            if start.joins:
                self._fail_missed(source)
            self._schedule_arrival(source)

    def _fail_missed(self, source: str) -> None:
        """Report the samples failed that arrived while this worker was absent."""
        now_s, arrivals = self.now_s, self._arrivals[source]
        for sample, at_s in arrivals:
            if at_s >= now_s:
                self._arrivals[source] = chain([(sample, at_s)], arrivals)
                return
            reason = f"{self.name} was absent"
            self._reporter.add_end(SampleRecord(source, sample, at_s, at_s, "failed", reason), now_s)

    @property
    def now_s(self) -> float:
        """Time of the run's clock."""
        return time.monotonic() - self._start_s

    @property
    def next_due_s(self) -> float:
        """Time of the run's clock at which :meth:`run_due` has something to do."""
        next_s = self._reporter.next_due_s
        return min(self._due[0][0], next_s) if self._due else next_s

    def run_due(self) -> None:
        """Handle the events whose time has come, and send the reports that are due."""
        self._drop_timers()
        while self._due and self._due[0][0] <= self.now_s:
            event = heapq.heappop(self._due)[2]
            if isinstance(event, Arrived) and not self._deploy.live:
                self._schedule_arrival(event.source)
                if event.source in self._sequences:
                    run = self._sequences.arrive(event.source, event.sample, self.now_s)
                    if run is None:
                        continue
                    event, inputs = run
                    self._store.submit(event.source, event.sample, inputs)
            self._step(event)
            self._drop_timers()
        self._reporter.report_due(self._worker, self.now_s, self._link_speeds)

    def _drop_timers(self) -> None:
        """Drop the first timers that mean nothing any more: as events they would interrupt the job at hand."""
        while self._due and isinstance(timed_out := self._due[0][2], TimedOut):
            if not self._worker.ignores(timed_out.timer):
                return
            heapq.heappop(self._due)

    def _link_speeds(self) -> dict[str, LinkSpeed]:
        """Return the speed of the links to other workers; an emulated network's are not those of this host."""
        if self._deploy.emulated:
            return {}
        return {worker: speed for worker, speed in self._links().items() if worker in self._instance.workers}

    def report(self) -> None:
        """Report the end of the run: the rest of the log, the outputs, and the totals."""
        self._reporter.report_all(self._executor.waited_s)

    @property
    def unfinished(self) -> int:
        """Number of samples of this worker's sources that have arrived and not ended."""
        return len(self._worker.pending) + self._sequences.waiting

    @property
    def queued(self) -> int:
        """Number of tasks that wait here."""
        return self._worker.queued

    @property
    def running(self) -> SampleKey | None:
        """The sample whose block runs here."""
        return self._worker.running

    # ---- inbound messages -------------------------------------------------------------------------------------------

    def handle(self, frame: Frame) -> None:
        """Handle a message of the run."""
        self._HANDLERS.handle(self, frame)

    def _on_submit(self, submit: Submit, frame: Frame) -> None:
        if not self._store.submit(submit.source, submit.sample, frame.tensors):
            self._refuse(frame.sender, f"sample {submit.sample} of {submit.source} arrived twice")
            return
        for number in submit.given_up:
            self._feedback.give_up(submit.source, number)
            self._step(SequenceEnded(submit.source, number))
        decoding = self._feedback.begin(submit, frame.tensors, max(self.now_s, 0.0))
        sequence = sequence_of(frame.tensors)
        progress = None if submit.progress is None else Progress(*submit.progress)
        arrived = Arrived(
            submit.source, submit.sample, submit.priority, submit.within_s, sequence, decoding, progress=progress
        )
        if self.now_s < 0:  # the coordinator's clock is ahead of this one
            self._schedule(0.0, arrived)
        else:
            self._step(arrived)

    def _on_data(self, data: Data, frame: Frame) -> None:
        """Forward data for another worker; handle one's own now, or when the emulated network delivers it."""
        tensors = frame.tensors
        if data.to not in {"", self.name}:
            self._forward(data, tensors)
        elif isinstance(data.message, Note):
            received = Received(data.sender, data.message)
            if self._deploy.emulated:
                self._schedule(data.sent_s + self._costs.latency_s(data.sender, self.name), received)
            else:
                self._step(received)
        elif data.transfer is None:
            self._record_transfer(data, data.message)
            self._store_parcel(data, tensors)
            self._step(Received(data.sender, data.message))
        elif (at_s := self._outbox.hold(data.transfer, data, tensors)) is not None:
            self._schedule_receipt(at_s, data, tensors)

    def _forward(self, data: Data, tensors: Tensors) -> None:
        if isinstance(data.message, Parcel):
            self._record_transfer(data, data.message)
        if self._outbox.next_hop(data.to) in self._unlinked | self._out:
            self._outbox.report_unreachable(data)
        else:
            self._outbox.forward(data, tensors, self.now_s)

    def _on_admit(self, admit: Admit, _frame: Frame) -> None:
        held = self._outbox.admit(admit)
        if held is not None:
            self._schedule_receipt(admit.at_s, *held)

    def _on_membership_change(self, change: MembershipChange, _frame: Frame) -> None:
        _LOG.info("%s: %s %s the run", self.name, change.worker, "joins" if change.present else "leaves")
        self._change_membership(self._out, change.worker, present=change.present)

    def _on_replan(self, replan: Replan, _frame: Frame) -> None:
        _LOG.info("%s: new plan by %s", self.name, replan.plan.method)
        self._follow(replan.plan)
        self._step(Replanned(replan.plan, replan.slowness))

    _HANDLERS = Dispatch["Driver", None]({
        Submit: _on_submit,
        Data: _on_data,
        Admit: _on_admit,
        MembershipChange: _on_membership_change,
        Replan: _on_replan,
    })  # fmt: skip

    # ---- what happens on this device --------------------------------------------------------------------------------

    def on_block_end(self, result: BlockResult) -> None:
        """Handle the end of a job."""
        key, keys, zero_s = result.run.key, result.run.keys, self._start_s
        for block, start_s, end_s, late, last in result.times:
            for source, number, _ in keys:
                span = self.name, source, number % RUN_STRIDE, block, start_s - zero_s, end_s - zero_s, last
                self._reporter.log.add_block(BlockRecord(*span, len(keys)), late=late)
        ended = result.times[-1]
        block, last, self._free_s = ended.block, ended.last_block, ended.end_s
        try:
            token = self._token(result, block if last is None else last)
        except PlannerError as error:
            result = replace(result, tensors=None, reason=str(error))
        if result.tensors is None:
            if len(keys) == 1:  # those of a batch run again by themselves
                self._reporter.report_failing_block(result.run.model, block, result.reason)
            self._step(BlockFailed(key, block, result.reason))
        else:
            for each, tensors in zip(keys, result.tensors, strict=True):
                self._store.put(each, tensors)
            if token is not None:
                self._store.put(key, {TOKENS: np.array([token], np.int64)})
            *before_s, took_s = self._block_times.as_typical(result.run.model, result.times)
            ended_block = block if last is None else last
            self._step(BlockEnded(key, ended_block, took_s, result.confidence, tuple(before_s), token))
        self._free_s = None

    def _token(self, result: BlockResult, block: int) -> int | None:
        """Return the token that a run gives with its last block; None before, and for what gives outputs."""
        run = result.run
        if run.decoding is None or result.tensors is None or block + 1 < self._costs.length(run.model):
            return None
        return self._next_tokens.token(run.model, result.tensors[0], run.decoding)

    def on_transfer(self, worker: str, size_bytes: int, took_s: float) -> None:
        """Handle the measured duration of a transfer, without the round trip of a small one."""
        # An emulated network's transfers take the scenario's time; what was measured is this host's loopback interface.
        if worker in self._instance.workers and not self._deploy.emulated:
            self._step(Transferred(worker, size_bytes, took_s))

    def on_link(self, worker: str, *, present: bool) -> None:
        """Handle that the link to another worker came up or broke."""
        self._change_membership(self._unlinked, worker, present=present)

    def _change_membership(self, absent: set[str], worker: str, *, present: bool) -> None:
        # A worker is present when it is in the run and its link is up, in whichever order the two are reported.
        before = worker in self._unlinked | self._out
        (absent.discard if present else absent.add)(worker)
        if before != (worker in self._unlinked | self._out):
            self._step(Joined(worker) if before else Left(worker))

    # ---- events -----------------------------------------------------------------------------------------------------

    def _schedule_arrival(self, source: str) -> None:
        following = next(self._arrivals[source], None)
        if following is not None:
            sample, at_s = following
            self._schedule(at_s, Arrived(source, sample))

    def _schedule(self, time_s: float, event: Event) -> None:
        heapq.heappush(self._due, (time_s, next(self._sequence), event))

    def _schedule_receipt(self, at_s: float, data: Data, tensors: Tensors) -> None:
        path = self._instance.path(data.sender, self.name)
        self._reporter.log.add_carried(path.hops if path is not None else (), data.size_bytes)
        self._reporter.log.add_received(data.sender, data.size_bytes)
        self._store_parcel(data, tensors)
        self._schedule(at_s, Received(data.sender, data.message))

    def _store_parcel(self, data: Data, tensors: Tensors) -> None:
        message = data.message
        if isinstance(message, StateMessage):
            if self._worker.expects(data.sender, message):
                self._store.take_state(message, tensors)
        elif tensors and isinstance(message, Parcel):
            self._store.put(message.key, tensors)

    def _record_transfer(self, data: Data, parcel: Parcel) -> None:
        path = self._instance.path(data.sender, self.name)
        hop = path.hops[-1] if path and path.hops else None
        self._reporter.log.add_transfer(self.name, hop, data, parcel.key, self.now_s)

    def _step(self, event: Event) -> None:
        if not isinstance(event, (BlockEnded, BlockFailed)):
            self._executor.halt()
        now_s = max(self.now_s, 0.0)  # members may come and go before the start
        try:
            effects = self._worker.step(now_s, event)
        except ProtocolError as error:
            if not isinstance(event, Received):
                raise
            self._refuse(event.sender, str(error))  # nothing has changed, and this worker is not to blame
            return
        self._reporter.log.add_step(Step(now_s, event, effects))
        for effect in effects:
            self._carry_out(effect)
        if isinstance(event, Received) and event.message.kind == "result":
            self._reporter.log.duplicates += not any(isinstance(effect, Complete) for effect in effects)
        while self._follow_ups:
            self._step(self._follow_ups.popleft())

    # ---- effects ----------------------------------------------------------------------------------------------------

    def _carry_out(self, effect: Effect) -> None:
        self._effects[type(effect)](effect)

    def _run_block(self, run: RunBlock) -> None:
        # A paced block that follows another one begins when that one ends, not when its end has been noticed.
        begin_s = self._free_s if self._deploy.paced and self._free_s is not None else time.monotonic()
        tensors = tuple(map(self._store.get, run.keys))
        self._executor.submit(BlockJob(run, tensors, begin_s, self._block_times.begin(run, tensors[0])))

    def _send(self, send: Send) -> None:
        self._outbox.send(send, self._store.payload(send.message), self.now_s)

    def _send_note(self, tell: Tell) -> None:
        self._outbox.send_note(tell, self.now_s)

    def _set_timer(self, timer: SetTimer) -> None:
        self._schedule(timer.at_s, TimedOut(timer.timer))

    def _discard(self, discard: Discard) -> None:
        self._store.discard(discard.key)

    def _forget(self, forget: Forget) -> None:
        self._store.forget_state(forget.sequence)

    def _feed_back(self, feed: FeedBack) -> None:
        token, model = int(self._store.get(feed.of)[TOKENS][0]), feed.model
        self._store.put(feed.key, self._next_tokens.inputs(model, token, feed.sequence, feed.decoding))

    def _complete(self, complete: Complete) -> None:
        outputs = self._store.result(complete.key, complete.origin)
        self._store.discard(complete.key)
        self._end_run(complete, outputs)

    def _end_run(self, end: Complete | Fail, outputs: Tensors | None = None) -> None:
        """Go on with the next run of a sequence, or end the sample."""
        self._store.end(end.key)
        loops = self._feedback if self._deploy.live else self._sequences
        after = loops.after(end, outputs or {}, self.now_s)
        self._follow_ups.extend(SequenceEnded(end.key.source, number) for number in loops.take_ended())
        if self._deploy.live and (part := self._feedback.take_part(self.now_s)) is not None:
            self._reporter.report_tokens(*part, self._outbox.level(end.key.source))
        if after is None:
            return
        following, tensors = after
        if isinstance(following, Arrived):
            self._store.submit(following.source, following.sample, tensors)
            if not (isinstance(end, Complete) and end.goes_on):
                self._follow_ups.append(following)
        elif self._deploy.live:
            self._reporter.report_end(following, tensors, self._outbox.level(following.source))
        else:
            if tensors:
                self._reporter.log.add_output(following.source, following.sample, tensors)
            self._reporter.add_end(following, self.now_s)
            if following.source in self._sequences and (run := self._sequences.begin_next(following.source)):
                arrived, inputs = run
                self._store.submit(arrived.source, arrived.sample, inputs)
                self._follow_ups.append(arrived)
