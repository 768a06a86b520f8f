from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from planner.cli import main
from planner.plan.store import load_plan
from planner.plan.verify import verify
from planner.profiling.store import save_profile
from planner.scenario.load import load_instance
from planner.units import format_quantity
from tests.instances import make_profile

SCENARIO = """\
schema: planner/scenario/v1
profiles: [profiles]
models:
  classifier: {profile: classifier}
workers:
  nano: {device_class: reference, memory: 3 GiB}
  xavier: {device_class: reference, memory: 6 GiB, speed: 3.0}
  orin: {device_class: reference, memory: 6 GiB, speed: 6.0}
networks:
  wifi: {kind: shared, members: [nano, xavier, orin], bandwidth: 54 Mbit/s, latency: 3 ms}
sources:
  gate: {worker: nano, models: [classifier], rate: 4 /s, priority: 8, max_mean_delay: 250 ms}
  yard: {worker: nano, models: [classifier], rate: 8 /s, priority: 1}
objective: {goal: delay, accuracy_worth: 50 ms}
"""


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    block_s = [0.01, 0.02, 0.01, 0.015, 0.01, 0.02, 0.01, 0.01]
    profile = make_profile("classifier", block_s=block_s, stage_overhead_s=0.0005)
    save_profile(profile, tmp_path / "profiles" / "reference" / "classifier.json")
    path = tmp_path / "scenario.yaml"
    path.write_text(SCENARIO)
    return path


