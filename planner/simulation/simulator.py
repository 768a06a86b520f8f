"""Simulator: drives the same workers as the agents, in virtual time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from typing import Final

from planner.plan.replan import Replan
from planner.plan.types import PlanSpec
from planner.policy.costs import CostTable
from planner.policy.registry import make_policy
from planner.policy.types import RUN_STRIDE, Policy
from planner.scenario.arrivals import instance_arrivals
from planner.scenario.instance import Instance
from planner.scenario.run_times import RunTimes
from planner.scenario.types import EventSpec
from planner.simulation.device import Device
from planner.simulation.event_heap import EventHeap
from planner.simulation.exits import Exits
from planner.simulation.hosts import Hosts
from planner.simulation.sequences import Sequences
from planner.simulation.transfers import Transfers
from planner.trace.records import BlockRecord, Record, SampleRecord
from planner.worker.events import (
    Arrived,
    BlockEnded,
    BlockFailed,
    Complete,
    Effect,
    Event,
    Fail,
    FeedBack,
    Joined,
    Left,
    Received,
    Replanned,
    Reprioritised,
    RunBlock,
    Send,
    SetTimer,
    Tell,
    TimedOut,
    sample_record,
)
from planner.worker.pace import Slowed
from planner.worker.patience import Patience
from planner.worker.worker import Worker

DETECTION_S: Final = 0.1
"""Time after which workers notice that one left or joined; on a real network liveliness tokens decide."""

REPLANNING_S: Final = 0.5
"""Time from noticing that a worker left, joined or slowed down to the new plan."""


@dataclass(frozen=True)
class Simulation:
    """Results of a simulated run, in addition to the records passed to the sink."""

    events: int
    """Number of events that workers handled, plus number of transfers."""
    end_s: float
    network_busy_s: dict[str, float]


class Simulator:
    """One run of an instance under one policy.

    Parameters
    ----------
    sink
        Called with each record as it occurs.
    patience
        When sources try again. By default they wait forever: messages are lost only with a worker that leaves, and the
        sources are informed of that.
    make
        Creates the policy of each worker instead of ``policy``, for policies with other options.
    replan
        Adapts the plan when workers leave, come back or slow down. By default the plan stays, without the routes over
        absent workers.
    factors
        Relative times of successive blocks of each worker; see :class:`~planner.simulation.device.Device`.
    """

    def __init__(
        self,
        instance: Instance,
        *,
        policy: str,
        plan: PlanSpec | None,
        seed: int,
        sink: Callable[[Record], None],
        patience: Patience | None = None,
        make: Callable[[], Policy] | None = None,
        replan: Replan | None = None,
        factors: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        self._instance = instance
        self._make = make or partial(make_policy, policy, instance, plan)
        self._replan = replan
        self._slowed = Slowed(instance.scenario.policy.pace)
        self._watched: set[str] = set()
        self._seed = seed
        self._sink = sink
        self._patience = patience or Patience(first_s=inf)
        self._costs = CostTable(instance)
        self._heap = EventHeap()
        self._factors = factors or {}
        self._devices = {name: self._new_device(name) for name in instance.workers}
        self._hosts = Hosts(instance) if instance.colocated else None
        self._exits = Exits(instance, seed)
        self._sequences = Sequences(instance)
        self._generating = self._sequences.sources
        self._transfers = Transfers(instance, self._heap, self._devices, self._sequences, hand=self._step, sink=sink)
        self._run_times = RunTimes(instance)
        self._workers = {name: self._new_worker(name) for name in instance.workers}
        self._handlers: dict[type, Callable[[Worker, Effect], None]] = {
            RunBlock: self._on_run,  # type: ignore[dict-item]  # each handler takes the effect it is listed under
            Send: self._on_send,  # type: ignore[dict-item]
            Tell: self._on_tell,  # type: ignore[dict-item]
            SetTimer: self._on_timer,  # type: ignore[dict-item]
            Complete: self._on_end,  # type: ignore[dict-item]
            Fail: self._on_end,  # type: ignore[dict-item]
            FeedBack: self._on_feed_back,  # type: ignore[dict-item]
        }
        self._priorities: dict[str, float] = {}
        self._events = 0
        self._end_s = 0.0

    def run(self) -> Simulation:
        """Run until no events are left; a sample that has not ended is reported as failed."""
        for source in self._instance.sources:
            times = instance_arrivals(self._instance, source, self._seed)
            self._arrive_next(source, self._instance.home(source), enumerate(times))
        for event in self._instance.scenario.events:
            self._heap.at(event.at_s, self._disturb, event)
        self._heap.run_all()
        for worker in list(self._workers.values()):
            self._fail_pending(worker, "never ended: a network did not come back, or the policy left it waiting")
        return Simulation(self._events + self._transfers.delivered, self._end_s, self._transfers.busy_s())

    def _new_device(self, name: str) -> Device:
        return Device(self._instance, name, self._seed, self._factors.get(name, ()))

    def _new_worker(self, name: str) -> Worker:
        return Worker(name, self._instance, self._make(), self._patience, self._costs)

    def _arrive_next(self, source: str, home: str, times: Iterator[tuple[int, float]]) -> None:
        sample, time_s = next(times, (-1, 0.0))
        if sample >= 0:
            self._heap.at(time_s, self._arrive, source, home, times, sample, time_s)

    def _arrive(self, source: str, home: str, times: Iterator[tuple[int, float]], sample: int, time_s: float) -> None:
        self._arrive_next(source, home, times)
        worker = self._workers.get(home)
        if worker is None:
            self._sink(SampleRecord(source, sample, time_s, time_s, "failed", f"{home} was absent"))
        elif source in self._generating:
            self._begin(home, source, self._sequences.arrive(source, sample, time_s))
        else:
            self._step_worker(worker, Arrived(source, sample))

    def _step(self, name: str, event: Event) -> None:
        """Hand an event to whoever has a worker's name now."""
        worker = self._workers.get(name)
        if worker is not None:
            self._step_worker(worker, event)

    def _step_same(self, worker: Worker, event: Event) -> None:
        """Handle an event of this very worker, unless it has left, even if a worker of its name came back."""
        if self._workers.get(worker.name) is worker:
            self._step_worker(worker, event)

    def _step_worker(self, worker: Worker, event: Event) -> None:
        self._events += 1
        handlers = self._handlers
        for effect in worker.step(self._heap.now_s, event):
            handler = handlers.get(type(effect))
            if handler is not None:
                handler(worker, effect)

    # ---- effects --------------------------------------------------------------------------------------------------

    def _on_run(self, worker: Worker, run: RunBlock) -> None:
        device = self._devices[worker.name]
        if device.free:
            self._start_block(worker, device, run)
        else:
            device.hold(partial(self._start_block, worker, device, run))

    def _start_block(self, worker: Worker, device: Device, run: RunBlock) -> None:
        start_s = self._heap.now_s
        if run.key.source in self._generating:
            self._start_run(worker, device, run)
            return
        service_s = device.service_s(run)
        if self._hosts is not None:
            service_s *= self._hosts.begin(worker.name, run)
        self._heap.at(start_s + service_s, self._end_block, worker, run, start_s, service_s)

    def _start_run(self, worker: Worker, device: Device, run: RunBlock) -> None:
        """Start a block in a run of a sequence, whose state has to be here."""
        start_s, name = self._heap.now_s, worker.name
        blocks = range(run.block, run.session_end + 1)
        if not self._sequences.has_state(run.key.source, run.key.sample, name, blocks):
            failed = BlockFailed(run.key, run.block, "the state of the sequence is not here")
            self._heap.at(start_s, self._step_same, worker, failed)
            return
        tokens = self._sequences.run(run.key.source, run.key.sample)
        mean_s = None if tokens is None else float(self._run_times.block_s(run.model, name, tokens)[run.block])
        service_s = device.service_s(run, mean_s)
        if self._hosts is not None:
            service_s *= self._hosts.begin(name, run)
        counted_s = service_s
        if tokens is not None:
            counted_s = self._run_times.as_typical(run.model, name, tokens, run.block, service_s)
        self._heap.at(start_s + service_s, self._end_block, worker, run, start_s, counted_s)

    def _end_block(self, worker: Worker, run: RunBlock, start_s: float, service_s: float) -> None:
        name, key = worker.name, run.key
        if self._hosts is not None:
            self._hosts.end(name)
        if self._workers.get(name) is not worker:
            return
        source, sample = key.source, key.sample % RUN_STRIDE
        first, last, others = run.block, run.session_end, run.others
        joined = last if last > first else None
        record = BlockRecord(name, source, sample, first, start_s, self._heap.now_s, joined, 1 + len(others))
        self._sink(record)
        for other in others:
            self._sink(replace(record, source=other.source, sample=other.sample))
        confidence = self._exits.confidence(run) if run.model in self._exits.models else ()
        self._step_worker(worker, BlockEnded(key, last, service_s, confidence))
        if self._replan is not None:
            self._check_slowness(worker)

    def _on_send(self, worker: Worker, send: Send) -> None:
        self._transfers.send(worker.name, send)

    def _on_tell(self, worker: Worker, tell: Tell) -> None:
        latency_s = self._costs.latency_s(worker.name, tell.to)
        if latency_s < inf:
            self._heap.at(self._heap.now_s + latency_s, self._step, tell.to, Received(worker.name, tell.message))

    def _on_timer(self, worker: Worker, timer: SetTimer) -> None:
        self._heap.at(timer.at_s, self._step_same, worker, TimedOut(timer.timer))

    def _on_feed_back(self, _: Worker, effect: FeedBack) -> None:
        self._sequences.feed_back(effect.key, effect.of)

    def _on_end(self, worker: Worker, effect: Complete | Fail) -> None:
        now_s, source = self._heap.now_s, effect.key.source
        self._end_s = now_s
        if source not in self._generating:
            self._sink(self._exits.with_correctness(sample_record(effect, now_s)))
            return
        ended = self._sequences.ended(effect, now_s)
        if isinstance(ended, int):
            self._heap.at(now_s, self._step_same, worker, self._sequences.arrival(source, ended))
        elif ended is not None:
            self._sink(ended)
            self._heap.at(now_s, self._begin_next, worker, source)

    def _begin(self, home: str, source: str, number: int | None) -> None:
        """Begin a run of a sequence, if one may begin."""
        if number is not None:
            self._step(home, self._sequences.arrival(source, number))

    def _begin_next(self, worker: Worker, source: str) -> None:
        if self._workers.get(worker.name) is worker:
            self._begin(worker.name, source, self._sequences.begin_next(source))

    # ---- events of the scenario -----------------------------------------------------------------------------------

    def _disturb(self, event: EventSpec) -> None:
        if event.worker is not None:
            self._disturb_worker(event.worker, event)
        elif event.network is not None:
            self._transfers.disturb(event.network, event)
        elif event.source is not None and event.priority is not None:
            self._priorities[event.source] = event.priority
            self._step(self._instance.home(event.source), Reprioritised(event.source, event.priority))

    def _disturb_worker(self, name: str, event: EventSpec) -> None:
        if event.action == "slow" and event.factor is not None:
            self._devices[name].slowness = event.factor
        elif event.action == "recover":
            self._devices[name].slowness = 1.0
        elif event.action == "leave" and name in self._workers:
            self._fail_pending(self._workers.pop(name), f"{name} left")
            self._sequences.lose(name)
            self._send_all(name, Left(name))
        elif event.action == "join" and name not in self._workers:
            device = self._new_device(name)
            device.take_over(self._devices[name])
            self._devices[name] = device
            self._workers[name] = worker = self._new_worker(name)
            for other in self._instance.workers:
                if other not in self._workers:
                    self._step_worker(worker, Left(other))
            for source, priority in self._priorities.items():
                if self._instance.home(source) == name:
                    self._step_worker(worker, Reprioritised(source, priority))
            self._send_all(name, Joined(name))

    def _send_all(self, name: str, event: Left | Joined) -> None:
        for other in self._workers.values():
            if other.name != name:
                self._heap.at(self._heap.now_s + DETECTION_S, self._step_same, other, event)
        self._schedule_replanning()

    def _check_slowness(self, worker: Worker) -> None:
        name, now_s = worker.name, self._heap.now_s
        if self._slowed.told(name, worker.slowness(now_s)):
            self._schedule_replanning()
        if name in self._slowed.slowness and name not in self._watched:
            self._watched.add(name)
            again_s = now_s + self._instance.scenario.policy.pace.memory_s
            self._heap.at(again_s, self._check_slowness_again, worker)

    def _check_slowness_again(self, worker: Worker) -> None:
        """Check a slow worker again, because a worker without work no longer reports its speed."""
        self._watched.discard(worker.name)
        self._check_slowness(worker)

    def _schedule_replanning(self) -> None:
        """Distribute a new plan after a while, unless workers leave, come back or slow down before."""
        if self._replan is not None:
            due_s = self._heap.now_s + DETECTION_S + REPLANNING_S
            self._heap.at(due_s, self._follow_new_plan, self._replan, self._absent(), self._slowed.slowness)

    def _absent(self) -> frozenset[str]:
        return frozenset(self._instance.workers).difference(self._workers)

    def _follow_new_plan(self, replan: Replan, absent: frozenset[str], slowness: Mapping[str, float]) -> None:
        unchanged = (absent, slowness) == (self._absent(), self._slowed.slowness)
        plan = replan(absent, slowness) if unchanged else None
        if plan is not None:
            for worker in list(self._workers.values()):
                self._step_worker(worker, Replanned(plan, dict(slowness)))

    def _fail_pending(self, worker: Worker, reason: str) -> None:
        for key, created_s in worker.pending.items():
            fail = Fail(key, created_s, reason)
            if key.source in self._generating:
                self._end_s = self._heap.now_s
                self._sink(self._sequences.fail(fail, self._heap.now_s))
            else:
                self._on_end(worker, fail)
        for source in self._instance.sources:
            if source in self._generating and self._instance.home(source) == worker.name:
                for record in self._sequences.fail_waiting(source, self._heap.now_s, reason):
                    self._sink(record)


def simulate(
    instance: Instance, *, policy: str, plan: PlanSpec | None = None, seed: int = 0, replan: Replan | None = None
) -> tuple[list[Record], Simulation]:
    """Simulate one run and return its records, for runs that fit into memory; see :class:`Simulator`."""
    records: list[Record] = []
    simulation = Simulator(instance, policy=policy, plan=plan, seed=seed, sink=records.append, replan=replan).run()
    return records, simulation
