"""What a worker reports to the coordinator while a run goes on, and at its end."""

from __future__ import annotations

import logging
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Final

from planner.execution.agent.event_log import EventLog
from planner.execution.agent.outbox import SendFrame
from planner.execution.wire.diagnostics import LinkSpeed
from planner.execution.wire.frames import Frame, Tensors
from planner.execution.wire.messages import COORDINATOR, Deploy, Ended, Load, Log, Output, Report, Tokens, WorkerFault
from planner.execution.wire.transport import CONTROL, LEVELS
from planner.profiling.sensors import ROOT, power_w, temperature_celsius
from planner.trace.records import SampleRecord
from planner.worker.worker import Worker

_LOG = logging.getLogger(__name__)

LOAD_PERIOD_S: Final = 0.5
"""Period of the reports of a worker's load and log."""

_SENSORS_PERIOD_S: Final = 5.0

_BATCH_S: Final = 0.2
"""Ends of samples are batched for this long unless the run is live: each message costs both ends some work."""


class Reporter:
    """Reports one worker of one run; the times are those of the run's clock.

    Parameters
    ----------
    root
        Root folder of the system's files, for its sensors.
    """

    def __init__(self, name: str, deploy: Deploy, send: SendFrame, root: Path = ROOT) -> None:
        self.log = EventLog(live=deploy.live)
        self._name = name
        self._run = deploy.run
        self._send = send
        self._next_load_s = LOAD_PERIOD_S
        self._ended: list[SampleRecord] = []
        self._next_ends_s = inf
        self._failing: set[tuple[str, int]] = set()
        self._root = root
        self._sensors: tuple[float | None, float | None] = (None, None)
        self._next_sensors_s = 0.0

    @property
    def next_due_s(self) -> float:
        """Time at which :meth:`report_due` has something to send."""
        return min(self._next_load_s, self._next_ends_s)

    def report_due(self, worker: Worker, now_s: float, links: Callable[[], dict[str, LinkSpeed]]) -> None:
        """Send the ends of samples, the load and the log, each when it is due."""
        if self._next_ends_s <= now_s:
            self._send_ends()
        if self._next_load_s <= now_s:
            self._next_load_s = now_s + LOAD_PERIOD_S
            temperature, power = self._read_sensors(now_s)
            load = Load(
                run=self._run,
                worker=self._name,
                at_s=now_s,
                queued=worker.queued,
                busy_s=self.log.busy_s,
                blocks=self.log.blocks,
                carried_s=self.log.carried_s,
                received_bytes=self.log.received_bytes,
                slowness=worker.slowness(now_s),
                links=links(),
                temperature_celsius=temperature,
                power_w=power,
            )
            self._report(Frame(load))
            self._send_log()

    def _read_sensors(self, now_s: float) -> tuple[float | None, float | None]:
        """Return the device's temperature and power, which some devices take milliseconds to read."""
        if self._next_sensors_s <= now_s:
            self._next_sensors_s = now_s + _SENSORS_PERIOD_S
            self._sensors = temperature_celsius(self._root), power_w(self._root)
        return self._sensors

    def add_end(self, record: SampleRecord, now_s: float) -> None:
        """Report the end of a sample with the next batch."""
        if not self._ended:
            self._next_ends_s = now_s + _BATCH_S
        self._ended.append(record)

    def report_end(self, record: SampleRecord, outputs: Tensors, level: int) -> None:
        """Report the end of a sample of a live run at once, with its outputs."""
        self._report(Frame(Ended(run=self._run, worker=self._name, samples=(record,)), outputs), level)

    def report_tokens(self, source: str, sample: int, tokens: Tensors, level: int) -> None:
        """Report tokens of a sample of a live run that goes on."""
        self._report(Frame(Tokens(run=self._run, worker=self._name, source=source, sample=sample), tokens), level)

    def report_failing_block(self, model: str, block: int, reason: str) -> None:
        """Report, once, that a block fails; the end of each of its samples is reported as well."""
        if (model, block) in self._failing:
            return
        self._failing.add((model, block))
        what = f"block {block} of {model} fails: {reason}"
        _LOG.warning("%s: %s", self._name, what)
        self._report(Frame(WorkerFault(worker=self._name, what=what, run=self._run)))

    def report_all(self, waited_s: float) -> None:
        """Report, at the end of the run, the rest of the log, the outputs and the totals.

        Parameters
        ----------
        waited_s
            Time in seconds that the executor's thread was ready to run and got no processor.
        """
        self._send_log()
        for source, samples, tensors in self.log.outputs():
            self._report(Frame(Output(run=self._run, source=source, samples=tuple(samples)), tensors), LEVELS)
        report = Report(
            run=self._run,
            worker=self._name,
            duplicates=self.log.duplicates,
            late_blocks=self.log.late_blocks,
            waited_s=waited_s,
        )
        self._report(Frame(report), LEVELS)

    def _send_log(self) -> None:
        self._send_ends()
        if tensors := self.log.flush():
            self._report(Frame(Log(run=self._run, worker=self._name), tensors), LEVELS)

    def _send_ends(self) -> None:
        ended, self._ended, self._next_ends_s = self._ended, [], inf
        if ended:
            self._report(Frame(Ended(run=self._run, worker=self._name, samples=tuple(ended))))

    def _report(self, frame: Frame, level: int = CONTROL) -> None:
        self._send(COORDINATOR, frame, level)