def test_a_plan_file_names_its_scenario(scenario: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    output = tmp_path / "plans" / "plan.json"
    main_ok(["solve", str(scenario), "-o", str(output)])
    printed = capsys.readouterr()
    assert "optimal" in printed.out
    assert "gate" in printed.out
    assert printed.out.endswith(f"wrote {output}\n")
    plan = load_plan(output)
    verify(load_instance(scenario), plan)
    assert plan.scenario is not None
    assert plan.scenario.path == "../scenario.yaml"
    assert plan.scenario.sha256 == hashlib.sha256(scenario.read_bytes()).hexdigest()


def test_a_plan_is_drawn(scenario: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    picture = tmp_path / "pictures" / "plan.svg"
    main_ok(["solve", str(scenario), "--picture", str(picture)])
    printed = capsys.readouterr().out
    assert printed.endswith(f"wrote {picture}\n")
    text = picture.read_text()
    assert "weighted by priority and rate    |    optimal, gap" in text
    assert all(f">{name}<" in text for name in ("gate", "yard", "nano", "xavier", "orin", "wifi"))
    main_ok(["solve", str(scenario), "--picture", str(picture.with_suffix(".png")), "--json"])
    assert json.loads(capsys.readouterr().out)["sources"].keys() == {"gate", "yard"}
    assert picture.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert exit_code(["solve", str(scenario), "--picture", str(tmp_path / "plan.bmp")]) == 2
    assert "ends in .svg or .png" in capsys.readouterr().err


def test_an_accuracy_that_nobody_knows_is_not_told(
    scenario: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    quickly = ["--method", "two-part"]
    main_ok(["solve", str(scenario), *quickly])
    assert "accuracy" not in capsys.readouterr().out
    main_ok(["pareto", str(scenario), "--points", "0", *quickly])
    assert "no profile of this scenario knows an accuracy" in capsys.readouterr().err
    asking = scenario.with_name("asking.yaml")
    asking.write_text(SCENARIO.replace("priority: 1}", "priority: 1, min_accuracy: 90 %}"))
    main_ok(["solve", str(asking), *quickly])
    unkept = "sources.yard.min_accuracy has no effect: the accuracy of classifier is not known"
    assert unkept in capsys.readouterr().err
    path = tmp_path / "profiles" / "reference" / "classifier.json"
    points = [{"name": name, "accuracy": known, "reach": [1.0] * 8} for name, known in (("day", 0.9), ("night", 0.8))]
    document = json.loads(path.read_text()) | {"operating_points": points}
    path.write_text(json.dumps(document))
    main_ok(["solve", str(scenario), *quickly])
    told = capsys.readouterr().out
    assert "accuracy" in told
    assert "classifier (day)" in told
    main_ok(["solve", str(asking), *quickly])
    assert unkept not in capsys.readouterr().err


def test_outputs_that_nothing_returns_are_warned_of(
    scenario: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "profiles" / "reference" / "classifier.json"
    document = json.loads(path.read_text()) | {"exits": [{"name": "left_head", "cut": 3, "result_bytes": 40}]}
    point = {"name": "half", "accuracy": 0.9, "thresholds": [0.5], "reach": [1.0] * 3 + [0.5] * 5}
    for points, warned in (([], True), ([point], False)):
        path.write_text(json.dumps(document | {"operating_points": points}))
        main_ok(["solve", str(scenario), "--method", "two-part"])
        found = "early exits (left_head); without operating points no sample leaves there" in capsys.readouterr().err
        assert found == warned


def test_a_baseline_has_no_bound(scenario: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main_ok(["solve", str(scenario), "--method", "equal"])
    assert "no bound (surrogate objective), by equal" in capsys.readouterr().out


def test_json_is_alone_on_stdout(scenario: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main_ok(["solve", str(scenario), "--json", "--time-limit", "30s", "--rank", "surrogate"])
    document = json.loads(capsys.readouterr().out)
    assert document["status"] == "optimal"
    expected = "status method goal objective bound gap solve_s provenance sources workers networks"
    assert set(expected.split()) <= set(document)
    of_source = "accuracy delay_s surrogate_delay_s ttft_s tpot_s routes"
    assert set(document["sources"]["gate"]) == set(of_source.split())
    assert document["sources"]["gate"]["routes"][0]["stages"][0].keys() == {"worker", "first_block", "last_block"}


def test_prices_come_with_the_plan(scenario: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    output = tmp_path / "plan.json"
    main_ok(["solve", str(scenario), "--prices", "--routes", "shared", "--json", "-o", str(output)])
    prices = json.loads(capsys.readouterr().out)["prices"]
    assert prices["by"] == "duals"
    assert set(prices["workers"]) == {"nano", "xavier", "orin"}
    assert prices["workers"]["orin"]["faster"] > 0
    assert prices["networks"]["wifi"]["mbit_per_s"] > 0
    verify(load_instance(scenario), load_plan(output))
    main_ok(["solve", str(scenario), "--prices"])
    assert "10 % faster" in capsys.readouterr().out


def test_an_infeasible_scenario_ends_with_1_and_the_limit(
    scenario: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    scenario.write_text(SCENARIO.replace("rate: 8 /s", "rate: 800 /s"))
    assert exit_code(["solve", str(scenario), "-o", str(tmp_path / "none.json")]) == 1
    assert "busy" in capsys.readouterr().err
    assert not (tmp_path / "none.json").exists()
    assert exit_code(["solve", str(scenario), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["status"] == "infeasible"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--method", "magic"], "unknown method"),
        (["--time-limit", "60"], "--time-limit"),
        (["--rank", "beauty"], "unknown ranking"),
        (["--routes", "many"], "unknown kind of routes"),
        (["--pin", "gate=nano"], "not a pinned stage"),
        (["--pin", "gate:0-3=mars"], "no such worker"),
        (["--pin", "gate:7-8=nano"], "no such block"),
        (["--pin", "gate:0-30000000000=nano"], "no such block"),
        (["--pin", "gate:3-1=nano"], "its last block comes before its first"),
        (["--pin", "gate:0-3=nano", "--pin", "gate:2=xavier"], "block 2 is pinned twice"),
        (["--pin", "door:0=nano"], "no such source"),
        (["--start", "none.json"], "cannot read the plan"),
    ],
)
def test_wrong_options_end_with_2(
    scenario: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(["solve", str(scenario), *words]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert not printed.out


def test_pinned_stages_stay_where_the_user_wants_them(scenario: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    main_ok(["solve", str(scenario), "-o", str(first), "--pin", "gate:0-3=xavier", "--pin", "gate:5=nano"])
    workers = [stage.worker for stage in load_plan(first).sources["gate"].routes[0].stages for _ in range(2)]
    assert workers[0] == "xavier"
    assert "nano" in workers
    main_ok(["solve", str(scenario), "-o", str(second), "--start", str(first), "--routes", "shared"])
    assert load_plan(second).method == "colgen"


def test_a_missing_scenario_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(["solve", str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml" in capsys.readouterr().err


def exit_code(words: list[str]) -> int:
    with pytest.raises(SystemExit) as caught:
        main(words)
    return int(caught.value.code or 0)


def main_ok(words: list[str]) -> None:
    assert exit_code(words) == 0


def test_a_batch_s_work_is_told_in_seconds(scenario: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    scenario.write_text(SCENARIO.replace("{goal: delay, accuracy_worth: 50 ms}", "{goal: makespan}"))
    main_ok(["solve", str(scenario), "-o", str(tmp_path / "plan.json")])
    printed = capsys.readouterr().out
    busiest_s = max(use.utilisation for use in load_plan(tmp_path / "plan.json").workers.values())
    assert "work of the batch" in printed
    assert format_quantity(busiest_s, "time") in printed


def test_a_gap_above_the_required_one_is_exit_code_1(
    scenario: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    output = tmp_path / "plan.json"
    main_ok(["solve", str(scenario), "--require-gap", "5%"])
    capsys.readouterr()
    words = ["solve", str(scenario), "--method", "ar-mdi", "--require-gap", "5 %", "-o", str(output)]
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 1
    printed = capsys.readouterr()
    assert "at most 5.00% is required" in printed.err
    assert load_plan(output).warning in {line.removeprefix("warning: ") for line in printed.out.splitlines()}
    for wrong in ("5", "-1%", "five"):
        with pytest.raises(SystemExit) as end:
            main(["solve", str(scenario), "--require-gap", wrong])
        assert end.value.code == 2
        assert "--require-gap" in capsys.readouterr().err


def test_the_proof_and_the_worth_of_the_devices_are_in_json(scenario: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main_ok(["solve", str(scenario), "--json", "--threads", "2", "--time-limit", "30s"])
    plan = json.loads(capsys.readouterr().out)
    assert plan["warning"] is None
    assert plan["threads"] == 2
    assert plan["worth"]["spare"] in {"xavier", "orin", None}  # samples arrive at nano
    assert plan["options"]["time_limit_s"] == 30
