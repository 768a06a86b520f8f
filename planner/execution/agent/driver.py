"""The real-time driver: carries out one worker's effects with onnxruntime, a transport and the clock.

It is the counterpart of :class:`planner.simulation.simulator.Simulator`, for one worker and for real. The agent's
thread and the compute thread call it in turn, never both at once.
"""

from __future__ import annotations

import heapq
import logging
import time
from collections.abc import Iterator, Mapping
from itertools import chain, count
from math import inf
from typing import Final

from planner.execution.agent.event_log import EventLog
from planner.execution.agent.executor import BlockJob, BlockResult, Executor
from planner.execution.agent.outbox import Outbox, SendFrame
from planner.execution.agent.tensors import TensorStore
from planner.execution.wire.frames import Frame, Tensors
from planner.execution.wire.messages import (
    COORDINATOR,
    Admit,
    Data,
    Deploy,
    Ended,
    Load,
    Log,
    MembershipChange,
    Replan,
    Start,
    Submit,
    WorkerFault,
)
from planner.execution.wire.transport import CONTROL, LEVELS
from planner.policy.costs import CostTable
from planner.policy.registry import make_policy
from planner.policy.types import SampleKey
from planner.scenario.arrivals import instance_arrivals
from planner.trace.records import BlockRecord, SampleRecord, TransferRecord
from planner.worker.events import (
    Arrived,
    BlockEnded,
    BlockFailed,
    Complete,
    Discard,
    Effect,
    Event,
    Fail,
    Joined,
    Left,
    Note,
    Parcel,
    Received,
    Replanned,
    RunBlock,
    Send,
    SetTimer,
    Step,
    Tell,
    TimedOut,
    Transferred,
    sample_record,
)
from planner.worker.worker import Worker

_LOG = logging.getLogger(__name__)

LOAD_PERIOD_S: Final = 0.5
"""How often a worker tells the coordinator how busy it is, and what it did."""

_TOGETHER_S: Final = 0.2
"""Ends of samples are told together for so long, where nobody waits for each: a message costs both ends some work."""


