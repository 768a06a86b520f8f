"""Several coordinators of the same agent processes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from planner.execution.coordinator.coordinator import Coordinator
from planner.execution.coordinator.run_result import Observer
from planner.execution.probe.survey import Inquirer
from planner.execution.wire.messages import COORDINATOR
from planner.execution.wire.zenoh import zenoh_connect
from planner.trace.records import SampleRecord
from tests.execution.processes import Processes


@contextmanager
def coordinator_at(agents: Processes, *, share: float | None = None) -> Iterator[Coordinator]:
    agents.complete()
    connect = zenoh_connect(COORDINATOR, listen=agents.address, connect=[])
    with Coordinator(connect, share=share) as found:
        found.await_agents(agents.names, 60.0)
        yield found


@contextmanager
def another(agents: Processes, *, share: float | None = None, take_over: bool = False) -> Iterator[Coordinator]:
    connect = zenoh_connect(COORDINATOR, listen=None, connect=[agents.address])
    with Coordinator(connect, share=share, take_over=take_over) as found:
        found.await_agents(agents.names, 60.0)
        yield found


@contextmanager
def inquirer(agents: Processes) -> Iterator[Inquirer]:
    with Inquirer(zenoh_connect(COORDINATOR, listen=None, connect=[agents.address])) as found:
        found.find(agents.names, 60.0)
        yield found


class Stepping(Observer):
    """Says when a sample has ended, then waits until the test lets the run go on."""

    def __init__(self) -> None:
        self.under_way = threading.Event()
        self.go_on = threading.Event()

    def on_ended(self, sample: SampleRecord, outputs: object) -> None:  # noqa: ARG002
        self.under_way.set()
        assert self.go_on.wait(60.0)
