"""The coordinator's handling of messages in the phases of a run."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import get_args

import pytest

from planner.execution.coordinator import supervision
from planner.execution.coordinator.collection import Collection
from planner.execution.coordinator.coordinator import Coordinator
from planner.execution.coordinator.preparation import Preparation
from planner.execution.coordinator.supervision import Supervision
from planner.execution.wire.frames import Frame
from planner.execution.wire.messages import (
    COORDINATOR,
    Body,
    Claim,
    Claimed,
    Deploy,
    Ended,
    Ready,
    Report,
    Start,
    Stop,
    ToCoordinator,
)
from planner.execution.wire.transport import CONTROL
from planner.trace.records import SampleRecord
from tests.execution.fleet import deployment_for, said
from tests.execution.memory_network import MemoryNetwork
from tests.execution.rig import small_instance


@pytest.mark.parametrize("phase", [Preparation, Supervision, Collection])
def test_each_phase_handles_or_ignores_every_message_to_the_coordinator(phase: type) -> None:
    table = phase.HANDLERS  # type: ignore[attr-defined]
    assert table.kinds == set(get_args(ToCoordinator))


def test_an_agent_that_has_fallen_silent_is_claimed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "SILENT_S", 0.2)
    instance, network = small_instance(samples=1), MemoryNetwork()

    def answers(name: str, body: Body) -> Iterator[Body]:
        if isinstance(body, Claim):
            yield Claimed(run=body.run, worker=name)
        elif isinstance(body, Deploy):
            yield Ready(run=body.run, worker=name, warm_block_s={})
        elif isinstance(body, Start) and name == "a" and body.joins:
            ends = (SampleRecord(source, 0, 0.0, 0.1, "completed") for source in instance.sources)
            yield Ended(run=body.run, worker=name, samples=tuple(ends))
        elif isinstance(body, Stop):
            yield Report(run=body.run, worker=name, duplicates=0, late_blocks=0)

    def take(name: str, frame: Frame) -> None:
        for answer in answers(name, frame.body):
            members[name].send(COORDINATOR, Frame(answer), CONTROL)

    members = {
        name: network.connect(name)(partial(take, name), lambda _member, _present: None) for name in instance.workers
    }
    with Coordinator(network.connect(COORDINATOR)) as coordinator:
        coordinator.await_agents(instance.workers, 30.0)
        measured = coordinator.run(deployment_for(instance), ready_timeout_s=30.0)
    told = [what for worker, what in said(measured) if worker == "a"]
    assert told[:3] == ["has sent nothing for 0.2 s", "connected", "joined the run"]
    assert [record.status for record in measured.records if isinstance(record, SampleRecord)] == ["completed"] * 2
    for member in members.values():
        member.close()
