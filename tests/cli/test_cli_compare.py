from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from planner.cli import main
from planner.plan.evaluate import weighted_means
from planner.profiling.store import save_profile
from planner.profiling.types import ExitPoint, OperatingPoint
from planner.scenario.load import load_instance
from planner.solvers import METHODS, solve
from tests.instances import make_profile

SCENARIO = """\
schema: planner/scenario/v1
profiles: [profiles]
models:
  classifier: {profile: classifier}
workers:
  nano: {device_class: reference, memory: 3 GiB}
  orin: {device_class: reference, memory: 6 GiB, speed: 4.0}
networks:
  wifi: {kind: shared, members: [nano, orin], bandwidth: 54 Mbit/s, latency: 3 ms}
sources:
  gate: {worker: nano, models: [classifier], rate: 5 /s, priority: 8, samples: 60}
  yard: {worker: nano, models: [classifier], rate: 8 /s, samples: 60}
objective: {goal: delay}
"""


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    profile = make_profile(
        "classifier",
        block_s=[0.01, 0.02, 0.015, 0.02],
        exits=[ExitPoint(name="early", cut=2, result_bytes=400)],
        operating_points=[
            OperatingPoint(name=f"t{part}", accuracy=accuracy, thresholds=(part,), reach=(1.0, 1.0, part, part))
            for accuracy, part in ((0.70, 0.1), (0.86, 0.4), (0.87, 0.6), (0.90, 1.0))
        ],
    )
    save_profile(profile, tmp_path / "profiles" / "reference" / "classifier.json")
    path = tmp_path / "scenario.yaml"
    path.write_text(SCENARIO)
    return path


def run(words: list[str]) -> int:
    with pytest.raises(SystemExit) as caught:
        main(words)
    return int(caught.value.code or 0)


def test_all_methods_stand_side_by_side(scenario: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    picture = tmp_path / "methods.svg"
    assert run(["compare", str(scenario), "--json", "--simulate", "-o", str(picture), "--time-limit", "4s"]) == 0
    methods = json.loads(capsys.readouterr().out)["methods"]
    assert list(methods) == list(METHODS)
    assert methods["dp"]["status"] == "refused"
    assert "one source" in methods["dp"]["reasons"][0]
    solved = {name: found for name, found in methods.items() if "objective" in found}
    assert {"convex", "colgen", "milp", "search", "exhaustive"} <= set(solved)
    assert methods["milp"]["objective"] == pytest.approx(methods["exhaustive"]["objective"], rel=2e-3)
    for found in solved.values():
        assert found["gap"] >= 0
        assert found["objective"] >= methods["convex"]["bound"] * (1 - 1e-6)
        assert found["priority_weighted_delay_s"] > 0
        assert found["simulated_priority_weighted_delay_s"] > 0
    # A baseline proves nothing; its gap is to what the others proved.
    assert methods["two-part"]["gap"] < 1
    text = picture.read_text()
    assert all(name in text for name in METHODS)


def test_methods_are_compared_by_what_misses_its_deadline(scenario: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["compare", str(scenario), "--method", "local", "--method", "colgen", "--time-limit", "2s"]
    assert run(words) == 0
    assert "missed" not in capsys.readouterr().out
    timed = SCENARIO.replace("priority: 8,", "priority: 8, deadline: 120 ms,").replace(
        "8 /s,", "8 /s, deadline: 200 ms,"
    )
    scenario.write_text(timed.replace("goal: delay", "goal: misses"))
    assert run(words) == 0
    assert "missed" in capsys.readouterr().out
    assert run([*words, "--json"]) == 0
    methods = json.loads(capsys.readouterr().out)["methods"]
    shares = {name: found["priority_weighted_miss_share"] for name, found in methods.items() if "objective" in found}
    assert 0 <= shares["colgen"] <= shares.get("local", 1.0) <= 1


def test_the_table_says_why_a_method_is_missing(scenario: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["compare", str(scenario), "--method", "dp", "--method", "colgen"]) == 0
    printed = capsys.readouterr().out
    assert "refused" in printed
    assert "dp: method dp: not the problem this method solves" in printed


def test_a_comparison_without_any_plan_ends_with_1(scenario: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scenario.write_text(SCENARIO.replace("rate: 8 /s", "rate: 800 /s"))
    assert run(["compare", str(scenario), "--method", "milp", "--method", "local"]) == 1
    assert "busy" in capsys.readouterr().out
    assert run(["compare", str(scenario), "--method", "magic"]) == 2
    assert run(["compare", str(scenario), "--rank", "beauty"]) == 2


@pytest.mark.parametrize("routes", ["single", "shared"])
def test_on_the_front_accuracy_costs_delay(
    scenario: Path, routes: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    picture = tmp_path / "front.png"
    words = ["pareto", str(scenario), "--json", "--routes", routes, "-o", str(picture), "--points", "4"]
    assert run(words) == 0
    points = json.loads(capsys.readouterr().out)["points"]
    assert picture.stat().st_size > 10_000
    assert len(points) >= 4
    for one, other in itertools.pairwise(points):
        assert one["accuracy"] < other["accuracy"]
        assert one["priority_weighted_delay_s"] < other["priority_weighted_delay_s"]
    assert points[0]["accuracy"] == pytest.approx(0.70, abs=0.02)
    assert points[-1]["accuracy"] == pytest.approx(0.90, abs=1e-4)
    for point in points:
        sources = point["sources"].values()
        assert all(sum(route["share"] for route in own["routes"]) == pytest.approx(1) for own in sources)


def test_a_point_is_what_solve_finds_with_its_worth(scenario: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["pareto", str(scenario), "--json", "--points", "3", "--time-limit", "4s"]) == 0
    points = json.loads(capsys.readouterr().out)["points"]
    (point, *_) = [point for point in points if point["accuracy_worth_s"] > 0]
    worth = f"{point['accuracy_worth_s'] * 1e3} ms"
    scenario.write_text(SCENARIO.replace("{goal: delay}", f"{{goal: delay, accuracy_worth: {worth}}}"))
    instance = load_instance(scenario)
    plan = solve(instance, time_limit_s=4.0).plan
    assert plan is not None
    delay_s, accuracy = weighted_means(instance, plan.sources)
    found = delay_s + 100 * point["accuracy_worth_s"] * (1 - accuracy)
    on_front = point["priority_weighted_delay_s"] + 100 * point["accuracy_worth_s"] * (1 - point["accuracy"])
    assert found == pytest.approx(on_front, rel=1e-2)


def test_accuracies_that_no_worker_can_bear_are_left_out(scenario: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scenario.write_text(SCENARIO.replace("rate: 8 /s", "rate: 90 /s").replace("54 Mbit/s", "500 Mbit/s"))
    assert run(["pareto", str(scenario), "--json", "--points", "2", "--routes", "shared"]) == 0
    points = json.loads(capsys.readouterr().out)["points"]
    assert 0.70 < points[-1]["accuracy"] < 0.90


def test_a_front_without_any_plan_ends_with_1(scenario: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scenario.write_text(SCENARIO.replace("rate: 8 /s", "rate: 800 /s"))
    assert run(["pareto", str(scenario)]) == 1
    assert "no plan" in capsys.readouterr().err
    scenario.write_text(SCENARIO.replace("goal: delay", "goal: makespan"))
    assert run(["pareto", str(scenario)]) == 2
