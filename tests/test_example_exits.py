"""The example of early exits reaches what it is there to show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.command import script

FOLDER = Path(__file__).parents[1] / "examples" / "exits"
EQUAL = 0.005


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exits")
    done = script(FOLDER / "run.py", "--quick", "-o", folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def report(results: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((results / "report.json").read_text(encoding="utf-8"))
    return found


def test_the_front_has_five_points_or_more_and_a_picture(results: Path, report: dict[str, Any]) -> None:
    accuracies, delays_s = zip(*report["front"], strict=True)
    assert len(set(accuracies)) == len(set(delays_s)) == len(report["front"]) >= 5
    assert list(accuracies) == sorted(accuracies)
    assert list(delays_s) == sorted(delays_s)
    assert (results / "front.png").read_bytes().startswith(b"\x89PNG")


def test_at_equal_accuracy_exits_save_a_quarter_of_the_delay(report: dict[str, Any]) -> None:
    whole, early = report["equal"]["without exits"], report["equal"]["with exits"]
    assert early["promised"] >= whole["promised"] - EQUAL
    assert early["right"] >= whole["right"] - EQUAL
    assert early["delay_s"] <= 0.75 * whole["delay_s"]


def test_under_overload_leaving_early_gives_more_right_answers_than_dropping(report: dict[str, Any]) -> None:
    (found,) = report["overload"].values()
    dropping, planned, adaptive = found.values()
    assert dropping["right"] < dropping["promised"]
    assert planned["right"] > dropping["right"] + 0.05
    assert adaptive["right"] > dropping["right"] + 0.05
    assert max(planned["delay_s"], adaptive["delay_s"]) < dropping["delay_s"]
