"""The list of what became of samples, when a power cut has torn its last line."""

from __future__ import annotations

import json
from concurrent.futures import Future
from pathlib import Path

import pytest

from planner.errors import ExecuteError
from planner.execution.session.feed import SampleOutcome
from planner.execution.session.results import ResultFolder
from planner.execution.session.source import Result


def failed(number: int) -> SampleOutcome:
    future: Future[Result] = Future()
    future.set_exception(ExecuteError("no memory"))
    return SampleOutcome("urgent", number, str(number), future)


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_a_torn_line_does_not_run_into_the_next(kept: int, tmp_path: Path) -> None:
    before = ResultFolder(tmp_path, ["urgent"])
    for number in range(3):
        before.write(failed(number))
    listing = tmp_path / "urgent.jsonl"
    whole = listing.read_bytes().splitlines(keepends=True)
    listing.write_bytes(b"".join(whole[:kept]) + whole[kept][:-1])
    after = ResultFolder(tmp_path, ["urgent", "other"], resume=True)
    after.write(failed(7))
    numbers = [json.loads(line)["sample"] for line in listing.read_text().splitlines()]
    assert numbers == [*range(kept), 7]
