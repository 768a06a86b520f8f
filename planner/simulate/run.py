"""The virtual-time driver: the same workers that agents drive, with computed instead of measured times."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from planner.errors import UsageError
from planner.plan.types import Plan
from planner.policy.registry import make_policy
from planner.scenario.arrivals import instance_arrivals
from planner.scenario.instance import Hop, Instance
from planner.simulate.heap import EventHeap
from planner.simulate.network import Network
from planner.trace.records import BlockRecord, Record, TransferRecord
from planner.worker.events import (
    Arrived,
    BlockEnded,
    Complete,
    Effect,
    Event,
    Fail,
    Received,
    RunBlock,
    Send,
    SetTimer,
    TimedOut,
    sample_record,
)
from planner.worker.worker import Patience, Worker


@dataclass(frozen=True)
class Simulation:
    """What a simulated run gave, beyond the records that went to the sink."""

    events: int
    """Events that workers took."""
    end_s: float
    network_busy_s: dict[str, float]


class Simulator:
    """One run of an instance under one policy.

    Parameters
    ----------
    sink
        Takes each record as it comes about.
    observe
        Told ``(worker, now_s, event, effects)`` of every step; for tests and logs.
    patience
        When sources try again.
    """

    def __init__(
        self,
        instance: Instance,
        *,
        policy: str,
        plan: Plan | None,
        seed: int,
        sink: Callable[[Record], None],
        observe: Callable[[str, float, Event, list[Effect]], None] | None = None,
        patience: Patience | None = None,
    ) -> None:
        self._instance = instance
        self._seed = seed
        self._sink = sink
        self._observe = observe
        self._heap = EventHeap()
        self._network = Network(self._heap, instance.resources, self._record_transfer)
        self._workers = {name: Worker(name, instance, make_policy(policy, plan), patience) for name in instance.workers}
        self._block_s = {
            (worker, model): (instance.block_s(model, worker).tolist(), instance.stage_overhead_s(model, worker))
            for model in instance.profiles
            for worker in instance.workers
        }
        self._events = 0
        self._end_s = 0.0

    def run(self) -> Simulation:
        """Run until every sample has ended."""
        for source in self._instance.sources:
            times = instance_arrivals(self._instance, source, self._seed)
            self._arrive_next(source, self._instance.home(source), enumerate(times))
        while self._heap.next_s < float("inf"):
            self._heap.run_next()
        return Simulation(self._events, self._end_s, self._network.busy_s())

    def _arrive_next(self, source: str, home: str, times: Iterator[tuple[int, float]]) -> None:
        sample, time_s = next(times, (-1, 0.0))
        if sample < 0:
            return

        def arrive() -> None:
            self._arrive_next(source, home, times)
            self._step(home, Arrived(source, sample))

        self._heap.at(time_s, arrive)

    def _step(self, worker: str, event: Event) -> None:
        now_s = self._heap.now_s
        effects = self._workers[worker].step(now_s, event)
        self._events += 1
        if self._observe is not None:
            self._observe(worker, now_s, event, effects)
        for effect in effects:
            if isinstance(effect, RunBlock):
                self._compute(worker, effect)
            elif isinstance(effect, Send):
                self._send(worker, effect)
            elif isinstance(effect, SetTimer):
                self._heap.at(effect.at_s, partial(self._step, worker, TimedOut(effect.key)))
            elif isinstance(effect, Complete | Fail):
                self._end_sample(effect)

    def _compute(self, worker: str, run: RunBlock) -> None:
        block_s, overhead_s = self._block_s[worker, run.model]
        start_s = self._heap.now_s
        end_s = start_s + block_s[run.block] + (overhead_s if run.begins_stage else 0.0)

        def end() -> None:
            self._sink(BlockRecord(worker, run.key.source, run.key.sample, run.block, start_s, end_s))
            self._step(worker, BlockEnded(run.key, run.block))

        self._heap.at(end_s, end)

    def _send(self, worker: str, send: Send) -> None:
        path = self._instance.path(worker, send.to)
        if path is None:
            raise UsageError("no network joins two workers that exchange data", where=f"{worker} and {send.to}")
        received = partial(self._step, send.to, Received(worker, send.message))
        self._network.submit(path, send.size_bytes, send.priority, lambda at_s: self._heap.at(at_s, received), send)

    def _record_transfer(self, hop: Hop, start_s: float, end_s: float, send: Send) -> None:
        key = send.message.key
        self._sink(
            TransferRecord(
                hop.resource,
                hop.sender,
                hop.receiver,
                key.source,
                key.sample,
                send.cut,
                send.size_bytes,
                start_s,
                end_s,
            )
        )

    def _end_sample(self, effect: Complete | Fail) -> None:
        self._end_s = self._heap.now_s
        self._sink(sample_record(effect, self._heap.now_s))


def simulate(
    instance: Instance, *, policy: str, plan: Plan | None = None, seed: int = 0
) -> tuple[list[Record], Simulation]:
    """Simulate one run and give its records, for runs that fit into memory."""
    records: list[Record] = []
    outcome = Simulator(instance, policy=policy, plan=plan, seed=seed, sink=records.append).run()
    return records, outcome
