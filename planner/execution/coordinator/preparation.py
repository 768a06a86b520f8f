"""The first phase of a run: agents are claimed, receive the deployment and become ready."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import ClassVar, Final

from planner.errors import ExecuteError
from planner.execution.coordinator.deployment import check_host_speed
from planner.execution.coordinator.phase import Phase
from planner.execution.wire.checks import check_ready
from planner.execution.wire.diagnostics import About, Echo, Flooded, Pinged
from planner.execution.wire.dispatch import Dispatch
from planner.execution.wire.frames import Frame
from planner.execution.wire.messages import (
    Claimed,
    Ended,
    Held,
    Load,
    Log,
    Missing,
    Output,
    Ready,
    Refused,
    Report,
    Taken,
    Tokens,
    Transmit,
    WorkerFault,
)

_CLAIM_S: Final = 15.0
"""Maximum time for all agents to answer a claim."""

_CLOCKS_S: Final = 1.0
"""Maximum time to compare the workers' clocks."""


class Preparation(Phase):
    """Prepares a run."""

    def run(self) -> None:
        """Claim all workers, deploy, and wait until all are ready.

        Raises
        ------
        ExecuteError
            If another coordinator holds an agent, an agent does not become ready in time or leaves, or the run is
            stopped.
        """
        state = self._state
        deployment, failover, members = state.deployment, state.failover, state.members
        state.claims.begin(state.id)
        members.stopping = members.abandoned
        failover.open()
        failover.start_without(deployment.later - members.present)
        members.refuse_shared(state.workers, self._handle_for)
        # One after the other, in an order that all coordinators share: of several that ask for the same agents at the
        # same time, at least one gets all of its own.
        for worker in sorted(state.workers):
            self._claim(worker)
        deployment.warm_up.stopped = lambda: members.abandoned
        deployment.warm_up.compute(deployment)
        for problem in deployment.warm_up.problems:
            failover.on_problem(problem)
        self._compare_clocks()
        for worker in state.workers:
            state.deploy(worker)
        self._await(
            lambda: [worker for worker in state.workers if worker not in state.result.warm_block_s],
            state.ready_timeout_s,
            f"agents not ready within {state.ready_timeout_s:g} s",
        )
        # Another agent of a worker's name may have been discovered meanwhile.
        members.refuse_shared(state.workers, self._handle_for)
        if deployment.paced:
            check_host_speed(deployment.instance, state.result.warm_block_s)

    def _claim(self, worker: str) -> None:
        claims = self._state.claims
        claims.ask(worker)
        self._await(lambda: claims.waiting, _CLAIM_S, f"agents did not answer within {_CLAIM_S:g} s")
        claims.refuse_held()

    def _compare_clocks(self) -> None:
        clocks, workers = self._state.clocks, self._state.workers
        for worker in workers:
            clocks.compare(worker)
        with contextlib.suppress(TimeoutError):
            deadline_s = time.monotonic() + _CLOCKS_S
            while not clocks.compared(workers):
                self._handle(deadline_s - time.monotonic())

    def _await(self, waiting: Callable[[], list[str]], timeout_s: float, what: str) -> None:
        """Handle messages until nobody is waited for."""
        deadline_s = time.monotonic() + timeout_s
        workers = self._state.workers
        while True:
            # Looked at first: what makes one absent may have been handled before.
            if absent := self._state.members.gone(workers):
                raise ExecuteError("agents left before the run started", where="workers", value=", ".join(absent))
            names = waiting()
            if not names:
                return
            try:
                self._handle(deadline_s - time.monotonic())
            except TimeoutError:
                raise ExecuteError(what, where="workers", value=", ".join(names)) from None

    def _handle_for(self, timeout_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            self._handle(timeout_s)

    def _handle(self, timeout_s: float) -> None:
        """Handle the next message; raise TimeoutError if none arrives in time."""
        frame = self._state.members.next(timeout_s)
        if self._state.members.stopping:
            raise ExecuteError("stopped before the agents were ready", where="coordinator")
        if frame is not None:
            self.HANDLERS.handle(self, frame)

    def _on_claimed(self, claimed: Claimed, _frame: Frame) -> None:
        self._state.claims.on_claimed(claimed)

    def _on_held(self, held: Held, _frame: Frame) -> None:
        self._state.claims.on_held(held)

    def _on_ready(self, ready: Ready, frame: Frame) -> None:
        state = self._state
        if self._is_ours(ready.run) and ready.worker in state.workers:
            check_ready(state.deployment.models, frame, ready)
            state.result.warm_block_s[ready.worker] = ready.warm_block_s
            state.result.providers[ready.worker] = ready.provider
            state.result.steps.begin(ready.worker)

    def _on_fault(self, fault: WorkerFault, _frame: Frame) -> None:
        if self._is_ours(fault.run) and fault.dropped and fault.worker in self._state.workers:
            raise ExecuteError(fault.what, where=f"agent {fault.worker}")
        self._state.failover.on_fault(fault)

    HANDLERS: ClassVar[Dispatch[Preparation, None]] = Dispatch(
        {
            Claimed: _on_claimed,
            Held: _on_held,
            Taken: Phase.on_taken,
            Missing: Phase.serve_block,
            Ready: _on_ready,
            WorkerFault: _on_fault,
            Echo: Phase.on_echo,
        },
        ignored=[Ended, Tokens, Load, Log, Output, Report, Refused, About, Flooded, Pinged, Transmit],
    )
