"""The run folder of a validation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from planner.trace.records import SampleRecord, read_records
from planner.validation import run_folder
from planner.validation.run_folder import write_run_folder
from tests.execution.rig import SPLIT
from tests.validation.test_validation_verdict import INSTANCE, simulated, verdict


def test_the_folder_holds_what_was_run_what_came_out_and_pictures_of_it(tmp_path: Path) -> None:
    validation = verdict(simulated(slower=1.2))
    pictures = write_run_folder(tmp_path, INSTANCE, SPLIT, validation, 0.15)
    files = {"instance.json", "plan.json", "predicted.jsonl", "measured.jsonl", "result.json", "run.json"}
    assert {path.name for path in tmp_path.iterdir()} == files | {path.name for path in pictures.values()}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures.values())
    assert read_records(tmp_path / "measured.jsonl") == list(validation.measurement.records)
    assert json.loads((tmp_path / "result.json").read_text())["passed"] is False


def test_the_timeline_of_a_long_run_shows_its_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    validation = verdict(simulated())
    whole = write_run_folder(tmp_path / "whole", INSTANCE, SPLIT, validation, 0.15)
    records = [*validation.predicted, *validation.measurement.records]
    end_s = max(record.finished_s for record in records if isinstance(record, SampleRecord))
    monkeypatch.setattr(run_folder, "MOST_DRAWN", len(records) // 2)
    assert run_folder._beginning(validation) == pytest.approx((0.0, end_s / 2))
    part = write_run_folder(tmp_path / "part", INSTANCE, SPLIT, validation, 0.15)
    assert part["timeline"].read_bytes() != whole["timeline"].read_bytes()
    assert part["delays"].read_bytes() == whole["delays"].read_bytes()
