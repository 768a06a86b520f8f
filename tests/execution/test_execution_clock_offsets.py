"""A run's clock is the same on all devices although their wall clocks differ."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from planner.execution.agent import driver, link_probe
from planner.trace.records import BlockRecord, SampleRecord, TransferRecord
from tests.execution.fleet import After, assert_accounted, deployment_for, fleet, said
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
