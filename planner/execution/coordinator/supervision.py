"""The second phase of a run: samples are processed, workers leave and come back, until every sample has ended.

Nothing is waited for without a bound:

1. A worker that sends nothing for :data:`SILENT_S`, though it reports its load twice a second, counts as having left,
   even if the network still sees its agent. That may have lost the run, so it is claimed again.
2. An absent worker at which sources live is awaited for the deployment's ``home_timeout_s``; an agent that has
   connected, for the time in which agents must become ready.
3. A run in which no sample ends for :data:`STALL_S` plus ten times the longest mean time between arrivals is given up,
   unless it is live: then samples may be submitted at any time.

Time counts only while this process runs, so that a coordinator that was stopped gives its agents time to come back.
"""

from __future__ import annotations

from functools import partial
from math import inf
from typing import ClassVar, Final

from planner.execution.coordinator.deployment import Deployment
from planner.execution.coordinator.phase import Phase, RunState
from planner.execution.wire.checks import check_load
from planner.execution.wire.claims import describe_holding
from planner.execution.wire.diagnostics import About, Echo, Flooded, Pinged
from planner.execution.wire.dispatch import Dispatch
from planner.execution.wire.frames import VERSION, Frame
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

STALL_S: Final = 60.0

SILENT_S: Final = 60.0

_TICK_S: Final = 1.0
"""Longest time between two looks at what is overdue."""

_CLAIM_AGAIN_S: Final = 2.0
"""Time between two claims of an agent that another coordinator holds."""


class Supervision(Phase):
    """Supervises a run until its end."""

    def __init__(self, state: RunState) -> None:
        super().__init__(state)
        self._heard_s: dict[str, float] = {}
        self._claim_at_s: dict[str, float] = {}
        """Time of the next claim of each agent that another coordinator holds."""
        self._refused: set[str] = set()
        """Agents whose refusal has been noted."""

    def run(self) -> None:
        """Return when every sample whose home is in the run has ended, or when the run has stalled.

        Raises
        ------
        TakenOverError
            If another coordinator takes over one of the agents.
        """
        state = self._state
        members, failover, clock = state.members, state.failover, state.clock
        clock.tick()
        failover.on_shared(members.shared(state.deployment.instance.workers))
        for worker in failover.absent & members.present:
            self._connected(worker)
        patience_s, progress_s = _patience_s(state.deployment), clock.now_s
        while not self._over():
            present, absent = set(members.present), set(failover.absent)
            try:
                frame = members.next(_TICK_S)
            except TimeoutError:
                frame = None
            clock.tick()
            self._follow_members(present)
            if frame is not None:
                self._hear(frame.sender)
                if self.HANDLERS.handle(self, frame):
                    progress_s = clock.now_s
            self._look_for_overdue()
            for worker in failover.absent - absent:
                state.observer.on_left(worker)
            for worker in absent - failover.absent:
                state.observer.on_joined(worker)
            for worker in failover.overdue():
                state.observer.on_given_up(worker)
            if clock.now_s - progress_s > patience_s:
                failover.on_problem(f"no sample has ended for {patience_s:.0f} s: the run is given up")
                return

    def _over(self) -> bool:
        state = self._state
        if state.deployment.live or state.members.abandoned:
            return state.members.stopping
        instance = state.deployment.instance
        return all(
            state.completions.complete(source) or not state.failover.expects(instance.home(source))
            for source in instance.sources
        )

    # ---- members ----------------------------------------------------------------------------------------------------

    def _follow_members(self, before: set[str]) -> None:
        state = self._state
        present = state.members.present
        for worker in before - present:
            state.failover.on_left(worker)
            self._claim_at_s.pop(worker, None)
        state.failover.on_shared(state.members.shared(state.deployment.instance.workers))
        for worker in present - before:
            self._connected(worker)

    def _connected(self, worker: str) -> None:
        version = self._state.members.unlike().get(worker)
        if version is None:
            self._state.failover.on_connected(worker)
        elif worker in self._state.failover.absent:
            what = f"speaks version {version} of the wire format, and this coordinator version {VERSION}"
            self._state.failover.on_refusal(worker, what)

    def _hear(self, sender: str) -> None:
        if sender in self._state.deployment.instance.workers:  # not one of any number of made-up names
            self._heard_s[sender] = self._state.clock.now_s

    def _look_for_overdue(self) -> None:
        state = self._state
        now_s = state.clock.now_s
        for worker in state.workers:
            if now_s - self._heard_s.setdefault(worker, now_s) > SILENT_S:
                del self._heard_s[worker]
                state.failover.on_left(worker, f"has sent nothing for {SILENT_S:g} s")
                self._connected(worker)
        for worker, at_s in list(self._claim_at_s.items()):
            if at_s <= now_s:
                del self._claim_at_s[worker]
                state.claims.ask(worker)

    def _on_claimed(self, claimed: Claimed, _frame: Frame) -> None:
        """Deploy the run to an agent that connects during it."""
        state, worker = self._state, claimed.worker
        if not state.claims.on_claimed(claimed) or worker not in state.failover.absent:
            return
        self._refused.discard(worker)
        if state.failover.is_joining(worker):
            state.clocks.compare(worker)
            state.deploy(worker)
        else:
            state.failover.on_connected(worker)

    def _on_held(self, held: Held, _frame: Frame) -> None:
        state, worker = self._state, held.worker
        if not state.claims.on_held(held):
            return
        self._claim_at_s[worker] = state.clock.now_s + _CLAIM_AGAIN_S
        if worker not in self._refused:
            self._refused.add(worker)
            state.failover.on_refusal(worker, f"is held by {'; '.join(map(describe_holding, held.holdings))}")

    def _on_ready(self, ready: Ready, _frame: Frame) -> None:
        state = self._state
        if self._is_ours(ready.run) and ready.worker in state.deployment.instance.workers:
            state.result.steps.begin(ready.worker)
            state.result.providers[ready.worker] = ready.provider
            state.failover.on_ready(ready.worker)

    # ---- reports ----------------------------------------------------------------------------------------------------

    def _take_load(self, load: Load, frame: Frame) -> None:
        state = self._state
        check = partial(check_load, state.deployment.instance, frame, load)
        if self._is_ours(load.run) and self._passes(frame, check):
            state.observer.on_load(load)
            state.failover.on_slowness(load.worker, load.slowness)

    def _on_fault(self, fault: WorkerFault, _frame: Frame) -> None:
        self._state.failover.on_fault(fault)

    HANDLERS: ClassVar[Dispatch[Supervision, bool | None]] = Dispatch(
        {
            Claimed: _on_claimed,
            Held: _on_held,
            Taken: Phase.on_taken,
            Ended: Phase.take_ends,
            Tokens: Phase.take_tokens,
            Load: _take_load,
            Log: Phase.take_log,
            Missing: Phase.serve_block,
            Ready: _on_ready,
            WorkerFault: _on_fault,
            Refused: Phase.on_refused,
            Echo: Phase.on_echo,
        },
        ignored=[Output, Report, About, Flooded, Pinged, Transmit],
    )
    """Handlers return whether a sample has ended."""


def _patience_s(deployment: Deployment) -> float:
    """Return how long no sample may end before a run counts as stalled; infinite for a live run."""
    rates = [source.rate_per_s for source in deployment.instance.scenario.sources.values() if source.rate_per_s]
    return inf if deployment.live else STALL_S + 10 / min(rates, default=1.0) + deployment.home_timeout_s
