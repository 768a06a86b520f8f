from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from planner.scenario.load import load_instance
from tests.cli.command import script

FOLDER = Path(__file__).parents[1] / "examples" / "pa-mdi"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pa-mdi")
    done = script(FOLDER / "run.py", "--quick", "-o", folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def report(results: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((results / "report.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("graph", ["ring", "multi-hop"])
def test_every_worker_can_reach_every_other_and_some_only_over_others(graph: str) -> None:
    instance = load_instance(FOLDER / f"{graph}.yaml")
    hops = [
        len(path.hops)
        for sender in instance.workers
        for receiver in instance.workers
        if (path := instance.path(sender, receiver)) is not None and sender != receiver
    ]
    assert len(hops) == 6 * 5
    assert max(hops) >= 2


@pytest.mark.parametrize("graph", ["ring", "multi-hop"])
def test_a_headline_stands_only_where_pa_mdi_and_all_existing_policies_are_stable(
    report: dict[str, Any], graph: str
) -> None:
    for found in report[graph]["loads"].values():
        results = found["results"]
        stable = all(results[policy]["stable"] for policy in ("local", "ar-mdi", "ms-mdi", "pa-mdi"))
        assert (found["gain"] is not None) == stable


def test_the_urgent_source_is_far_ahead_of_local_computation_at_half_load(report: dict[str, Any]) -> None:
    results = report["ring"]["loads"]["0.5"]["results"]
    assert results["pa-mdi"]["delays_s"]["alarm"] < 0.5 * results["local"]["delays_s"]["alarm"]


def test_priorities_serve_the_urgent_source(report: dict[str, Any]) -> None:
    delays_s = report["sensitivity"]["alarm"]
    assert delays_s[-1] < delays_s[0]
    ablation = report["ablation"]
    assert ablation["pa-mdi"]["delays_s"]["alarm"] < ablation["without priorities"]["delays_s"]["alarm"]


def test_curves_are_drawn(results: Path) -> None:
    assert {path.name for path in results.glob("*.png")} == {"priority.png", "workers.png"}
