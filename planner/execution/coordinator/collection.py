"""The last phase of a run: all workers stop, and their outputs, logs and reports are collected."""

from __future__ import annotations

import time
from functools import partial
from typing import ClassVar, Final

from planner.execution.coordinator.phase import Phase, RunState
from planner.execution.wire.checks import check_output
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
    Stop,
    Taken,
    Tokens,
    Transmit,
    WorkerFault,
)

_SILENT_S: Final = 60.0
"""Collection ends if no worker whose report is awaited sends anything for this time."""

_SILENT_LIVE_S: Final = 5.0
"""The same for a live run, whose workers have little to report."""


class Collection(Phase):
    """Collects the results of a run."""

    def __init__(self, state: RunState) -> None:
        super().__init__(state)
        self._unreported: set[str] = set()
        """Workers whose report is awaited."""

    def run(self) -> None:
        """Stop all workers and wait for their outputs, logs and reports; what is missing is noted."""
        state = self._state
        state.result.left = sorted(state.failover.absent)
        self._unreported = set(state.workers)
        for worker in state.workers:
            state.send(worker, Stop(run=state.id))
        silent_s = _SILENT_LIVE_S if state.deployment.live else _SILENT_S
        deadline_s = time.monotonic() + silent_s
        while self._unreported and not state.members.abandoned:
            try:
                frame = state.members.next(deadline_s - time.monotonic())
            except TimeoutError:
                self._note_missing(self._unreported, f"did not report within {silent_s:g} s")
                return
            if frame is not None:
                if frame.sender in self._unreported:
                    deadline_s = time.monotonic() + silent_s
                self.HANDLERS.handle(self, frame)
            self._note_missing(self._unreported - state.members.present, "left before it reported")

    def _note_missing(self, workers: set[str], why: str) -> None:
        for worker in sorted(workers):
            self._state.failover.on_problem(f"{why}: its log and outputs are incomplete", worker)
            self._state.result.left.append(worker)
        self._unreported = self._unreported - workers

    def _take_output(self, output: Output, frame: Frame) -> None:
        state = self._state
        check = partial(check_output, state.deployment.instance, state.deployment.models, frame, output.source)
        mine = self._is_ours(output.run) and self._owns(frame, output.source, output.samples)
        if mine and self._passes(frame, check):
            state.result.outputs.add(output.source, output.samples, frame.tensors)

    def _take_last_ends(self, ended: Ended, frame: Frame) -> None:
        if not self._state.deployment.live:
            self.take_ends(ended, frame)

    def _take_report(self, report: Report, _frame: Frame) -> None:
        result = self._state.result
        if not self._is_ours(report.run):
            return
        result.duplicates += report.duplicates
        result.late_blocks[report.worker] = report.late_blocks
        result.waited_s[report.worker] = report.waited_s
        self._unreported.discard(report.worker)

    def _on_fault(self, fault: WorkerFault, _frame: Frame) -> None:
        if not self._is_ours(fault.run):
            return
        self._state.failover.on_problem(fault.what, fault.worker)  # only noted: the run is over
        if fault.dropped:
            self._unreported.discard(fault.worker)
            self._state.result.left.append(fault.worker)

    HANDLERS: ClassVar[Dispatch[Collection, bool | None]] = Dispatch(
        {
            Taken: Phase.on_taken,
            Output: _take_output,
            Ended: _take_last_ends,
            Log: Phase.take_log,
            WorkerFault: _on_fault,
            Report: _take_report,
        },
        ignored=[Claimed, Held, Missing, Ready, Tokens, Load, Refused, About, Flooded, Pinged, Transmit, Echo],
    )
