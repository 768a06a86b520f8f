"""A run's clock is the same on all devices although their wall clocks differ."""

from __future__ import annotations

import dataclasses
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from planner.execution.agent import driver, link_probe
from planner.trace.records import BlockRecord, SampleRecord, TransferRecord
from tests.execution.fleet import After, assert_accounted, deployment_for, fleet, said
from tests.execution.rig import SPLIT, agents_in_threads, small_deployment, small_instance, small_plan


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


@pytest.mark.parametrize("ahead_s", [{"a": 0.0, "b": 0.0}, {"a": 500.0, "b": -500.0}, {"a": -0.3, "b": 0.3}])
def test_deadlines_of_samples_hold_on_agents_whose_clocks_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead_s: dict[str, float]
) -> None:
    def wall_clock_s() -> float:
        return time.time() + ahead_s.get(threading.current_thread().name, 0.0)

    wrong = SimpleNamespace(time=wall_clock_s, monotonic=time.monotonic)
    monkeypatch.setattr(driver, "time", wrong)
    monkeypatch.setattr(link_probe, "time", wrong)
    instance = small_instance(samples=120, rate_per_s=1000.0).with_sources(
        {
            "urgent": {"deadline_s": 60.0, "late": "drop"},
            "other": {"deadline_s": 0.4, "late": "drop", "priority": 50.0},  # so the first are served at once
        }
    )
    deployment = small_deployment(instance, small_plan([("b", 0, 2)]))  # 240 samples of 6 ms wait there
    with agents_in_threads(instance.workers, tmp_path) as coordinator:
        measured = coordinator.run(dataclasses.replace(deployment, paced=True), ready_timeout_s=30.0)
    ends = [record for record in measured.records if isinstance(record, SampleRecord)]
    assert {record.status for record in ends if record.source == "urgent"} == {"completed"}
    others = [record for record in ends if record.source == "other"]
    dropped = [record for record in others if record.status == "dropped"]
    assert len(others) == 120
    assert 0 < len(dropped) < 120  # with clocks 0.6 s apart, all or none would be late if these were trusted
    for record in dropped:
        assert "would miss its deadline by" in record.reason
        assert record.late_s is not None
        assert 0 <= record.late_s < 10


@pytest.mark.parametrize("step_s", [-3600.0, 3600.0])
def test_a_wall_clock_that_is_set_during_a_run_does_not_matter_to_who_joins(
    step_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance, unset = small_instance(samples=120), time.time
    with fleet(tmp_path, "a", "b") as (agents, coordinator):

        def set_clock() -> None:
            monkeypatch.setattr(time, "time", lambda: unset() + step_s)
            agents.come("c")

        deployment = dataclasses.replace(deployment_for(instance), later=frozenset("c"))
        measured = coordinator.run(deployment, ready_timeout_s=30.0, observer=After((20, set_clock)))
    assert assert_accounted(instance, measured) == {}
    ended_s = max(record.finished_s for record in measured.records if isinstance(record, SampleRecord))
    blocks = [record for record in measured.records if isinstance(record, BlockRecord)]
    assert all(0 <= record.start_s <= record.end_s <= ended_s for record in blocks)
    assert all(0 <= incident.at_s <= ended_s + 60 for incident in measured.incidents)
    assert ("c", "joined the run") in said(measured)
