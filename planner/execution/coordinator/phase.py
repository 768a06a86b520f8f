"""What the phases of a run share: its state, and messages that several of them handle the same way.

The coordinator receives the same messages in three phases and handles them differently: before the start
(:mod:`~planner.execution.coordinator.preparation`), while the run is on
(:mod:`~planner.execution.coordinator.supervision`), and while results are collected
(:mod:`~planner.execution.coordinator.collection`). Each phase has its table of handlers.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from math import inf

import numpy as np

from planner.errors import ExecuteError
from planner.execution.coordinator.awake_clock import AwakeClock
from planner.execution.coordinator.clock_offsets import ClockOffsets
from planner.execution.coordinator.collected import keep_records
from planner.execution.coordinator.completions import CompletionTracker
from planner.execution.coordinator.deployment import Deployment
from planner.execution.coordinator.failover import Failover
from planner.execution.coordinator.membership import Membership
from planner.execution.coordinator.run_result import Observer, RunResult
from planner.execution.wire.checks import Refusals, check_end, check_live_result, check_log, check_tokens
from planner.execution.wire.claims import Claims
from planner.execution.wire.diagnostics import Echo
from planner.execution.wire.frames import Frame
from planner.execution.wire.messages import (
    COORDINATOR,
    BlockFile,
    Body,
    Deploy,
    Ended,
    Input,
    Log,
    Missing,
    Refused,
    Start,
    Taken,
    Tokens,
    WarmUpInput,
)
from planner.trace.records import SampleRecord


class RunState:
    """The state of one run."""

    def __init__(
        self,
        members: Membership,
        claims: Claims,
        deployment: Deployment,
        observer: Observer,
        ready_timeout_s: float,
    ) -> None:
        self.id = members.run = uuid.uuid4().hex
        self.members = members
        self.claims = claims
        self.deployment = deployment
        self.observer = observer
        self.ready_timeout_s = ready_timeout_s
        self.clock = AwakeClock()
        self.clocks = ClockOffsets(members.send, self.id)
        self.completions = CompletionTracker(deployment.instance, deployment.seed)
        self.failover = Failover(
            deployment,
            self.id,
            clock=self.clock,
            ready_timeout_s=ready_timeout_s,
            send=self.send,
            claim=claims.ask,
            call=members.call,
            on_incident=observer.on_incident,
            on_replanned=observer.on_replanned,
        )
        self.refusals = Refusals(self.failover.on_refused)
        self.result = RunResult()

    @property
    def workers(self) -> list[str]:
        """Workers in the run."""
        return [worker for worker in self.deployment.instance.workers if worker not in self.failover.absent]

    def send(self, worker: str, body: Body) -> None:
        """Send a message to an agent; the time of a start is by its clock."""
        if isinstance(body, Start):
            body = body.model_copy(update={"at_unix_s": body.at_unix_s + self.clocks.ahead_s(worker)})
        self.members.send(worker, body)

    def deploy(self, worker: str) -> None:
        """Deploy the run to an agent that this coordinator holds."""
        deployment = self.deployment
        warm_up = deployment.warm_up.of_worker(deployment, worker)
        deploy = Deploy(
            run=self.id,
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
            prompts={name: tuple(map(tuple, prompts)) for name, prompts in deployment.own_prompts.items()},
            beside=tuple(other.run for other in self.members.beside if other.run is not None),
            live=deployment.live,
        )
        self.send(worker, deploy)
        for (model, cut), tensors in warm_up.items():
            self.members.send(worker, WarmUpInput(run=self.id, model=model, cut=cut), tensors)
        for source, samples in deployment.sent.items():
            if deployment.instance.home(source) == worker:
                for inputs in samples:
                    self.members.send(worker, Input(run=self.id, source=source), inputs)


class Phase:
    """Handlers of messages that are handled the same way in several phases of a run."""

    def __init__(self, state: RunState) -> None:
        self._state = state

    def _is_ours(self, run: str | None) -> bool:
        return run == self._state.id

    def serve_block(self, missing: Missing, _frame: Frame) -> None:
        """Send an agent a block model that it misses."""
        state = self._state
        if not self._is_ours(missing.run):
            return
        if missing.sha256 not in state.deployment.blocks:
            state.refusals.add(missing.worker, f"request for a block model that is not of this run: {missing.sha256}")
            return
        data = np.frombuffer(state.deployment.blocks[missing.sha256], np.uint8)
        state.members.send(missing.worker, BlockFile(run=state.id, sha256=missing.sha256), {"file": data})

    def on_taken(self, taken: Taken, _frame: Frame) -> None:
        """End the run, because another coordinator has taken over one of its agents."""
        self._state.claims.on_taken(taken)

    def on_echo(self, echo: Echo, frame: Frame) -> None:
        """Take an agent's answer to a comparison of clocks."""
        self._state.clocks.on_echo(frame.sender, echo)

    def on_refused(self, refused: Refused, _frame: Frame) -> None:
        """Note what an agent in this run, or this coordinator's own transport, has refused."""
        if refused.worker == COORDINATOR or self._is_ours(refused.run):
            self._state.refusals.add(refused.sender, refused.what)

    def take_ends(self, ended: Ended, frame: Frame) -> bool:
        """Record the ends of samples, the first of each sample; return whether they are of this run."""
        state = self._state
        if not self._is_ours(ended.run):
            return False
        for sample in ended.samples:
            check = partial(check_end, state.deployment.instance, frame, sample)
            if not (self._owns(frame, sample.source, [sample.sample]) and self._passes(frame, check)):
                return False
        for sample in ended.samples:
            if state.deployment.live:
                state.observer.on_ended(self._fitting(sample, frame), frame.tensors)
            elif state.completions.add(sample):
                state.result.records.append(sample)
                state.observer.on_ended(sample, frame.tensors)
        return True

    def take_tokens(self, tokens: Tokens, frame: Frame) -> None:
        """Pass on tokens of a sample of a live run that goes on."""
        state = self._state
        if not (state.deployment.live and self._is_ours(tokens.run)):
            return
        if self._owns(frame, tokens.source, [tokens.sample]) and self._passes(frame, partial(check_tokens, frame)):
            state.observer.on_tokens(tokens.source, tokens.sample, frame.tensors)

    def _fitting(self, sample: SampleRecord, frame: Frame) -> SampleRecord:
        """Return the end of a sample of a live run, as failed if its outputs are not those of its model."""
        deployment = self._state.deployment
        if self._passes(frame, partial(check_live_result, deployment.instance, deployment.models, frame, sample)):
            return sample
        return replace(sample, status="failed", reason="its outputs do not fit its model", origin=None)

    def take_log(self, log: Log, frame: Frame) -> None:
        """Keep what a worker has logged."""
        state = self._state
        if not self._is_ours(log.run):
            return
        if log.worker not in state.result.steps:
            state.refusals.add(log.worker, "log of a worker that is not in the run")
            return
        check = partial(check_log, state.deployment.instance, frame)
        if self._passes(frame, partial(keep_records, frame.tensors, state.result.records, check)):
            self._passes(frame, partial(state.result.steps.add, log.worker, frame.tensors))

    def _owns(self, frame: Frame, source: str, samples: Sequence[int]) -> bool:
        """Return whether the samples are of a source of the sender; refuse the message if not."""
        deployment = self._state.deployment
        instance = deployment.instance
        known = source in instance.sources and instance.home(source) == frame.sender
        offered = inf if deployment.live or not known else instance.samples(source)
        if known and all(0 <= sample < offered for sample in samples):
            return True
        self._state.refusals.add(frame.sender, f"{frame.body.kind} of samples that are not its own: {source}")
        return False

    def _passes(self, frame: Frame, check: Callable[[], None]) -> bool:
        """Return whether a check accepts the frame; refuse the frame if not."""
        try:
            check()
        except ExecuteError as error:
            self._state.refusals.add(frame.sender, str(error))
            return False
        return True
