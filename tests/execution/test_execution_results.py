"""Files and lists of results after kills and power cuts, and on a full disk."""

from __future__ import annotations

import json
import resource
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest

from planner.errors import ExecuteError
from planner.execution.session.feed import SampleOutcome
from planner.execution.session.results import ResultFolder, refuse_overwriting
from planner.execution.session.source import Result

OF = {"urgent": {"samples": "/samples", "models": {"small": "1"}}}


def failed(number: int) -> SampleOutcome:
    future: Future[Result] = Future()
    future.set_exception(ExecuteError("no memory"))
    return SampleOutcome("urgent", number, str(number), future)


def completed(number: int, size: int = 4) -> SampleOutcome:
    future: Future[Result] = Future()
    future.set_result(Result("urgent", number, {"y": np.full(size, number, np.float32)}, 0.5))
    return SampleOutcome("urgent", number, str(number), future)


def names(folder: Path) -> list[str]:
    return [json.loads(line)["name"] for line in (folder / "urgent.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_a_torn_line_does_not_run_into_the_next(kept: int, tmp_path: Path) -> None:
    before = ResultFolder(tmp_path, OF)
    for number in range(3):
        before.write(completed(number))
    listing = tmp_path / "urgent.jsonl"
    whole = listing.read_bytes().splitlines(keepends=True)
    listing.write_bytes(b"".join(whole[:kept]) + whole[kept][:-1])
    after = ResultFolder(tmp_path, {**OF, "other": None}, resume=True)
    assert [after.has("urgent", str(number)) for number in range(3)] == [number < kept for number in range(3)]
    after.write(failed(7))
    assert names(tmp_path) == [*map(str, range(kept)), "7"]


def test_a_resumed_list_has_one_line_of_each_sample_whatever_was_lost(tmp_path: Path) -> None:
    before = ResultFolder(tmp_path, OF)
    for number, write in enumerate([completed, failed, completed, completed]):
        before.write(write(number))
    listing = tmp_path / "urgent.jsonl"
    lines = listing.read_text().splitlines(keepends=True)
    listing.write_text("".join(lines[:3]))  # killed between the file and the line of 3
    (tmp_path / "urgent" / "2.npz").unlink()
    after = ResultFolder(tmp_path, OF, resume=True)
    assert [number for number in range(4) if not after.has("urgent", str(number))] == [1, 2, 3]
    for number in (1, 2, 3):
        after.write(completed(number))
    assert names(tmp_path) == list("0123")


def test_a_result_that_does_not_fit_on_the_disk_fails_by_name_and_the_next_is_written(tmp_path: Path) -> None:
    folder = ResultFolder(tmp_path, OF)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**14, limits[1]))
    try:
        large, small = folder.write(completed(0, size=2**14)), folder.write(completed(1))
        listed = (tmp_path / "urgent.jsonl").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (listed + 10, limits[1]))
        unlisted = folder.write(failed(2)), folder.write(completed(3, size=0))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert large.result is None
    assert f"{tmp_path / 'urgent' / '0.npz'}: the result cannot be written: " in large.reason
    assert small.file == tmp_path / "urgent" / "1.npz"
    assert all(outcome.result is None for outcome in unlisted)
    folder.write(completed(4))
    assert names(tmp_path) == ["0", "1", "4"]
    resumed = ResultFolder(tmp_path, OF, resume=True)
    assert [number for number in range(5) if resumed.has("urgent", str(number))] == [1, 4]
    assert not (tmp_path / "urgent" / "0.npz").exists()


def test_results_of_other_samples_or_models_are_not_resumed(tmp_path: Path) -> None:
    ResultFolder(tmp_path, {"urgent": {"samples": "/one", "models": {"m": "1"}}}).write(completed(0))
    for other in ({"samples": "/two", "models": {"m": "1"}}, {"samples": "/one", "models": {"m": "2"}}):
        with pytest.raises(ExecuteError, match=r"run\.json, urgent: its results are of other samples or models"):
            ResultFolder(tmp_path, {"urgent": other}, resume=True)
    same = ResultFolder(tmp_path, {"urgent": {"samples": "/one", "models": {"m": "1"}}, "other": {}}, resume=True)
    assert same.has("urgent", "0")
    ResultFolder(tmp_path, {"other": {}}, resume=True)
    assert json.loads((tmp_path / "run.json").read_text())["urgent"]["samples"] == "/one"


@pytest.mark.parametrize("text", ["", "[]", '{"urgent": ', "\x00", "[" * 5000])
def test_a_damaged_record_is_one_message(text: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(ExecuteError, match=r"run\.json: (cannot be read|not a record of a run)"):
        ResultFolder(tmp_path, OF, resume=True)
    ResultFolder(tmp_path, OF)


@pytest.mark.parametrize("place", ["urgent", "urgent/0.npz", "other", "link"])
def test_samples_where_results_would_be_written_are_refused(place: str, tmp_path: Path) -> None:
    for name in OF:
        (tmp_path / name).mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "urgent" / "0.npz").touch()
    (tmp_path / "link").symlink_to("urgent")
    places = {"urgent": str(tmp_path / place), "other": "python samples.py"}
    with pytest.raises(ExecuteError, match="source urgent: results would overwrite the samples"):
        refuse_overwriting(tmp_path, places)
    refuse_overwriting(tmp_path / "results", places)
