"""The real-time driver: carries out one worker's effects with onnxruntime, a transport and the clock.

It is the counterpart of :class:`planner.simulate.run.Simulator`, for one worker and for real. All of it runs in one
thread, the agent's; the compute thread and the transport only put what happened into the agent's inbox.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, count
from typing import Final

import numpy as np

from planner.execute.compute import ComputeThread, Held, Job, Outcome, fetch
from planner.execute.messages import (
    COORDINATOR,
    Admit,
    Data,
    Deploy,
    Ended,
    Fault,
    Frame,
    Load,
    Member,
    Replan,
    Start,
    Submit,
    Tensors,
    Transmit,
)
from planner.execute.transport import CONTROL, LEVELS
from planner.policy.costs import Costs
from planner.policy.registry import make_policy
from planner.policy.types import SampleKey
from planner.scenario.arrivals import instance_arrivals
from planner.trace.records import BlockRecord, Origin, Record, SampleRecord, TransferRecord
from planner.worker.events import (
    Arrived,
    BlockEnded,
    BlockFailed,
    Complete,
    Discard,
    Effect,
    Event,
    Fail,
    FailureMessage,
    Joined,
    Left,
    Note,
    Parcel,
    Received,
    Replanned,
    ResultMessage,
    RunBlock,
    Send,
    SetTimer,
    Step,
    TaskMessage,
    Tell,
    TimedOut,
    Transferred,
    sample_record,
)
from planner.worker.worker import Worker

LOAD_PERIOD_S: Final = 0.5
"""How often a worker tells the coordinator how busy it is."""


def urgency_levels(priorities: Mapping[str, float]) -> dict[float, int]:
    """Map each distinct priority to a level of the transport: the highest class to 3, the others to 4 and below.

    The first two are left to what is no sample's data.
    """
    ranked = sorted(set(priorities.values()), reverse=True)
    return {priority: min(3 + rank, LEVELS) for rank, priority in enumerate(ranked)}


def _named(tensors: Held, names: Iterable[str]) -> Tensors:
    # What a worker no longer holds was of an attempt that is over.
    return fetch({name: tensors[name] for name in names if name in tensors})


class Driver:
    """One worker of one run.

    Parameters
    ----------
    inputs
        Input tensors of each of this worker's own sources; sample k takes entry k modulo their number. None in a live
        run, whose samples come with :meth:`on_submit`.
    send
        ``send(to, frame, level)``: hands a frame to the transport without waiting for it.
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
        send: Callable[[str, Frame, int], None],
        compute: ComputeThread,
        start_s: float,
    ) -> None:
        instance = deploy.instance
        self.name = name
        self._deploy = deploy
        self._instance = instance
        self._costs = Costs(instance)
        self._inputs = inputs
        self._send_frame = send
        self._compute = compute
        self._start_s = start_s
        self._worker = Worker(name, instance, make_policy(deploy.policy, instance, deploy.plan), costs=self._costs)
        self._levels = urgency_levels({name: source.priority for name, source in instance.scenario.sources.items()})
        self._submitted: dict[tuple[str, int], Tensors] = {}
        self._tensors: dict[SampleKey, Held] = {}
        self._due: list[tuple[float, int, Event]] = []
        self._sequence = count()
        self._arrivals: dict[str, Iterator[tuple[int, float]]] = {}
        self._held: dict[str, tuple[Data, Tensors]] = {}
        self._admitted: dict[str, float] = {}
        self._transfers = count()
        self._block_s = {
            model: (instance.block_s(model, name).tolist(), instance.stage_overhead_s(model, name))
            for model in instance.profiles
        }
        self.records: list[Record] = []
        self.steps: list[Step] = []
        self.outputs: dict[tuple[str, int], Tensors] = {}
        self._distinct: dict[tuple[str, int, tuple[str, ...]], Tensors] = {}
        self.duplicates = 0
        self.late_blocks = 0
        self._busy_s = 0.0
        self._free_s: float | None = None
        self._next_load_s = LOAD_PERIOD_S
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
            record = SampleRecord(source, sample, at_s, at_s, "failed", f"{self.name} was not there")
            self._send_frame(COORDINATOR, Frame(Ended(run=self._deploy.run, worker=self.name, sample=record)), CONTROL)

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
        return min(self._due[0][0], self._next_load_s) if self._due else self._next_load_s

    def run_due(self) -> None:
        """Take the events whose time has come, and tell the load from time to time."""
        while self._due and self._due[0][0] <= self.now_s:
            event = heapq.heappop(self._due)[2]
            if isinstance(event, Arrived) and not self._deploy.live:
                self._next_arrival(event.source)
            self._step(event)
        if self._next_load_s <= (now_s := self.now_s):
            self._next_load_s = now_s + LOAD_PERIOD_S
            load = Load(
                run=self._deploy.run, worker=self.name, at_s=now_s, queued=self._worker.queued, busy_s=self._busy_s
            )
            self._send_frame(COORDINATOR, Frame(load), CONTROL)

    def on_submit(self, submit: Submit, tensors: Tensors) -> None:
        """Take a sample of a live run."""
        self._submitted[submit.source, submit.sample] = tensors
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
            self._receive(data, tensors)
        elif data.transfer in self._admitted:
            self._schedule_receipt(self._admitted.pop(data.transfer), data, tensors)
        else:
            self._held[data.transfer] = (data, tensors)

    def _send_on(self, data: Data, tensors: Tensors) -> None:
        """Pass a message of another worker to the next hop, or tell the sample's home that there is none."""
        message = data.message
        if isinstance(message, Parcel):
            self._record_transfer(data, message)
        hop = self._next_hop(data.to)
        if hop not in self._unlinked | self._out:
            self._send_data(data.to, data.model_copy(update={"sent_s": self.now_s}), tensors, data.level)
        elif isinstance(message, TaskMessage):
            home = self._instance.home(message.key.source)
            lost = FailureMessage(message.key, f"{self.name} does not reach {hop}", (self.name, hop))
            failure = data.model_copy(update={"sender": self.name, "message": lost, "size_bytes": 0})
            self._send_data(home, failure, {}, data.level)

    def on_admit(self, admit: Admit) -> None:
        """Learn when the emulated network lets a transfer in."""
        held = self._held.pop(admit.transfer, None)
        if held is None:
            self._admitted[admit.transfer] = admit.at_s
        else:
            self._schedule_receipt(admit.at_s, *held)

    def on_outcome(self, outcome: Outcome) -> None:
        """Take the end of a block."""
        key, block = outcome.run.key, outcome.run.block
        start_s, end_s = outcome.start_s - self._start_s, outcome.end_s - self._start_s
        self._record(BlockRecord(self.name, key.source, key.sample, block, start_s, end_s))
        self._busy_s += end_s - start_s
        self.late_blocks += outcome.late
        self._free_s = outcome.end_s
        if outcome.tensors is None:
            self._tell_failing(outcome)
            self._step(BlockFailed(key, block, outcome.reason))
        else:
            self._tensors[key] = outcome.tensors
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

    def on_member(self, member: Member) -> None:
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

    def _tell_failing(self, outcome: Outcome) -> None:
        """Tell once that a block fails; each of its samples is reported by itself."""
        failing = (outcome.run.model, outcome.run.block)
        if failing not in self._failing:
            self._failing.add(failing)
            what = f"block {outcome.run.block} of {outcome.run.model} fails: {outcome.reason}"
            self._send_frame(COORDINATOR, Frame(Fault(worker=self.name, what=what)), CONTROL)

    # ---- events in ------------------------------------------------------------------------------------------------

    def _next_arrival(self, source: str) -> None:
        following = next(self._arrivals[source], None)
        if following is not None:
            sample, at_s = following
            self._at(at_s, Arrived(source, sample))

    def _at(self, time_s: float, event: Event) -> None:
        heapq.heappush(self._due, (time_s, next(self._sequence), event))

    def _schedule_receipt(self, at_s: float, data: Data, tensors: Tensors) -> None:
        self._keep(data, tensors)
        self._at(at_s, Received(data.sender, data.message))

    def _receive(self, data: Data, tensors: Tensors) -> None:
        self._keep(data, tensors)
        self._step(Received(data.sender, data.message))

    def _keep(self, data: Data, tensors: Tensors) -> None:
        if tensors and isinstance(data.message, Parcel):
            self._tensors[data.message.key] = tensors

    def _record_transfer(self, data: Data, parcel: Parcel) -> None:
        path = self._instance.path(data.sender, self.name)
        hop = path.hops[-1] if path and path.hops else None
        key = parcel.key
        self._record(
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

    def _record(self, record: Record) -> None:
        if not self._deploy.live:
            self.records.append(record)

    # ---- effects out ----------------------------------------------------------------------------------------------

    def _step(self, event: Event) -> None:
        now_s = max(self.now_s, 0.0)  # members may come and go before the start
        effects = self._worker.step(now_s, event)
        if not self._deploy.live:
            self.steps.append(Step(now_s, event, effects))
        for effect in effects:
            self._carry_out(effect)
        if isinstance(event, Received) and event.message.kind == "result":
            self.duplicates += not any(isinstance(effect, Complete) for effect in effects)

    def _carry_out(self, effect: Effect) -> None:
        if isinstance(effect, RunBlock):
            self._compute.submit(Job(effect, self._tensors_of(effect.key), self._begin_s(), self._lasts_s(effect)))
        elif isinstance(effect, Send):
            self._send(effect)
        elif isinstance(effect, Tell):
            note = Data(
                run=self._deploy.run, sender=self.name, message=effect.message, cut=0, size_bytes=0, sent_s=self.now_s
            )
            self._send_data(effect.to, note, {}, CONTROL)
        elif isinstance(effect, SetTimer):
            self._at(effect.at_s, TimedOut(effect.timer))
        elif isinstance(effect, Discard):
            self._tensors.pop(effect.key, None)
        else:
            self._end_sample(effect)

    def _tensors_of(self, key: SampleKey) -> Held:
        """Give what this worker holds of a sample: activations, a result, or the input of a sample of its own."""
        held = self._tensors.get(key)
        if held is not None:
            return held
        # None for an attempt that is over: it fails, and nobody minds.
        if self._deploy.live:
            return self._submitted.get((key.source, key.sample), {})
        pool = self._inputs.get(key.source)
        return pool[key.sample % len(pool)] if pool else {}

    def _begin_s(self) -> float:
        # A paced block that follows another begins when that one ends, not when it has been noticed.
        return self._free_s if self._deploy.paced and self._free_s is not None else time.monotonic()

    def _lasts_s(self, run: RunBlock) -> float | None:
        if not self._deploy.paced:
            return None
        block_s, overhead_s = self._block_s[run.model]
        return float(block_s[run.block]) + (overhead_s if run.begins_stage else 0.0)

    def _send(self, send: Send) -> None:
        message, now_s = send.message, self.now_s
        transfer = f"{self.name}/{next(self._transfers)}" if self._deploy.emulated else None
        if transfer is not None:
            request = Transmit(
                transfer=transfer, sender=self.name, to=send.to, key=message.key, cut=send.cut,
                size_bytes=send.size_bytes, priority=send.priority, at_s=now_s,
            )  # fmt: skip
            self._send_frame(COORDINATOR, Frame(request), CONTROL)
        data = Data(
            run=self._deploy.run, sender=self.name, message=message, cut=send.cut, size_bytes=send.size_bytes,
            sent_s=now_s, transfer=transfer,
        )  # fmt: skip
        self._send_data(send.to, data, self._payload(message), self._levels[send.priority])

    def _send_data(self, to: str, data: Data, tensors: Tensors, level: int) -> None:
        """Send data to a worker, by way of others where the scenario's path leads over them."""
        hop = self._next_hop(to)
        if hop != to:
            data = data.model_copy(update={"to": to, "level": level})
        self._send_frame(hop, Frame(data, tensors), level)

    def _next_hop(self, to: str) -> str:
        # An emulated network plays all hops by itself.
        path = None if self._deploy.emulated else self._instance.path(self.name, to)
        return path.hops[0].receiver if path is not None and path.hops else to

    def _payload(self, parcel: Parcel) -> Tensors:
        """Give the tensors that travel with a message: an exit's result stays behind where its sample goes on."""
        if isinstance(parcel, TaskMessage):
            return _named(self._tensors_of(parcel.key), self._cut(parcel.task.model, parcel.task.next_block))
        if isinstance(parcel, ResultMessage):
            return self._result(parcel.key, parcel.origin)
        return {}

    def _result(self, key: SampleKey, origin: Origin | None) -> Tensors:
        """Give the tensors of a result, out of all that this worker holds of its sample."""
        held = self._tensors_of(key)
        if origin is None:
            return fetch(held)
        return _named(held, self._cut(origin.model, -1) if origin.exit is None else (origin.exit,))

    def _cut(self, model: str, cut: int) -> tuple[str, ...]:
        return tuple(spec.name for spec in self._deploy.models[model].cuts[cut])

    def _end_sample(self, effect: Complete | Fail) -> None:
        key = effect.key
        outputs: Tensors = {}
        if isinstance(effect, Complete):
            outputs = self._result(key, effect.origin)
            self._tensors.pop(key)
        record = sample_record(effect, self.now_s)
        ended = Ended(run=self._deploy.run, worker=self.name, sample=record)
        if self._deploy.live:
            self._submitted.pop((key.source, key.sample), None)
            self._send_frame(COORDINATOR, Frame(ended, outputs), self._levels[self._priority(key.source)])
            return
        if outputs:
            self.outputs[key.source, key.sample] = self._shared(key, outputs)
        self.records.append(record)
        self._send_frame(COORDINATOR, Frame(ended), CONTROL)

    def _priority(self, source: str) -> float:
        return self._instance.scenario.sources[source].priority

    def _shared(self, key: SampleKey, outputs: Tensors) -> Tensors:
        """Give the equal outputs that are kept already, if there are any: a long run has few distinct inputs."""
        entry = (key.source, key.sample % len(self._inputs[key.source]), tuple(outputs))
        known = self._distinct.setdefault(entry, outputs)
        return known if all(np.array_equal(known[name], outputs[name]) for name in outputs) else outputs
