"""Control of one run: its phases one after the other, and its start."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Final

from planner.execution.coordinator.collection import Collection
from planner.execution.coordinator.phase import RunState
from planner.execution.coordinator.preparation import Preparation
from planner.execution.coordinator.run_result import RunResult
from planner.execution.coordinator.supervision import Supervision
from planner.execution.wire.frames import Tensors
from planner.execution.wire.messages import Admit, Further, Start, Stop, Submit, Transmit
from planner.execution.wire.transport import urgency_levels
from planner.policy.types import Progress

_START_DELAY_S: Final = 0.3


def run_controlled(state: RunState) -> RunResult:
    """Deploy, run and collect; see :meth:`~planner.execution.coordinator.coordinator.Coordinator.run`."""
    failover, result = state.failover, state.result
    with contextlib.closing(failover):
        _prepare(state)
        with _emulation(state):
            _start(state)
            Supervision(state).run()
    Collection(state).run()
    result.incidents = failover.incidents
    if not state.deployment.live:
        result.records.extend(state.completions.unreported(failover.left_s, failover.now_s))
    return result


def _prepare(state: RunState) -> None:
    """Prepare a run; have the agents drop it if that fails while they go on with another one."""
    try:
        Preparation(state).run()
    except Exception:
        for worker in state.workers if state.members.beside else ():
            state.send(worker, Stop(run=state.id))
        raise


@contextlib.contextmanager
def _emulation(state: RunState) -> Iterator[None]:
    """Stop the emulated network, if any, at the end of the context; :func:`_start` starts it."""
    try:
        yield
    finally:
        if state.deployment.emulation is not None:
            state.members.on_transmit = None
            state.deployment.emulation.stop()


def _start(state: RunState) -> None:
    """Tell all workers to start at the same time; a run beside another one continues its clock."""
    emulation, failover, members = state.deployment.emulation, state.failover, state.members
    begun_unix_s = [other.start_unix_s for other in members.beside if other.start_unix_s is not None]
    at_unix_s = begun_unix_s[0] if begun_unix_s else time.time() + _START_DELAY_S
    state.result.start_unix_s = members.start_unix_s = at_unix_s
    failover.begin(at_unix_s)
    if emulation is not None:
        carry = emulation.transmit

        def transmit(request: Transmit) -> None:
            if request.run == state.id:
                carry(request)

        emulation.start(at_unix_s, partial(_admit, state), state.result.records.append, members.fail)
        members.on_transmit = transmit
    for worker in state.workers:
        start = Start(run=state.id, at_unix_s=at_unix_s, absent=tuple(sorted(failover.absent)))
        state.send(worker, start)
    for worker in sorted(failover.absent):
        state.observer.on_left(worker)
    sources = state.deployment.instance.scenario.sources
    levels = urgency_levels({name: source.priority for name, source in sources.items()})

    def submit(
        source: str,
        sample: int,
        inputs: Tensors,
        *,
        priority: float | None = None,
        within_s: float | None = None,
        further: Further | None = None,
        progress: Progress | None = None,
        given_up: Sequence[int] = (),
    ) -> None:
        message = Submit(
            run=state.id,
            source=source,
            sample=sample,
            priority=priority,
            within_s=within_s,
            further=further,
            progress=progress,
            given_up=tuple(given_up),
        )
        level = levels[sources[source].priority if priority is None else priority]
        members.send(sources[source].worker, message, inputs, level)

    state.observer.on_started(submit)


def _admit(state: RunState, to: str, transfer: str, at_s: float) -> None:
    state.members.send(to, Admit(run=state.id, transfer=transfer, at_s=at_s))
