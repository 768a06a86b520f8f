"""One run, as the coordinator conducts it: deployed, started, watched until its end, collected."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from typing import Final

import numpy as np

from planner.errors import ExecuteError
from planner.execution.coordinator.clock_offsets import ClockOffsets
from planner.execution.coordinator.collected import keep_records
from planner.execution.coordinator.completions import CompletionTracker
from planner.execution.coordinator.deployment import Deployment, check_host_speed
from planner.execution.coordinator.failover import Failover
from planner.execution.coordinator.membership import Membership
from planner.execution.coordinator.run_result import Observer, RunResult
from planner.execution.wire.checks import Refusals, check_end, check_load, check_log, check_output, check_ready
from planner.execution.wire.diagnostics import Echo
from planner.execution.wire.frames import Frame, Tensors
from planner.execution.wire.messages import (
    Admit,
    BlockFile,
    Body,
    Deploy,
    Ended,
    Input,
    Load,
    Log,
    Missing,
    Output,
    Ready,
    Refused,
    Report,
    Start,
    Stop,
    Submit,
    WorkerFault,
)
from planner.execution.wire.transport import urgency_levels

_START_DELAY_S: Final = 0.3
_STALL_S: Final = 60.0
"""A run in which no sample ended for so long, beyond the longest mean time between arrivals, is stopped."""

_CLOCKS_S: Final = 1.0
"""How long to wait for the workers' clocks."""

_WarmBlockS = dict[str, tuple[float, ...]]


