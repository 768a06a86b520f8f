"""A run's clock is the same on all devices although their wall clocks differ."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from planner.execution.agent import driver, link_probe
from planner.trace.records import BlockRecord, SampleRecord, TransferRecord
from tests.execution.rig import SPLIT, agents_in_threads, small_deployment, small_instance


@pytest.mark.parametrize("ahead_s", [1000.0, -1000.0])
def test_agents_whose_clocks_are_off_start_with_the_coordinator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead_s: float
) -> None:
    wrong = SimpleNamespace(time=lambda: time.time() + ahead_s, monotonic=time.monotonic)
    monkeypatch.setattr(driver, "time", wrong)
    monkeypatch.setattr(link_probe, "time", wrong)
    instance = small_instance(samples=5)
    with agents_in_threads(instance.workers, tmp_path) as coordinator:
        begun_s = time.monotonic()
        measured = coordinator.run(small_deployment(instance, SPLIT), ready_timeout_s=30.0)
        took_s = time.monotonic() - begun_s
    ends = [record for record in measured.records if isinstance(record, SampleRecord)]
    assert [record.status for record in ends] == ["completed"] * 10
    for record in measured.records:
        if isinstance(record, BlockRecord | TransferRecord):
            assert 0 <= record.start_s <= record.end_s <= took_s
