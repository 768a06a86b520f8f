"""The whole product, end to end: real model, real solver, real processes over real Zenoh."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from planner.plan.store import load_plan
from planner.policy.registry import make_policy
from planner.scenario.instance import Instance
from planner.trace.records import BlockRecord, Record, read_records
from planner.worker.events import STEPS
from planner.worker.worker import Worker
from tests.cli.command import planner, planner_process, start_planner


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The demo's folder, and what it printed."""
    folder = tmp_path_factory.mktemp("demo")
    finished = planner_process("demo", "--json", "-o", folder)
    assert finished.returncode == 0, finished.stderr
    return folder, json.loads(finished.stdout)


def test_no_sample_is_lost_and_outputs_agree(demo: tuple[Path, dict[str, Any]]) -> None:
    _, result = demo
    assert (result["lost"], result["failed"], result["duplicates"]) == (0, 0, 0)
    assert result["numerics"]["samples"] == 240
    assert result["numerics"]["max_rel_error"] <= 1e-4
    assert set(result["sources"]) == {"gate-camera", "yard-camera"}
    for source in result["sources"].values():
        for side in ("predicted", "measured"):
            assert set(source[side]) == {
                "mean_delay_s", "p50_delay_s", "p95_delay_s", "p99_delay_s", "throughput_per_s", "accuracy",
                "miss_share", "dropped", "ttft_s", "tpot_s", "tokens_per_s",
            }  # fmt: skip


def test_the_folder_holds_everything_and_pictures(demo: tuple[Path, dict[str, Any]]) -> None:
    folder, result = demo
    assert json.loads((folder / "run" / "result.json").read_text()) == result
    assert load_plan(folder / "plan.json").sources.keys() == result["sources"].keys()
    for name in ("timeline", "close-up", "delays"):
        assert (folder / "run" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def routes(records: list[Record]) -> dict[tuple[str, int], list[tuple[str, int]]]:
    found: dict[tuple[str, int], list[tuple[str, int]]] = {}
    for record in sorted((r for r in records if isinstance(r, BlockRecord)), key=lambda r: r.start_s):
        found.setdefault((record.source, record.sample), []).append((record.worker, record.block))
    return found


def test_processes_take_the_simulated_routes_and_their_logs_replay(demo: tuple[Path, dict[str, Any]]) -> None:
    run = demo[0] / "run"
    assert routes(read_records(run / "measured.jsonl")) == routes(read_records(run / "predicted.jsonl"))
    instance = Instance.model_validate_json((run / "instance.json").read_bytes())
    plan = load_plan(run / "plan.json")
    for name in instance.workers:
        worker = Worker(name, instance, make_policy("planned", instance, plan))
        steps = STEPS.validate_json((run / "steps" / f"{name}.json").read_bytes())
        for step in steps:
            assert worker.step(step.now_s, step.event) == step.effects


def test_each_step_works_by_itself_on_what_the_demo_left(demo: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, result = demo
    scenario, model = folder / "examples/two-cameras/scenario.yaml", folder / "models/mobilenetv2.onnx"
    inspected = json.loads(planner("inspect", model, "--json").stdout)
    profile = json.loads((folder / "profiles/this-machine/mobilenetv2.json").read_text())
    assert inspected["chain_sha256"] == profile["chain_sha256"]
    solved = planner("solve", scenario, "-o", tmp_path / "plan.json", "--json")
    assert solved.returncode == 0, solved.stderr
    again, first = json.loads(solved.stdout), json.loads((folder / "plan.json").read_text())
    assert again["objective"] == pytest.approx(first["objective"])
    simulated = planner("simulate", scenario, "--plan", tmp_path / "plan.json", "--json")
    assert simulated.returncode == 0, simulated.stderr
    for name, source in json.loads(simulated.stdout)["sources"].items():
        assert source["completed"] == {"gate-camera": 80, "yard-camera": 160}[name]
        assert source["mean_delay_s"] == pytest.approx(result["sources"][name]["predicted"]["mean_delay_s"])


def agents_of(scenario_workers: tuple[str, ...], cache_owner: int) -> list[int]:
    """Processes of agents that a planner process started, by their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError, IndexError):
                continue
            if "agent" in words and parent == cache_owner and any(name in words for name in scenario_workers):
                found.append(int(entry.name))
    return found


def alive(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_no_process_is_left_however_a_run_ends(demo: tuple[Path, dict[str, Any]], sent: signal.Signals) -> None:
    run = start_planner("validate", demo[0] / "plan.json", "--local")
    workers = ("camera-box", "cabinet", "office")
    try:
        deadline = time.monotonic() + 60
        while len(agents := agents_of(workers, run.pid)) < 3:
            assert time.monotonic() < deadline
            assert run.poll() is None
            time.sleep(0.1)
        time.sleep(2.0)  # well into the run
        run.send_signal(sent)
        assert run.wait(30) == (130 if sent == signal.SIGINT else -signal.SIGKILL)
    finally:
        run.kill()
    deadline = time.monotonic() + 20
    while any(alive(pid) for pid in agents):
        assert time.monotonic() < deadline, "agents are left"
        time.sleep(0.1)
