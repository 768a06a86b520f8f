from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from planner.cli import main
from planner.policy.registry import POLICIES, needs_plan
from planner.profiling.store import save_profile
from planner.simulation import replications
from planner.trace.records import SampleRecord, read_records
from tests.instances import make_profile

SCENARIO = """\
schema: planner/scenario/v1
profiles: [profiles]
models:
  classifier: {profile: classifier}
workers:
  nano: {device_class: reference, memory: 3 GiB}
  orin: {device_class: reference, memory: 6 GiB, speed: 6.0}
networks:
  wifi: {kind: shared, members: [nano, orin], bandwidth: 540 Mbit/s, latency: 1 ms}
sources:
  gate: {worker: nano, models: [classifier], rate: 4 /s, priority: 8, samples: 60}
  yard: {worker: nano, models: [classifier], rate: 8 /s, priority: 1, samples: 120}
"""
SAMPLES = 180
SOURCE_KEYS = {
    "offered", "completed", "failed", "mean_delay_s", "p50_delay_s", "p95_delay_s", "p99_delay_s", "accuracy",
    "measured_accuracy", "dropped", "miss_share", "max_late_s", "ttft_s", "tpot_s", "tokens_per_s",
}  # fmt: skip


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    profile = make_profile("classifier", block_s=[0.01, 0.02, 0.01, 0.015], std_s=0.002)
    save_profile(profile, tmp_path / "profiles" / "reference" / "classifier.json")
    path = tmp_path / "scenario.yaml"
    path.write_text(SCENARIO)
    return path


@pytest.fixture
def plan(scenario: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    path = scenario.parent / "plan.json"
    run(["solve", scenario, "-o", path])
    capsys.readouterr()
    return path


def run(words: list[str | Path]) -> None:
    assert exit_code(words) == 0


def exit_code(words: list[str | Path]) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(word) for word in words])
    return int(caught.value.code or 0)


