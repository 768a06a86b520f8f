"""What workers tell of their load while a run goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from planner.execution.coordinator.run_result import Observer
from planner.execution.wire.messages import Load
from planner.trace.records import BlockRecord, TransferRecord
from tests.execution.rig import SPLIT, agents_in_threads, line_of_three, small_deployment


class Loads(Observer):
    def __init__(self) -> None:
        self.last: dict[str, Load] = {}

    def on_load(self, load: Load) -> None:
        self.last[load.worker] = load


def test_a_worker_tells_what_it_computed_and_what_came_over_each_network(tmp_path: Path) -> None:
    instance, loads = line_of_three(samples=80), Loads()
    with agents_in_threads(instance.workers, tmp_path) as coordinator:
        deployment = small_deployment(instance, SPLIT)
        measured = coordinator.run(deployment, ready_timeout_s=30.0, observer=loads)
    assert set(loads.last) == set(instance.workers)
    for worker, load in loads.last.items():
        carried_s: dict[str, float] = {}
        for record in measured.records:
            if isinstance(record, TransferRecord) and record.receiver == worker and record.end_s <= load.at_s:
                carried_s[record.resource] = carried_s.get(record.resource, 0.0) + record.size_bytes / 1e8
        assert load.carried_s == pytest.approx(carried_s)
        assert carried_s
        blocks = [record for record in measured.records if isinstance(record, BlockRecord) and record.worker == worker]
        assert load.busy_s <= sum(block.end_s - block.start_s for block in blocks) * (1 + 1e-9)
