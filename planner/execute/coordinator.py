"""The coordinator: deploys one run to agents, starts it, waits for its end and collects what happened."""

from __future__ import annotations

import contextlib
import queue
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import Final

import numpy as np

from planner.errors import ExecuteError
from planner.execute.deployment import Deployment, Emulation, refuse_too_fast
from planner.execute.driver import urgency_levels
from planner.execute.inquiries import Echo
from planner.execute.ledger import Ledger
from planner.execute.messages import (
    Admit,
    BlockFile,
    Body,
    Deploy,
    Ended,
    Fault,
    Frame,
    Input,
    Load,
    Missing,
    Output,
    Ready,
    Report,
    Start,
    Stop,
    Submit,
    Tensors,
    Transmit,
)
from planner.execute.recovery import Recovery
from planner.execute.transport import CONTROL, Connect
from planner.scenario.instance import Instance
from planner.trace.records import Incident, Record, SampleRecord, decode_records
from planner.worker.events import STEPS, Step

_START_DELAY_S: Final = 0.3
_STALL_S: Final = 60.0
"""A run in which no sample ended for so long, beyond the longest mean time between arrivals, is stopped."""

_TRIPS: Final = 5
_TRIP_PATIENCE_S: Final = 0.5


class Observer:
    """Is told what goes on while a run does, in the coordinator's thread; this one lets all pass."""

    def started(self, submit: Callable[[str, int, Tensors], None]) -> None:
        """Learn that the run has started; ``submit(source, sample, inputs)`` hands in a sample of a live run."""

    def ended(self, sample: SampleRecord, outputs: Tensors) -> None:
        """Learn that a sample ended; its outputs are there in a live run only."""

    def told(self, load: Load) -> None:
        """Learn how busy a worker is."""

    def left(self, worker: str) -> None:
        """Learn that a worker is gone from the run, or is not there when it starts."""

    def joined(self, worker: str) -> None:
        """Learn that a worker that was gone is in the run again."""


@dataclass
class Measurement:
    """What a real run gave."""

    records: list[Record] = field(default_factory=list)
    outputs: dict[tuple[str, int], Tensors] = field(default_factory=dict)
    """Output tensors of each completed sample, by source and sample."""
    steps: dict[str, list[Step]] = field(default_factory=dict)
    """Each worker's log."""
    duplicates: int = 0
    late_blocks: dict[str, int] = field(default_factory=dict)
    """Of each worker, how many blocks took its host longer than the scenario allows."""
    waited_s: dict[str, float] = field(default_factory=dict)
    """Of each worker, how long its computing thread stood ready and got no processor."""
    warm_block_s: dict[str, dict[str, tuple[float, ...]]] = field(default_factory=dict)
    """For each worker and model, the shortest time of each resident block on this host, in seconds."""
    left: list[str] = field(default_factory=list)
    """Workers that were gone before the end."""
    incidents: list[Incident] = field(default_factory=list)
    """What went wrong, and what came right again, in order of time."""
    start_unix_s: float = 0.0
    """Time of the wall clock, in seconds since 1970, at which the run's clock read 0."""


@dataclass(frozen=True)
class _Watched:
    """A run that is on."""

    deployment: Deployment
    name: str
    recovery: Recovery
    ledger: Ledger
    observer: Observer