def document(words: list[str | Path], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    run(["simulate", *words, "--json"])
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_json_of_one_run(scenario: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = document([scenario, "--seed", "3"], capsys)
    expected = {"policy", "seed", "makespan_s", "events", "priority_weighted_delay_s", "sources", "workers"}
    assert set(found) == expected | {"energy"}
    assert (found["policy"], found["seed"]) == ("local", 3)
    assert set(found["sources"]["gate"]) == SOURCE_KEYS
    assert found["sources"]["yard"]["offered"] == 120
    assert found["workers"]["orin"] == {"utilisation": 0.0}


def test_a_seed_gives_the_same_run_again(scenario: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words: list[str | Path] = [scenario, "--policy", "ms-mdi", "--seed", "7"]
    assert document(words, capsys) == document(words, capsys)


@pytest.mark.parametrize("apart", [pytest.param(True, marks=pytest.mark.slow, id="processes"), False])
def test_replications_are_those_of_the_seeds_one_by_one(
    scenario: Path,
    apart: bool,  # noqa: FBT001 - a parameter of the test
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Short runs are made in this process, others in processes of their own."""
    counts: list[int] = []
    pool = replications._pool

    def counted(count: int) -> contextlib.AbstractContextManager[ProcessPoolExecutor]:
        counts.append(count)
        return pool(count)

    monkeypatch.setattr(replications, "_pool", counted)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    if apart:
        monkeypatch.setattr(replications, "_FEW_BLOCKS", 0)
    found = document([scenario, "--seed", "5", "--repeat", "3"], capsys)
    single = [document([scenario, "--seed", str(seed)], capsys) for seed in (5, 6, 7)]
    means = [one["sources"]["gate"]["mean_delay_s"] for one in single]
    assert found["replications"] == 3
    assert found["sources"]["gate"]["mean_delay_s"] == pytest.approx(sum(means) / 3)
    assert 0 < found["half_widths"]["sources"]["gate"]["mean_delay_s"] < 3 * max(means)
    assert found["half_widths"]["sources"]["gate"]["offered"] == 0
    assert counts == [2] * apart


def test_all_policies_meet_the_same_arrivals(
    scenario: Path, plan: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = tmp_path / "all"
    found = document([scenario, "--plan", plan, "--policy", "all", "-o", folder], capsys)
    assert list(found["policies"]) == list(POLICIES)
    arrivals = set()
    for name, own in found["policies"].items():
        assert own["policy"] == name
        assert set(own["sources"]["gate"]) == SOURCE_KEYS
        records = read_records(folder / f"trace-{name}-0.jsonl")
        samples = [record for record in records if isinstance(record, SampleRecord)]
        assert len(samples) == SAMPLES
        arrivals.add(frozenset((record.source, record.created_s) for record in samples))
    assert len(arrivals) == 1
    assert (folder / "delays.png").stat().st_size > 0


def test_without_a_plan_those_that_need_one_stay_out(scenario: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["simulate", scenario, "--policy", "all"])
    printed = capsys.readouterr().out
    for name in POLICIES:
        assert (f" {name} " in printed) != needs_plan(name)
    assert "priority 8" in printed


@pytest.mark.parametrize(
    ("keys", "columns"),
    [("", 0), ("deadline: 1 s", 0), ("deadline: 1 s, late: drop", 1), ("queue_timeout: 1 ms", 1)],
)
def test_policies_are_compared_by_what_they_drop(
    scenario: Path, keys: str, columns: int, capsys: pytest.CaptureFixture[str]
) -> None:
    scenario.write_text(SCENARIO.replace("samples: 60}", f"samples: 60, {keys}}}" if keys else "samples: 60}"))
    run(["simulate", scenario, "--policy", "all"])
    assert capsys.readouterr().out.count("dropped") == columns


def test_one_run_leaves_its_trace_and_pictures(
    scenario: Path, plan: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = tmp_path / "one"
    run(["simulate", scenario, "--plan", plan, "-o", folder])
    printed = capsys.readouterr().out
    assert "policy planned, seed 0" in printed
    assert "±" not in printed
    documents = ["instance.json", "plan.json", "result.json", "run.json"]
    names = sorted([*documents, "delays.png", "plan.png", "timeline.png", "trace.jsonl"])
    assert sorted(path.name for path in folder.iterdir()) == names
    assert sum(isinstance(record, SampleRecord) for record in read_records(folder / "trace.jsonl")) == SAMPLES


def test_replications_are_printed_with_their_intervals(scenario: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["simulate", scenario, "--repeat", "2"])
    printed = capsys.readouterr().out
    assert "seeds 0 to 1" in printed
    assert "±" in printed


@pytest.mark.parametrize(("processes", "sent"), [(1, os.killpg), (2, os.killpg), (2, os.kill)])
@pytest.mark.slow
def test_an_interrupt_ends_all_runs_at_once_and_leaves_nothing_half_written(
    scenario: Path, tmp_path: Path, processes: int, sent: Callable[[int, int], None]
) -> None:
    """As a terminal interrupts, which tells all processes of a group, and as another program does."""
    scenario.write_text(scenario.read_text().replace("samples: 60", "samples: 100000000"))
    output = tmp_path / "run"
    words = ["simulate", str(scenario), "--repeat", str(processes), "-o", str(output)]
    running = subprocess.Popen(
        [sys.executable, "-m", "planner", *words], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        deadline = time.monotonic() + 60
        while len(list(output.glob(".trace*"))) < processes:  # each process has begun
            assert time.monotonic() < deadline
            assert running.poll() is None
            time.sleep(0.05)
        sent(running.pid, signal.SIGINT)
        _, told = running.communicate(timeout=30)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
    assert running.returncode == 130
    assert told == "planner: interrupted\n"
    assert list(output.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--policy", "best"], "unknown policy"),
        (["--policy", "planned"], "--plan"),
        (["--policy", "adaptive", "--repeat", "2"], "--plan"),
        (["--repeat", "0"], "--repeat"),
        (["--seed", "-1"], "--seed"),
        (["--plan", "none.json"], "none.json"),
    ],
)
def test_wrong_options_end_with_2(
    scenario: Path, words: list[str | Path], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(["simulate", scenario, *words]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert not printed.out


def test_a_policy_that_cannot_reach_a_worker_says_so(scenario: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scenario.write_text(SCENARIO.replace("networks:", "  spare: {device_class: reference, memory: 1 GiB}\nnetworks:"))
    assert exit_code(["simulate", scenario, "--policy", "mdi"]) == 2
    printed = capsys.readouterr()
    assert "no network joins" in printed.err
    assert exit_code(["simulate", scenario, "--policy", "mdi", "--repeat", "2"]) == 2
    assert "no network joins" in capsys.readouterr().err


def test_a_plan_for_a_scenario_that_has_changed_is_one_message(
    scenario: Path, plan: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scenario.write_text(scenario.read_text().replace("rate: 4 /s", "rate: 5 /s"))
    assert exit_code(["simulate", scenario, "--plan", plan]) == 2
    told = capsys.readouterr().err
    assert told.count("planner: error:") == 1
    assert f"{plan}: the plan does not hold in this scenario, which has changed since" in told
    assert "a plan that `planner solve` made of it" in told