class RunController:
    """One run on agents; made for :meth:`run`, once."""

    def __init__(self, members: Membership, deployment: Deployment, observer: Observer) -> None:
        self._members = members
        self._deployment = deployment
        self._observer = observer
        self._name = uuid.uuid4().hex
        self._clocks = ClockOffsets(members.send)
        self._ledger = CompletionTracker(deployment.instance, deployment.seed)
        self._recovery = Failover(deployment, self._name, send=self._send, deploy=self._bring_in, call=members.call)
        self._refusals = Refusals(self._recovery.refused)
        self._levels = urgency_levels({name: s.priority for name, s in deployment.instance.scenario.sources.items()})
        self._measurement = RunResult()

    def run(self, ready_timeout_s: float) -> RunResult:
        """Deploy, run and collect, as :meth:`~planner.execution.coordinator.coordinator.Coordinator.run` says."""
        deployment, recovery, measurement = self._deployment, self._recovery, self._measurement
        with contextlib.closing(recovery):
            self._prepare(ready_timeout_s)
            self._start()
            try:
                self._watch()
            finally:
                if deployment.emulation is not None:
                    self._members.on_transmit = None
                    deployment.emulation.stop()
        self._collect()
        measurement.incidents = recovery.incidents
        if not deployment.live:
            measurement.records.extend(self._ledger.unreported(recovery.left_s, recovery.now_s))
        return measurement

    def _prepare(self, ready_timeout_s: float) -> None:
        """Deploy, and wait until all are ready."""
        deployment, recovery, measurement = self._deployment, self._recovery, self._measurement
        self._members.stopping = False
        recovery.open()
        recovery.do_without(deployment.later - self._members.present)
        self._compare_clocks()
        for worker in self._workers:
            self._deploy(worker)
        measurement.warm_block_s = self._serve_until_ready(ready_timeout_s)
        if deployment.paced:
            check_host_speed(deployment.instance, measurement.warm_block_s)

    @property
    def _workers(self) -> list[str]:
        """Those in the run."""
        return [worker for worker in self._deployment.instance.workers if worker not in self._recovery.out]

    def _send(self, worker: str, body: Body) -> None:
        if isinstance(body, Start):
            body = body.model_copy(update={"at_unix_s": body.at_unix_s + self._clocks.ahead_s(worker)})
        self._members.send(worker, body)

    # ---- before the start -------------------------------------------------------------------------------------------

    def _compare_clocks(self) -> None:
        for worker in self._workers:
            self._clocks.compare(worker)
        deadline_s = time.monotonic() + _CLOCKS_S
        with contextlib.suppress(TimeoutError):
            while not self._clocks.compared(self._workers):
                frame = self._members.next(deadline_s - time.monotonic())
                if frame is not None:
                    self._clocks.take(frame)

    def _bring_in(self, worker: str) -> None:
        """Deploy the run to a worker that comes while it is on."""
        self._clocks.compare(worker)
        self._deploy(worker)

    def _deploy(self, worker: str) -> None:
        deployment = self._deployment
        deploy = Deploy(
            run=self._name,
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
                    self._members.send(worker, Input(run=self._name, source=source), inputs)

    def _serve_until_ready(self, timeout_s: float) -> dict[str, _WarmBlockS]:
        deadline_s = time.monotonic() + timeout_s
        ready: dict[str, _WarmBlockS] = {}
        workers = self._workers
        while waiting := [worker for worker in workers if worker not in ready]:
            try:
                frame = self._members.next(deadline_s - time.monotonic())
            except TimeoutError:
                raise ExecuteError(
                    f"agents not ready within {timeout_s:g} s", where="workers", value=", ".join(waiting)
                ) from None
            if self._members.stopping:
                raise ExecuteError("stopped before the agents were ready", where="coordinator")
            if absent := self._members.absent(workers):
                raise ExecuteError("agents left before the run started", where="workers", value=", ".join(absent))
            body = frame.body if frame is not None else None
            if isinstance(body, Missing):
                self._serve_block(body)
            elif frame is not None and isinstance(body, Ready) and body.worker in workers:
                check_ready(self._deployment.models, frame, body)
                ready[body.worker] = body.warm_block_s
                self._measurement.steps.begin(body.worker)
            elif isinstance(body, WorkerFault) and body.run is not None:
                raise ExecuteError(body.what, where=f"agent {body.worker}")
            elif isinstance(body, WorkerFault):
                self._recovery.fault(body)
        return ready

    def _serve_block(self, missing: Missing) -> None:
        if missing.sha256 not in self._deployment.blocks:
            self._refusals.add(missing.worker, f"a block model that is not of this run: {missing.sha256}")
            return
        data = np.frombuffer(self._deployment.blocks[missing.sha256], np.uint8)
        self._members.send(missing.worker, BlockFile(sha256=missing.sha256), {"file": data})

    def _start(self) -> None:
        """Tell all workers to start at the same time."""
        emulation, out = self._deployment.emulation, self._recovery.out
        at_unix_s = time.time() + _START_DELAY_S
        self._measurement.start_unix_s = self._recovery.start_unix_s = at_unix_s
        if emulation is not None:
            emulation.start(at_unix_s, self._admit, self._measurement.records.append, self._members.fail)
            self._members.on_transmit = emulation.transmit
        for worker in self._workers:
            self._send(worker, Start(at_unix_s=at_unix_s, absent=tuple(sorted(out))))
        for worker in sorted(out):
            self._observer.left(worker)
        self._observer.started(self._submit)

    def _admit(self, to: str, transfer: str, at_s: float) -> None:
        self._members.send(to, Admit(run=self._name, transfer=transfer, at_s=at_s))

    def _submit(self, source: str, sample: int, inputs: Tensors) -> None:
        spec = self._deployment.instance.scenario.sources[source]
        submit = Submit(run=self._name, source=source, sample=sample)
        self._members.send(spec.worker, submit, inputs, self._levels[spec.priority])

    # ---- while it is on ---------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Return when every sample whose home is still there has ended, or none has ended for long."""
        members, recovery = self._members, self._recovery
        for worker in recovery.out & members.present:
            recovery.came(worker)
        patience_s = _patience_s(self._deployment)
        stalled_s = time.monotonic() + patience_s
        while not self._over() and time.monotonic() < stalled_s:
            present, out = set(members.present), set(recovery.out)
            try:
                frame = members.next(min(stalled_s - time.monotonic(), _STALL_S))
            except TimeoutError:
                continue
            for worker in present - members.present:
                recovery.left(worker)
            for worker in members.present - present:
                recovery.came(worker)
            if frame is not None and self._attend(frame):
                stalled_s = time.monotonic() + patience_s
            for worker in recovery.out - out:
                self._observer.left(worker)
            for worker in out - recovery.out:
                self._observer.joined(worker)

    def _attend(self, frame: Frame) -> bool:
        """Take what an agent says while the run is on; tell whether a sample has ended."""
        body = frame.body
        if isinstance(body, Ended):
            return self._take_ends(body, frame)
        if isinstance(body, Load) and body.run == self._name:
            if self._passes(frame, partial(check_load, self._deployment.instance, frame, body)):
                self._observer.told(body)
                self._recovery.paced(body.worker, body.slowness)
        elif isinstance(body, Log):
            self._take_log(body, frame)
        elif isinstance(body, Missing):
            self._serve_block(body)
        elif isinstance(body, Ready) and body.worker in self._deployment.instance.workers:
            self._measurement.steps.begin(body.worker)
            self._recovery.ready(body.worker)
        elif isinstance(body, WorkerFault):
            self._recovery.fault(body)
        elif isinstance(body, Refused):
            self._refusals.add(body.sender, body.what)
        elif isinstance(body, Echo):
            self._clocks.take(frame)
        return False

    def _owns(self, frame: Frame, source: str, samples: Sequence[int]) -> bool:
        """Tell whether samples are of a source of the worker that reports them; refuse the report if not."""
        instance = self._deployment.instance
        known = source in instance.sources and instance.home(source) == frame.sender
        offered = inf if self._deployment.live or not known else instance.samples(source)
        if known and all(0 <= sample < offered for sample in samples):
            return True
        self._refusals.add(frame.sender, f"{frame.body.kind} of samples that are not its own: {source}")
        return False

    def _passes(self, frame: Frame, check: Callable[[], None]) -> bool:
        """Tell whether a check lets a frame in; refuse the frame if not."""
        try:
            check()
        except ExecuteError as error:
            self._refusals.add(frame.sender, str(error))
            return False
        return True

    def _take_ends(self, ended: Ended, frame: Frame) -> bool:
        """Take ends of samples, of each of which the first counts; tell whether they are of this run."""
        if ended.run != self._name:
            return False
        for sample in ended.samples:
            check = partial(check_end, self._deployment.instance, frame, sample)
            if not (self._owns(frame, sample.source, [sample.sample]) and self._passes(frame, check)):
                return False
        for sample in ended.samples:
            if self._deployment.live:
                self._observer.ended(sample, frame.tensors)
            elif self._ledger.add(sample):
                self._measurement.records.append(sample)
                self._observer.ended(sample, frame.tensors)
        return True

    def _over(self) -> bool:
        if self._deployment.live:
            return self._members.stopping
        instance = self._deployment.instance
        return all(
            self._ledger.complete(source) or not self._recovery.awaits(instance.home(source))
            for source in instance.sources
        )

    def _take_log(self, log: Log, frame: Frame) -> None:
        instance, measurement = self._deployment.instance, self._measurement
        if log.run != self._name:
            return
        if log.worker not in measurement.steps:
            self._refusals.add(log.worker, "log of a worker that is not in the run")
            return
        check = partial(check_log, instance, frame)
        if self._passes(frame, partial(keep_records, frame.tensors, measurement.records, check)):
            self._passes(frame, partial(measurement.steps.add, log.worker, frame.tensors))

    # ---- after the end ----------------------------------------------------------------------------------------------

    def _collect(self) -> None:
        self._measurement.left = sorted(self._recovery.out)
        waiting = set(self._workers)
        for worker in waiting:
            self._send(worker, Stop())
        while waiting:
            try:
                frame = self._members.next(_STALL_S)
            except TimeoutError:
                self._measurement.left += sorted(waiting)
                return
            if frame is not None:
                self._take(frame)
                if isinstance(frame.body, Report):
                    waiting.discard(frame.body.worker)
                elif isinstance(frame.body, WorkerFault) and frame.body.run == self._name:
                    waiting.discard(frame.body.worker)
                    self._measurement.left.append(frame.body.worker)
            waiting &= self._members.present

    def _take(self, frame: Frame) -> None:
        body, measurement, deployment = frame.body, self._measurement, self._deployment
        if isinstance(body, Output):
            check = partial(check_output, deployment.instance, deployment.models, frame, body.source)
            if self._owns(frame, body.source, body.samples) and self._passes(frame, check):
                measurement.outputs.add(body.source, body.samples, frame.tensors)
        elif isinstance(body, Ended) and not self._deployment.live:
            self._take_ends(body, frame)
        elif isinstance(body, Log):
            self._take_log(body, frame)
        elif isinstance(body, WorkerFault):
            self._recovery.fault(body.model_copy(update={"run": None}))  # there is nothing to go on with
        elif isinstance(body, Report):
            measurement.duplicates += body.duplicates
            measurement.late_blocks[body.worker] = body.late_blocks
            measurement.waited_s[body.worker] = body.waited_s


def _patience_s(deployment: Deployment) -> float:
    """Give how long no sample may end before a run counts as stalled; a live run waits for ever."""
    rates = [source.rate_per_s for source in deployment.instance.scenario.sources.values() if source.rate_per_s]
    return inf if deployment.live else _STALL_S + 10 / min(rates, default=1.0)
