"""Control of one run: deployment, start, supervision until its end, and collection of its results.

The coordinator receives the same messages in three phases and handles them differently: before the start, while the
run is on, and while results are collected. Each phase has its table of handlers.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from typing import ClassVar, Final

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
from planner.execution.wire.diagnostics import About, Echo, Flooded, Pinged
from planner.execution.wire.dispatch import Dispatch
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
    Transmit,
    WarmUpInput,
    WorkerFault,
)
from planner.execution.wire.transport import urgency_levels

_START_DELAY_S: Final = 0.3

_STALL_S: Final = 60.0
"""A run is stopped if no sample ends for this time plus ten times the longest mean time between arrivals."""

_CLOCKS_S: Final = 1.0
"""Maximum time to compare the workers' clocks."""


class RunController:
    """Controls one run on agents; :meth:`run` may be called once."""

    def __init__(self, members: Membership, deployment: Deployment, observer: Observer) -> None:
        self._members = members
        self._deployment = deployment
        self._observer = observer
        self._run = uuid.uuid4().hex
        self._clocks = ClockOffsets(members.send)
        self._completions = CompletionTracker(deployment.instance, deployment.seed)
        self._failover = Failover(
            deployment,
            self._run,
            send=self._send,
            deploy=self._deploy_late,
            call=members.call,
            on_incident=observer.on_incident,
        )
        self._refusals = Refusals(self._failover.on_refused)
        self._levels = urgency_levels({name: s.priority for name, s in deployment.instance.scenario.sources.items()})
        self._result = RunResult()
        self._unreported: set[str] = set()
        """Workers whose report is awaited at the end."""

    def run(self, ready_timeout_s: float) -> RunResult:
        """Deploy, run and collect; see :meth:`~planner.execution.coordinator.coordinator.Coordinator.run`."""
        deployment, failover, result = self._deployment, self._failover, self._result
        with contextlib.closing(failover):
            self._prepare(ready_timeout_s)
            self._start()
            try:
                self._supervise()
            finally:
                if deployment.emulation is not None:
                    self._members.on_transmit = None
                    deployment.emulation.stop()
        self._collect()
        result.incidents = failover.incidents
        if not deployment.live:
            result.records.extend(self._completions.unreported(failover.left_s, failover.now_s))
        return result

    @property
    def _workers(self) -> list[str]:
        """Workers in the run."""
        return [worker for worker in self._deployment.instance.workers if worker not in self._failover.absent]

    def _send(self, worker: str, body: Body) -> None:
        if isinstance(body, Start):
            body = body.model_copy(update={"at_unix_s": body.at_unix_s + self._clocks.ahead_s(worker)})
        self._members.send(worker, body)

    # ---- before the start -------------------------------------------------------------------------------------------

    def _prepare(self, ready_timeout_s: float) -> None:
        """Deploy, and wait until all workers are ready."""
        deployment, failover = self._deployment, self._failover
        self._members.stopping = False
        failover.open()
        failover.start_without(deployment.later - self._members.present)
        self._members.refuse_shared(self._workers, self._handle_while_preparing)
        deployment.warm_up.compute(deployment)
        for problem in deployment.warm_up.problems:
            failover.on_problem(problem)
        self._compare_clocks()
        for worker in self._workers:
            self._deploy(worker)
        self._await_ready(ready_timeout_s)
        # Another agent of a worker's name may have been discovered meanwhile.
        self._members.refuse_shared(self._workers, self._handle_while_preparing)
        if deployment.paced:
            check_host_speed(deployment.instance, self._result.warm_block_s)

    def _compare_clocks(self) -> None:
        for worker in self._workers:
            self._clocks.compare(worker)
        deadline_s = time.monotonic() + _CLOCKS_S
        with contextlib.suppress(TimeoutError):
            while not self._clocks.compared(self._workers):
                frame = self._members.next(deadline_s - time.monotonic())
                if frame is not None and isinstance(frame.body, Echo):
                    self._clocks.on_echo(frame.sender, frame.body)

    def _deploy_late(self, worker: str) -> None:
        """Deploy the run to a worker that connects during it."""
        self._clocks.compare(worker)
        self._deploy(worker)

    def _deploy(self, worker: str) -> None:
        deployment = self._deployment
        warm_up = deployment.warm_up.of_worker(deployment, worker)
        deploy = Deploy(
            run=self._run,
            instance=deployment.instance,
            plan=deployment.plan,
            policy=deployment.policy,
            seed=deployment.seed,
            models=dict(deployment.models),
            resident=dict(deployment.resident.get(worker, {})),
            warm_up=tuple(warm_up),
            paced=deployment.paced,
            emulated=deployment.emulation is not None,
            sent=tuple(deployment.sent),
            live=deployment.live,
        )
        self._send(worker, deploy)
        for (model, cut), tensors in warm_up.items():
            self._members.send(worker, WarmUpInput(run=self._run, model=model, cut=cut), tensors)
        for source, samples in deployment.sent.items():
            if deployment.instance.home(source) == worker:
                for inputs in samples:
                    self._members.send(worker, Input(run=self._run, source=source), inputs)

    def _await_ready(self, timeout_s: float) -> None:
        deadline_s = time.monotonic() + timeout_s
        workers = self._workers
        while True:
            # Looked at first: what makes one absent may have been handled before.
            if absent := self._members.absent(workers):
                raise ExecuteError("agents left before the run started", where="workers", value=", ".join(absent))
            waiting = [worker for worker in workers if worker not in self._result.warm_block_s]
            if not waiting:
                return
            try:
                frame = self._members.next(deadline_s - time.monotonic())
            except TimeoutError:
                raise ExecuteError(
                    f"agents not ready within {timeout_s:g} s", where="workers", value=", ".join(waiting)
                ) from None
            if self._members.stopping:
                raise ExecuteError("stopped before the agents were ready", where="coordinator")
            if frame is not None:
                self._PREPARING.handle(self, frame)

    def _handle_while_preparing(self, timeout_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            frame = self._members.next(timeout_s)
            if frame is not None:
                self._PREPARING.handle(self, frame)

    def _ready_to_start(self, ready: Ready, frame: Frame) -> None:
        if ready.worker in self._workers:
            check_ready(self._deployment.models, frame, ready)
            self._result.warm_block_s[ready.worker] = ready.warm_block_s
            self._result.providers[ready.worker] = ready.provider
            self._result.steps.begin(ready.worker)

    def _fault_before_start(self, fault: WorkerFault, _frame: Frame) -> None:
        if fault.run is not None:
            raise ExecuteError(fault.what, where=f"agent {fault.worker}")
        self._failover.on_fault(fault)

    def _serve_block(self, missing: Missing, _frame: Frame) -> None:
        if missing.sha256 not in self._deployment.blocks:
            self._refusals.add(missing.worker, f"request for a block model that is not of this run: {missing.sha256}")
            return
        data = np.frombuffer(self._deployment.blocks[missing.sha256], np.uint8)
        self._members.send(missing.worker, BlockFile(sha256=missing.sha256), {"file": data})

    def _start(self) -> None:
        """Tell all workers to start at the same time."""
        emulation, absent = self._deployment.emulation, self._failover.absent
        at_unix_s = time.time() + _START_DELAY_S
        self._result.start_unix_s = self._failover.start_unix_s = at_unix_s
        if emulation is not None:
            emulation.start(at_unix_s, self._admit, self._result.records.append, self._members.fail)
            self._members.on_transmit = emulation.transmit
        for worker in self._workers:
            self._send(worker, Start(at_unix_s=at_unix_s, absent=tuple(sorted(absent))))
        for worker in sorted(absent):
            self._observer.on_left(worker)
        self._observer.on_started(self._submit)

    def _admit(self, to: str, transfer: str, at_s: float) -> None:
        self._members.send(to, Admit(run=self._run, transfer=transfer, at_s=at_s))

    def _submit(self, source: str, sample: int, inputs: Tensors) -> None:
        spec = self._deployment.instance.scenario.sources[source]
        submit = Submit(run=self._run, source=source, sample=sample)
        self._members.send(spec.worker, submit, inputs, self._levels[spec.priority])

    # ---- while the run is on ----------------------------------------------------------------------------------------

    def _supervise(self) -> None:
        """Return when every sample whose home is in the run has ended, or when the run has stalled."""
        members, failover = self._members, self._failover
        failover.on_shared(members.shared(self._deployment.instance.workers))
        for worker in failover.absent & members.present:
            failover.on_connected(worker)
        patience_s = _patience_s(self._deployment)
        stalled_s = time.monotonic() + patience_s
        while not self._over() and time.monotonic() < stalled_s:
            present, absent = set(members.present), set(failover.absent)
            try:
                frame = members.next(min(stalled_s - time.monotonic(), _STALL_S))
            except TimeoutError:
                continue
            for worker in present - members.present:
                failover.on_left(worker)
            failover.on_shared(members.shared(self._deployment.instance.workers))
            for worker in members.present - present:
                failover.on_connected(worker)
            if frame is not None and self._RUNNING.handle(self, frame):
                stalled_s = time.monotonic() + patience_s
            for worker in failover.absent - absent:
                self._observer.on_left(worker)
            for worker in absent - failover.absent:
                self._observer.on_joined(worker)

    def _over(self) -> bool:
        if self._deployment.live:
            return self._members.stopping
        instance = self._deployment.instance
        return all(
            self._completions.complete(source) or not self._failover.expects(instance.home(source))
            for source in instance.sources
        )

    def _take_ends(self, ended: Ended, frame: Frame) -> bool:
        """Record the ends of samples, the first of each sample; return whether they are of this run."""
        if ended.run != self._run:
            return False
        for sample in ended.samples:
            check = partial(check_end, self._deployment.instance, frame, sample)
            if not (self._owns(frame, sample.source, [sample.sample]) and self._passes(frame, check)):
                return False
        for sample in ended.samples:
            if self._deployment.live:
                self._observer.on_ended(sample, frame.tensors)
            elif self._completions.add(sample):
                self._result.records.append(sample)
                self._observer.on_ended(sample, frame.tensors)
        return True

    def _take_load(self, load: Load, frame: Frame) -> None:
        check = partial(check_load, self._deployment.instance, frame, load)
        if load.run == self._run and self._passes(frame, check):
            self._observer.on_load(load)
            self._failover.on_slowness(load.worker, load.slowness)

    def _take_log(self, log: Log, frame: Frame) -> None:
        if log.run != self._run:
            return
        if log.worker not in self._result.steps:
            self._refusals.add(log.worker, "log of a worker that is not in the run")
            return
        check = partial(check_log, self._deployment.instance, frame)
        if self._passes(frame, partial(keep_records, frame.tensors, self._result.records, check)):
            self._passes(frame, partial(self._result.steps.add, log.worker, frame.tensors))

    def _ready_to_join(self, ready: Ready, _frame: Frame) -> None:
        if ready.worker in self._deployment.instance.workers:
            self._result.steps.begin(ready.worker)
            self._result.providers[ready.worker] = ready.provider
            self._failover.on_ready(ready.worker)

    def _fault(self, fault: WorkerFault, _frame: Frame) -> None:
        self._failover.on_fault(fault)

    def _refused(self, refused: Refused, _frame: Frame) -> None:
        self._refusals.add(refused.sender, refused.what)

    def _echo(self, echo: Echo, frame: Frame) -> None:
        self._clocks.on_echo(frame.sender, echo)

    def _owns(self, frame: Frame, source: str, samples: Sequence[int]) -> bool:
        """Return whether the samples are of a source of the sender; refuse the message if not."""
        instance = self._deployment.instance
        known = source in instance.sources and instance.home(source) == frame.sender
        offered = inf if self._deployment.live or not known else instance.samples(source)
        if known and all(0 <= sample < offered for sample in samples):
            return True
        self._refusals.add(frame.sender, f"{frame.body.kind} of samples that are not its own: {source}")
        return False

    def _passes(self, frame: Frame, check: Callable[[], None]) -> bool:
        """Return whether a check accepts the frame; refuse the frame if not."""
        try:
            check()
        except ExecuteError as error:
            self._refusals.add(frame.sender, str(error))
            return False
        return True

    # ---- after the end ----------------------------------------------------------------------------------------------

    def _collect(self) -> None:
        """Stop all workers and wait for their outputs, logs and reports."""
        self._result.left = sorted(self._failover.absent)
        self._unreported = set(self._workers)
        for worker in self._unreported:
            self._send(worker, Stop())
        while self._unreported:
            try:
                frame = self._members.next(_STALL_S)
            except TimeoutError:
                self._result.left += sorted(self._unreported)
                return
            if frame is not None:
                self._COLLECTING.handle(self, frame)
            self._unreported &= self._members.present

    def _take_output(self, output: Output, frame: Frame) -> None:
        check = partial(check_output, self._deployment.instance, self._deployment.models, frame, output.source)
        if self._owns(frame, output.source, output.samples) and self._passes(frame, check):
            self._result.outputs.add(output.source, output.samples, frame.tensors)

    def _take_last_ends(self, ended: Ended, frame: Frame) -> None:
        if not self._deployment.live:
            self._take_ends(ended, frame)

    def _take_report(self, report: Report, _frame: Frame) -> None:
        self._result.duplicates += report.duplicates
        self._result.late_blocks[report.worker] = report.late_blocks
        self._result.waited_s[report.worker] = report.waited_s
        self._unreported.discard(report.worker)

    def _fault_after_end(self, fault: WorkerFault, _frame: Frame) -> None:
        self._failover.on_fault(fault.model_copy(update={"run": None}))  # only noted: the run is over
        if fault.run == self._run:
            self._unreported.discard(fault.worker)
            self._result.left.append(fault.worker)

    _PREPARING: ClassVar[Dispatch[RunController, None]] = Dispatch(
        {Missing: _serve_block, Ready: _ready_to_start, WorkerFault: _fault_before_start},
        ignored=[Ended, Load, Log, Output, Report, Refused, About, Flooded, Pinged, Transmit, Echo],
    )
    _RUNNING: ClassVar[Dispatch[RunController, bool | None]] = Dispatch(
        {
            Ended: _take_ends,
            Load: _take_load,
            Log: _take_log,
            Missing: _serve_block,
            Ready: _ready_to_join,
            WorkerFault: _fault,
            Refused: _refused,
            Echo: _echo,
        },
        ignored=[Output, Report, About, Flooded, Pinged, Transmit],
    )
    """Handlers return whether a sample has ended."""
    _COLLECTING: ClassVar[Dispatch[RunController, bool | None]] = Dispatch(
        {
            Output: _take_output,
            Ended: _take_last_ends,
            Log: _take_log,
            WorkerFault: _fault_after_end,
            Report: _take_report,
        },
        ignored=[Missing, Ready, Load, Refused, About, Flooded, Pinged, Transmit, Echo],
    )


def _patience_s(deployment: Deployment) -> float:
    """Return how long no sample may end before a run counts as stalled; infinite for a live run."""
    rates = [source.rate_per_s for source in deployment.instance.scenario.sources.values() if source.rate_per_s]
    return inf if deployment.live else _STALL_S + 10 / min(rates, default=1.0)