class Coordinator:
    """A member that runs deployments on agents; use it as a context manager."""

    def __init__(self, connect: Connect) -> None:
        self._inbox: queue.SimpleQueue[Frame | tuple[str, bool] | None] = queue.SimpleQueue()
        self._present: set[str] = set()
        self._emulation: Emulation | None = None
        self._stopping = False
        self._ahead_s: dict[str, float] = {}
        self._transport = connect(self._on_frame, lambda member, present: self._inbox.put((member, present)))

    def __enter__(self) -> Coordinator:
        return self

    def __exit__(self, *_: object) -> None:
        self._transport.close()

    def _on_frame(self, frame: Frame) -> None:
        # Requests to the emulated network are time-critical and skip the inbox.
        if isinstance(frame.body, Transmit) and self._emulation is not None:
            self._emulation.transmit(frame.body)
        else:
            self._inbox.put(frame)

    def stop(self) -> None:
        """End a live run; called in any thread."""
        self._inbox.put(None)

    def _next(self, timeout_s: float) -> Frame | None:
        """Give the next frame, or None when a member came or went, or the run is to stop.

        Raises
        ------
        TimeoutError
            Nothing came in time.
        """
        try:
            item = self._inbox.get(timeout=max(timeout_s, 0.0))
        except queue.Empty:
            raise TimeoutError from None
        if item is None:
            self._stopping = True
            return None
        if isinstance(item, Frame):
            return item
        member, present = item
        (self._present.add if present else self._present.discard)(member)
        return None

    def await_agents(self, names: Sequence[str], timeout_s: float) -> None:
        """Wait until all agents are there.

        Raises
        ------
        ExecuteError
            Some did not come in time.
        """
        deadline_s = time.monotonic() + timeout_s
        try:
            while self.absent(names):
                self._next(deadline_s - time.monotonic())
        except TimeoutError:
            absent = ", ".join(self.absent(names))
            raise ExecuteError(f"agents did not come within {timeout_s:g} s", where="workers", value=absent) from None

    def absent(self, names: Iterable[str]) -> list[str]:
        """Give those of these agents that are not there."""
        return [name for name in names if name not in self._present]

    def run(self, deployment: Deployment, *, ready_timeout_s: float, observer: Observer | None = None) -> Measurement:
        """Deploy, run, and collect: until every sample has ended, a live run until :meth:`stop`.

        Raises
        ------
        ExecuteError
            An agent could not make ready; or this host is slower than a worker it plays.
        """
        measurement = Measurement()
        observer = observer or Observer()
        run = uuid.uuid4().hex
        self._stopping = False
        recovery = Recovery(deployment, run, send=self._send, deploy=partial(self._deploy, deployment, run))
        recovery.do_without(deployment.later - self._present)
        workers = [worker for worker in deployment.instance.workers if worker not in recovery.out]
        self._ahead_s = self._compare_clocks(workers)
        for worker in workers:
            self._deploy(deployment, run, worker)
        measurement.warm_block_s = self._serve_until_ready(deployment, recovery, ready_timeout_s)
        if deployment.paced:
            refuse_too_fast(deployment.instance, measurement.warm_block_s)
        measurement.start_unix_s = recovery.start_unix_s = self._start(deployment, run, recovery.out)
        watched = _Watched(deployment, run, recovery, Ledger(deployment.instance, deployment.seed), observer)
        for worker in sorted(recovery.out):
            observer.left(worker)
        observer.started(partial(self._submit, deployment.instance, run))
        try:
            self._watch(watched)
        finally:
            recovery.close()
            if deployment.emulation is not None:
                self._emulation = None
                measurement.records.extend(deployment.emulation.stop())
        self._collect(watched, measurement)
        measurement.incidents = recovery.incidents
        if not deployment.live:
            measurement.records += watched.ledger.records(recovery.left_s, recovery.now_s)
        return measurement

    def _compare_clocks(self, workers: Sequence[str]) -> dict[str, float]:
        """Give how far each worker's wall clock is ahead of ours, in seconds, from its quickest round trip.

        What a round trip cannot tell from none counts as none; so does the clock of a worker that does not answer.
        """
        ahead_s = {}
        for worker in workers:
            trips = [trip for number in range(_TRIPS) if (trip := self._round_trip(worker, number)) is not None]
            if trips:
                took_s, found_s = min(trips)
                ahead_s[worker] = found_s if abs(found_s) > took_s / 2 else 0.0
        return ahead_s

    def _round_trip(self, worker: str, number: int) -> tuple[float, float] | None:
        """Give the time of a round trip, and how far the worker's clock is ahead by it; None without an answer."""
        sent_s = time.time()
        self._send(worker, Echo(number=number))
        with contextlib.suppress(TimeoutError):
            while (left_s := sent_s + _TRIP_PATIENCE_S - time.time()) > 0:
                frame = self._next(left_s)
                body = frame.body if frame is not None and frame.sender == worker else None
                if isinstance(body, Echo) and body.back and body.number == number:
                    now_s = time.time()
                    return now_s - sent_s, body.unix_s - (sent_s + now_s) / 2
        return None

    def _send(self, worker: str, body: Body) -> None:
        if isinstance(body, Start):
            body = body.model_copy(update={"at_unix_s": body.at_unix_s + self._ahead_s.get(worker, 0.0)})
        self._transport.send(worker, Frame(body), CONTROL)

    def _deploy(self, deployment: Deployment, run: str, worker: str) -> None:
        deploy = Deploy(
            run=run,
            instance=deployment.instance,
            plan=deployment.plan,
            policy=deployment.policy,
            seed=deployment.seed,
            models=dict(deployment.models),
            resident=dict(deployment.resident.get(worker, {})),
            paced=deployment.paced,
            emulated=deployment.emulation is not None,
            sent=tuple(deployment.sent),
            live=deployment.live,
        )
        self._send(worker, deploy)
        for source, samples in deployment.sent.items():
            if deployment.instance.home(source) == worker:
                for inputs in samples:
                    self._transport.send(worker, Frame(Input(run=run, source=source), inputs), CONTROL)

    def _serve_until_ready(
        self, deployment: Deployment, recovery: Recovery, timeout_s: float
    ) -> dict[str, dict[str, tuple[float, ...]]]:
        deadline_s = time.monotonic() + timeout_s
        ready: dict[str, dict[str, tuple[float, ...]]] = {}
        workers = [worker for worker in deployment.instance.workers if worker not in recovery.out]
        while waiting := [worker for worker in workers if worker not in ready]:
            try:
                frame = self._next(deadline_s - time.monotonic())
            except TimeoutError:
                raise ExecuteError(
                    f"agents not ready within {timeout_s:g} s", where="workers", value=", ".join(waiting)
                ) from None
            if self._stopping:
                raise ExecuteError("stopped before the agents were ready", where="coordinator")
            if absent := self.absent(workers):
                raise ExecuteError("agents left before the run started", where="workers", value=", ".join(absent))
            body = frame.body if frame is not None else None
            if isinstance(body, Missing):
                self._serve_block(deployment, body)
            elif isinstance(body, Ready):
                ready[body.worker] = body.warm_block_s
            elif isinstance(body, Fault) and body.run is not None:
                raise ExecuteError(body.what, where=f"agent {body.worker}")
            elif isinstance(body, Fault):
                recovery.fault(body)
        return ready

    def _serve_block(self, deployment: Deployment, missing: Missing) -> None:
        data = np.frombuffer(deployment.blocks[missing.sha256], np.uint8)
        self._transport.send(missing.worker, Frame(BlockFile(sha256=missing.sha256), {"file": data}), CONTROL)

    def _start(self, deployment: Deployment, run: str, out: set[str]) -> float:
        """Tell all workers to start, and give the time of the wall clock at which they will."""
        at_unix_s = time.time() + _START_DELAY_S
        if deployment.emulation is not None:

            def admit(to: str, transfer: str, at_s: float) -> None:
                self._transport.send(to, Frame(Admit(run=run, transfer=transfer, at_s=at_s)), CONTROL)

            deployment.emulation.start(at_unix_s, admit)
            self._emulation = deployment.emulation
        for worker in deployment.instance.workers:
            if worker not in out:
                self._send(worker, Start(at_unix_s=at_unix_s, absent=tuple(sorted(out))))
        return at_unix_s

    def _submit(self, instance: Instance, run: str, source: str, sample: int, inputs: Tensors) -> None:
        spec = instance.scenario.sources[source]
        levels = urgency_levels({name: other.priority for name, other in instance.scenario.sources.items()})
        frame = Frame(Submit(run=run, source=source, sample=sample), inputs)
        self._transport.send(spec.worker, frame, levels[spec.priority])

    def _watch(self, run: _Watched) -> None:
        """Return when every sample whose home is still there has ended, or none has ended for long."""
        for worker in run.recovery.out & self._present:
            run.recovery.came(worker)
        patience_s = _patience_s(run.deployment)
        stalled_s = time.monotonic() + patience_s
        while not self._over(run) and time.monotonic() < stalled_s:
            present, out = set(self._present), set(run.recovery.out)
            try:
                frame = self._next(min(stalled_s - time.monotonic(), _STALL_S))
            except TimeoutError:
                continue
            for worker in present - self._present:
                run.recovery.left(worker)
            for worker in self._present - present:
                run.recovery.came(worker)
            if frame is not None and self._attend(run, frame):
                stalled_s = time.monotonic() + patience_s
            for worker in run.recovery.out - out:
                run.observer.left(worker)
            for worker in out - run.recovery.out:
                run.observer.joined(worker)

    def _attend(self, run: _Watched, frame: Frame) -> bool:
        """Take what an agent says while the run is on; tell whether a sample has ended."""
        body = frame.body
        if isinstance(body, Ended) and body.run == run.name:
            if run.deployment.live or run.ledger.add(body.sample):
                run.observer.ended(body.sample, frame.tensors)
            return True
        if isinstance(body, Load) and body.run == run.name:
            run.observer.told(body)
        elif isinstance(body, Missing):
            self._serve_block(run.deployment, body)
        elif isinstance(body, Ready):
            run.recovery.ready(body.worker)
        elif isinstance(body, Fault):
            run.recovery.fault(body)
        return False

    def _over(self, run: _Watched) -> bool:
        if run.deployment.live:
            return self._stopping
        instance = run.deployment.instance
        return all(
            run.ledger.complete(source) or not run.recovery.awaits(instance.home(source)) for source in instance.sources
        )

    def _collect(self, run: _Watched, measurement: Measurement) -> None:
        measurement.left = sorted(run.recovery.out)
        waiting = set(run.deployment.instance.workers) - run.recovery.out
        for worker in waiting:
            self._send(worker, Stop())
        while waiting:
            try:
                frame = self._next(_STALL_S)
            except TimeoutError:
                measurement.left += sorted(waiting)
                return
            if frame is not None:
                self._take(frame.body, frame.tensors, run, measurement)
                if isinstance(frame.body, Report):
                    waiting.discard(frame.body.worker)
            waiting &= self._present

    @staticmethod
    def _take(body: Body, tensors: Tensors, run: _Watched, measurement: Measurement) -> None:
        if isinstance(body, Output):
            measurement.outputs[body.source, body.sample] = tensors
        elif isinstance(body, Ended) and body.run == run.name and not run.deployment.live:
            run.ledger.add(body.sample)
        elif isinstance(body, Report):
            for record in decode_records(tensors["records"].tobytes()):
                if isinstance(record, SampleRecord):
                    run.ledger.add(record)
                else:
                    measurement.records.append(record)
            measurement.steps[body.worker] = STEPS.validate_json(tensors["steps"].tobytes())
            measurement.duplicates += body.duplicates
            measurement.late_blocks[body.worker] = body.late_blocks
            measurement.waited_s[body.worker] = body.waited_s


def _patience_s(deployment: Deployment) -> float:
    """Give how long no sample may end before a run counts as stalled; a live run waits for ever."""
    rates = [source.rate_per_s for source in deployment.instance.scenario.sources.values() if source.rate_per_s]
    return inf if deployment.live else _STALL_S + 10 / min(rates, default=1.0)
