"""``planner report``: every kind of run that commands write, alone and side by side, and what is refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

import planner
from planner.profiling.store import save_profile
from planner.report.origin import write_origin
from planner.trace.records import SampleRecord, read_records
from tests.cli.command import planner as command
from tests.cli.test_cli_simulate import SCENARIO
from tests.instances import make_profile
from tests.report.pages import HOSTILE, Page


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a plan, a simulation of it, one under several policies, and a run like that of a validation."""
    folder = tmp_path_factory.mktemp("runs")
    profile = make_profile("classifier", block_s=[0.01, 0.02, 0.01, 0.015], std_s=0.002)
    save_profile(profile, folder / "profiles" / "reference" / "classifier.json")
    (folder / "scenario.yaml").write_text(SCENARIO)
    plan = planner.solve(folder / "scenario.yaml", routes="shared", seed=3, time_limit_s=20, progress=None)
    plan.save(folder / "plan.json")
    planner.simulate(plan.scenario, plan, folder=folder / "simulated", progress=None)
    policies = ("local", "adaptive")
    planner.compare_policies(
        plan.scenario, plan, policies=policies, replications=2, folder=folder / "compared", progress=None
    )
    return folder


def reported(folder: Path, *words: str | Path) -> dict[str, Any]:
    done = command("report", *words, "-o", folder / "report.html")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"wrote {folder / 'report.html'}\n"
    data: dict[str, Any] = Page((folder / "report.html").read_text(encoding="utf-8")).data
    return data


def test_a_plan_has_its_map_its_search_and_the_command_that_repeats_it(runs: Path, tmp_path: Path) -> None:
    (run,) = reported(tmp_path, runs / "plan.json")["runs"]
    assert run["kind"] == "plan"
    assert [worker["name"] for worker in run["scene"]["workers"]] == ["nano", "orin"]
    assert run["plan"]["search"]
    assert all(row["provenance"] == "measured" for row in run["profiles"])
    words = ("--routes shared", "--seed 3", "--time-limit 20s", f"-o {runs / 'plan.json'}")
    assert all(word in run["command"] for word in words)
    assert "--method" not in run["command"]
    digest = hashlib.sha256((runs / "plan.json").read_bytes()).hexdigest()
    assert {"name": "plan.json", "sha256": digest} in run["files"]


def test_a_simulation_has_what_happened_to_each_sample(runs: Path, tmp_path: Path) -> None:
    (run,) = reported(tmp_path, runs / "simulated")["runs"]
    records = read_records(runs / "simulated" / "trace.jsonl")
    ended = [record for record in records if isinstance(record, SampleRecord)]
    (trace,) = run["traces"]
    assert trace["sample_count"] == len(ended)
    assert trace["delays"]["gate"]["completed"] == 60
    assert run["labels"] == ["plan", "simulated"]
    for source, legs in run["legs"].items():  # those of a source add up to its mean delay
        measured_s = [sum(leg["measured"]) for leg in legs]
        assert sum(measured_s) == pytest.approx(trace["delays"][source]["mean_s"], rel=1e-3)
        planned_s = [sum(leg["predicted"]) for leg in legs]
        assert sum(planned_s) == pytest.approx(run["plan"]["sources"][source]["delay_s"], rel=1e-6)


def test_each_policy_is_a_run_and_all_kinds_stand_side_by_side(runs: Path, tmp_path: Path) -> None:
    trace = runs / "simulated" / "trace.jsonl"
    found = reported(tmp_path, runs / "plan.json", runs / "simulated", runs / "compared", trace)["runs"]
    assert [run["kind"] for run in found] == ["plan", "simulation", "simulation", "simulation", "trace"]
    assert [run["name"].rpartition(": ")[2] for run in found[2:4]] == ["adaptive", "local"]
    assert [run["plan"] is None for run in found] == [False, False, False, True, True]
    assert found[2]["notes"] == ["the first of 2 replications: trace-adaptive-0.jsonl"]


def test_a_validation_has_its_verdict_and_reasons(runs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "validated"
    folder.mkdir()
    for name, copy in (
        ("instance.json",) * 2,
        ("plan.json",) * 2,
        ("trace.jsonl", "predicted.jsonl"),
        ("trace.jsonl", "measured.jsonl"),
    ):
        (folder / copy).write_bytes((runs / "simulated" / name).read_bytes())
    leg = {
        "place": "wifi: cut 2",
        "predicted": {"wait_s": 0.1, "work_s": 0.2},
        "measured": {"wait_s": 0.3, "work_s": 0.4},
    }
    result = {
        "passed": False,
        "checks": [{"name": "samples", "passed": False, "found": HOSTILE, "expected": "none"}],
        "faults": ["sample 3 of gate failed"],
        "incidents": [{"at_s": 1.5, "worker": "orin", "what": "left"}],
        "host_limits": ["nano"],
        "sources": {"gate": {"explanation": "samples wait longer", "legs": [leg]}, "yard": {"legs": []}},
        "numerics": {"samples": 1},
    }
    (folder / "result.json").write_text(json.dumps(result))
    write_origin(folder, "validation")
    (run,) = reported(tmp_path, folder)["runs"]
    assert run["kind"] == "validation"
    assert [trace["label"] for trace in run["traces"]] == ["predicted", "measured"]
    assert run["verdict"]["checks"][0]["found"] == HOSTILE
    assert run["verdict"]["incidents"] == [[1.5, "orin left"]]
    assert run["legs"] == {
        "gate": [{"place": "wifi: cut 2", "transfer": True, "predicted": [0.1, 0.2], "measured": [0.3, 0.4]}]
    }
    assert run["command"].startswith("a Python process: ")
    result["passed"] = "perhaps"
    (folder / "result.json").write_text(json.dumps(result))
    refused = command("report", folder, "-o", tmp_path / "other.html")
    assert refused.returncode == 2
    assert "result.json: not the result of a validation" in refused.stderr
    assert not (tmp_path / "other.html").exists()


def test_a_trace_alone_or_with_a_page(runs: Path, tmp_path: Path) -> None:
    done = command("report", runs / "simulated", runs / "compared", "--trace", tmp_path / "trace.json")
    assert done.returncode == 0, done.stderr
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    named = [event["args"]["name"] for event in events if event["name"] == "process_name"]
    assert [name.rpartition(": ")[2] for name in named] == ["simulated"] * 3
    assert len(set(named)) == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nowhere", "-o", "r.html"), "there is no such file or folder"),
        (("{runs}/scenario.yaml", "-o", "r.html"), "not a plan or a run"),
        (("{runs}/profiles", "-o", "r.html"), "the folder has no trace"),
        (("{runs}/plan.json",), "what to write"),
        (("{runs}/plan.json", "--trace", "t.json"), "none of the runs has a trace"),
        (("{runs}/simulated/result.json.gone", "-o", "r.html"), "there is no such file or folder"),
    ],
)
def test_what_is_no_run_is_refused_in_one_message(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = command("report", *(word.format(runs=runs) for word in words))
    assert done.returncode == 2
    assert done.stdout == ""
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_the_file_of_a_broken_run_is_named(runs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "trace.jsonl").write_text('{"kind": "block"}\n')
    done = command("report", folder, "-o", tmp_path / "r.html")
    assert done.returncode == 2
    assert "trace.jsonl:1: not a trace record" in done.stderr
    (folder / "instance.json").write_text("{}")
    (folder / "trace.jsonl").write_bytes((runs / "simulated" / "trace.jsonl").read_bytes())
    done = command("report", folder, "-o", tmp_path / "r.html")
    assert done.returncode == 2
    assert "instance.json: not the scenario of a run" in done.stderr