class Driver:
    """One worker of one run.

    Parameters
    ----------
    inputs
        As for :class:`~planner.execution.agent.tensors.TensorStore`.
    compute
        Runs the blocks; its outcomes come back through :meth:`on_outcome`.
    start_s
        Monotonic time at which the run's clock reads 0.
    """

    def __init__(
        self,
        name: str,
        deploy: Deploy,
        inputs: Mapping[str, list[Tensors]],
        *,
        send: SendFrame,
        compute: Executor,
        start_s: float,
    ) -> None:
        instance = deploy.instance
        self.name = name
        self._deploy = deploy
        self._instance = instance
        self._costs = CostTable(instance)
        self._inputs = inputs
        self._send_frame = send
        self._compute = compute
        self._start_s = start_s
        self._worker = Worker(name, instance, make_policy(deploy.policy, instance, deploy.plan), costs=self._costs)
        self._holdings = TensorStore(deploy, inputs)
        self._post = Outbox(name, deploy, send)
        self.journal = EventLog(live=deploy.live)
        self._due: list[tuple[float, int, Event]] = []
        self._sequence = count()
        self._arrivals: dict[str, Iterator[tuple[int, float]]] = {}
        self._block_s = {
            model: (instance.block_s(model, name).tolist(), instance.stage_overhead_s(model, name))
            for model in instance.profiles
        }
        self._free_s: float | None = None
        self._next_load_s = LOAD_PERIOD_S
        self._ended: list[SampleRecord] = []
        self._next_ends_s = inf
        self._unlinked: set[str] = set()
        self._out: set[str] = set()
        self._failing: set[tuple[str, int]] = set()

    def begin(self, start: Start) -> None:
        """Begin with the workers that are in the run; in one that is on, with the samples that arrive from now on."""
        for worker in start.absent:
            self._change(self._out, worker, present=False)
        for source in (source for source in self._instance.sources if source in self._inputs):
            self._arrivals[source] = enumerate(instance_arrivals(self._instance, source, self._deploy.seed))
            if start.joins:
                self._miss(source)
            self._next_arrival(source)

    def _miss(self, source: str) -> None:
        """Report the samples failed that arrived while this worker was not there."""
        now_s, arrivals = self.now_s, self._arrivals[source]
        for sample, at_s in arrivals:
            if at_s >= now_s:
                self._arrivals[source] = chain([(sample, at_s)], arrivals)
                return
            self._tell_end(SampleRecord(source, sample, at_s, at_s, "failed", f"{self.name} was absent"))

    @property
    def now_s(self) -> float:
        """Time of the run's clock."""
        return time.monotonic() - self._start_s

    @property
    def load(self) -> tuple[int, SampleKey | None]:
        """How many tasks wait here, and the sample that is worked on."""
        return self._worker.queued, self._worker.running

    @property
    def next_due_s(self) -> float:
        """Time of the run's clock at which :meth:`run_due` has something to do."""
        next_s = min(self._next_load_s, self._next_ends_s)
        return min(self._due[0][0], next_s) if self._due else next_s

    def run_due(self) -> None:
        """Take the events whose time has come; from time to time, tell how busy the worker is, and what it did."""
        while self._due and self._due[0][0] <= self.now_s:
            event = heapq.heappop(self._due)[2]
            if isinstance(event, Arrived) and not self._deploy.live:
                self._next_arrival(event.source)
            self._step(event)
        if self._next_ends_s <= (now_s := self.now_s):
            self._tell_ends()
        if self._next_load_s <= now_s:
            self._next_load_s = now_s + LOAD_PERIOD_S
            load = Load(
                run=self._deploy.run,
                worker=self.name,
                at_s=now_s,
                queued=self._worker.queued,
                busy_s=self.journal.busy_s,
                carried_s=self.journal.carried_s,
                slowness=self._worker.slowness(now_s),
            )
            self._tell(Frame(load))
            self.tell_log()

    def tell_log(self) -> None:
        """Tell what the worker did since the last time."""
        self._tell_ends()
        if log := self.journal.take():
            self._tell(Frame(Log(run=self._deploy.run, worker=self.name), log), LEVELS)

    def on_submit(self, submit: Submit, tensors: Tensors) -> None:
        """Take a sample of a live run."""
        self._holdings.submit(submit.source, submit.sample, tensors)
        arrived = Arrived(submit.source, submit.sample)
        if self.now_s < 0:  # the coordinator's clock is ahead of this one
            self._at(0.0, arrived)
        else:
            self._step(arrived)

    def on_data(self, data: Data, tensors: Tensors) -> None:
        """Take another worker's message: at once, or when the emulated network admits it; or send it on."""
        if data.to not in {"", self.name}:
            self._send_on(data, tensors)
        elif isinstance(data.message, Note):
            received = Received(data.sender, data.message)
            if self._deploy.emulated:
                self._at(data.sent_s + self._costs.latency_s(data.sender, self.name), received)
            else:
                self._step(received)
        elif data.transfer is None:
            self._record_transfer(data, data.message)
            self._keep(data, tensors)
            self._step(Received(data.sender, data.message))
        elif (at_s := self._post.came(data.transfer, data, tensors)) is not None:
            self._schedule_receipt(at_s, data, tensors)

    def _send_on(self, data: Data, tensors: Tensors) -> None:
        if isinstance(data.message, Parcel):
            self._record_transfer(data, data.message)
        if self._post.next_hop(data.to) in self._unlinked | self._out:
            self._post.turn_back(data)
        else:
            self._post.send_on(data, tensors, self.now_s)

    def on_admit(self, admit: Admit) -> None:
        """Learn when the emulated network lets a transfer in."""
        held = self._post.admit(admit)
        if held is not None:
            self._schedule_receipt(admit.at_s, *held)

    def on_outcome(self, outcome: BlockResult) -> None:
        """Take the end of a block."""
        key, block = outcome.run.key, outcome.run.block
        start_s, end_s = outcome.start_s - self._start_s, outcome.end_s - self._start_s
        record = BlockRecord(self.name, key.source, key.sample, block, start_s, end_s)
        self.journal.block(record, late=outcome.late)
        self._free_s = outcome.end_s
        if outcome.tensors is None:
            self._tell_failing(outcome)
            self._step(BlockFailed(key, block, outcome.reason))
        else:
            self._holdings.keep(key, outcome.tensors)
            self._step(BlockEnded(key, block, outcome.end_s - outcome.start_s, outcome.confidence))
        self._free_s = None

    def on_sent(self, worker: str, size_bytes: int, took_s: float) -> None:
        """Learn what a transfer to another worker took, the round trip of a small one not counted."""
        # An emulated network's transfers take the scenario's time; what was measured is this host's loopback interface.
        if worker in self._instance.workers and not self._deploy.emulated:
            self._step(Transferred(worker, size_bytes, took_s))

    def on_link(self, worker: str, *, present: bool) -> None:
        """Learn that the link to another worker is there, or broken."""
        self._change(self._unlinked, worker, present=present)

    def on_member(self, member: MembershipChange) -> None:
        """Learn from the coordinator that another worker is in the run, or no longer."""
        self._change(self._out, member.worker, present=member.present)

    def on_replan(self, replan: Replan) -> None:
        """Follow another plan from now on."""
        self._step(Replanned(replan.plan))

    def _change(self, reasons: set[str], worker: str, *, present: bool) -> None:
        # A worker is there when it is in the run and its link is not broken, whichever is told first.
        before = worker in self._unlinked | self._out
        (reasons.discard if present else reasons.add)(worker)
        if before != (worker in self._unlinked | self._out):
            self._step(Joined(worker) if before else Left(worker))

    def _tell_failing(self, outcome: BlockResult) -> None:
        """Tell once that a block fails; each of its samples is reported by itself."""
        failing = (outcome.run.model, outcome.run.block)
        if failing not in self._failing:
            self._failing.add(failing)
            what = f"block {outcome.run.block} of {outcome.run.model} fails: {outcome.reason}"
            _LOG.warning("%s: %s", self.name, what)
            self._tell(Frame(WorkerFault(worker=self.name, what=what)))

    def _tell(self, frame: Frame, level: int = CONTROL) -> None:
        self._send_frame(COORDINATOR, frame, level)

    # ---- events in ------------------------------------------------------------------------------------------------

    def _next_arrival(self, source: str) -> None:
        following = next(self._arrivals[source], None)
        if following is not None:
            sample, at_s = following
            self._at(at_s, Arrived(source, sample))

    def _at(self, time_s: float, event: Event) -> None:
        heapq.heappush(self._due, (time_s, next(self._sequence), event))

    def _schedule_receipt(self, at_s: float, data: Data, tensors: Tensors) -> None:
        path = self._instance.path(data.sender, self.name)
        self.journal.carried(path.hops if path is not None else (), data.size_bytes)
        self._keep(data, tensors)
        self._at(at_s, Received(data.sender, data.message))

    def _keep(self, data: Data, tensors: Tensors) -> None:
        if tensors and isinstance(data.message, Parcel):
            self._holdings.keep(data.message.key, tensors)

    def _record_transfer(self, data: Data, parcel: Parcel) -> None:
        path = self._instance.path(data.sender, self.name)
        hop = path.hops[-1] if path and path.hops else None
        self.journal.carried([hop] if hop is not None else [], data.size_bytes)
        key = parcel.key
        self.journal.record(
            TransferRecord(
                hop.resource if hop else f"{data.sender}>{self.name}",
                hop.sender if hop else data.sender,
                self.name,
                key.source,
                key.sample,
                data.cut,
                data.size_bytes,
                data.sent_s,
                self.now_s,
            )
        )

    # ---- effects out ----------------------------------------------------------------------------------------------

    def _step(self, event: Event) -> None:
        now_s = max(self.now_s, 0.0)  # members may come and go before the start
        effects = self._worker.step(now_s, event)
        self.journal.step(Step(now_s, event, effects))
        for effect in effects:
            self._carry_out(effect)
        if isinstance(event, Received) and event.message.kind == "result":
            self.journal.duplicates += not any(isinstance(effect, Complete) for effect in effects)

    def _carry_out(self, effect: Effect) -> None:
        if isinstance(effect, RunBlock):
            self._compute.submit(
                BlockJob(effect, self._holdings.of(effect.key), self._begin_s(), self._lasts_s(effect))
            )
        elif isinstance(effect, Send):
            self._post.send(effect, self._holdings.payload(effect.message), self.now_s)
        elif isinstance(effect, Tell):
            self._post.tell(effect, self.now_s)
        elif isinstance(effect, SetTimer):
            self._at(effect.at_s, TimedOut(effect.timer))
        elif isinstance(effect, Discard):
            self._holdings.discard(effect.key)
        else:
            self._end_sample(effect)

    def _begin_s(self) -> float:
        # A paced block that follows another begins when that one ends, not when it has been noticed.
        return self._free_s if self._deploy.paced and self._free_s is not None else time.monotonic()

    def _lasts_s(self, run: RunBlock) -> float | None:
        if not self._deploy.paced:
            return None
        block_s, overhead_s = self._block_s[run.model]
        return float(block_s[run.block]) + (overhead_s if run.begins_stage else 0.0)

    def _end_sample(self, effect: Complete | Fail) -> None:
        key = effect.key
        outputs: Tensors = {}
        if isinstance(effect, Complete):
            outputs = self._holdings.result(key, effect.origin)
            self._holdings.discard(key)
        record = sample_record(effect, self.now_s)
        if self._deploy.live:
            self._holdings.end(key)
            ended = Ended(run=self._deploy.run, worker=self.name, samples=(record,))
            self._tell(Frame(ended, outputs), self._post.level(key.source))
            return
        if outputs:
            self.journal.output(key, outputs)
        self._tell_end(record)

    def _tell_end(self, record: SampleRecord) -> None:
        """Tell soon that a sample ended."""
        if not self._ended:
            self._next_ends_s = self.now_s + _TOGETHER_S
        self._ended.append(record)

    def _tell_ends(self) -> None:
        ended, self._ended, self._next_ends_s = self._ended, [], inf
        if ended:
            self._tell(Frame(Ended(run=self._deploy.run, worker=self.name, samples=tuple(ended))))
