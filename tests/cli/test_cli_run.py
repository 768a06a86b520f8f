"""``planner run`` as a user calls it: samples from files and commands, results in files and on lines."""

from __future__ import annotations

import json
import shlex
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from planner.execution.wire.zenoh import free_port
from planner.runtime.session import BlockSession
from tests.cli.command import planner, planner_process
from tests.execution.case import ROWS, WIDTH, write_case
from tests.execution.raw import agent_process

SAMPLES = 12
RNG = np.random.default_rng(0)
X, PICK = RNG.standard_normal((SAMPLES, WIDTH)).astype(np.float32), np.arange(SAMPLES) % ROWS


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_case(tmp_path_factory.mktemp("case"))
    np.savez(path.parent / "samples.npz", x=X, pick=PICK)
    return path


def expected(plan: Path, index: int) -> np.ndarray:
    outputs = BlockSession(plan.parent / "small.onnx").run({"x": X[index : index + 1], "pick": PICK[index : index + 1]})
    return np.asarray(outputs["y"])


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_file_and_a_command_at_once_results_on_lines_in_order(plan: Path) -> None:
    code = f"""
import sys, numpy as np
for k in range(3):
    np.save(sys.stdout.buffer, np.zeros({WIDTH}, np.float32))
    np.save(sys.stdout.buffer, np.array([k if k < 2 else {ROWS}]))
sys.stdout.buffer.write(b"no array")
"""
    command = shlex.join([sys.executable, "-c", code])
    finished = planner_process(
        "run", plan, "--source", f"urgent={plan.parent / 'samples.npz'}", "--source", f"other={command}", "--json"
    )
    assert finished.returncode == 1, finished.stderr  # the command's last sample makes a block raise
    found = lines(finished.stdout)
    urgent = [line for line in found if line["source"] == "urgent"]
    assert [line["sample"] for line in urgent] == list(range(SAMPLES))
    for index, line in enumerate(urgent):
        np.testing.assert_allclose(line["outputs"]["y"], expected(plan, index), rtol=1e-4, atol=1e-6)
        assert line["delay_s"] > 0
    other = [line for line in found if line["source"] == "other"]
    assert ["error" in line for line in other] == [False, False, True, True]
    assert other[2]["error"].startswith("b, block 2: ")
    assert "sample 3: not an array in .npy format" in other[3]["error"]


def test_results_go_to_a_folder(plan: Path, tmp_path: Path) -> None:
    finished = planner(
        "run", plan, "--source", f"urgent={plan.parent / 'samples.npz'}", "-o", tmp_path, "--as-they-come", "--json"
    )
    assert finished.returncode == 0, finished.stderr
    found = lines(finished.stdout)
    assert sorted(line["sample"] for line in found) == list(range(SAMPLES))
    for line in found:
        assert "outputs" not in line
        with np.load(line["file"]) as archive:
            np.testing.assert_allclose(archive["y"], expected(plan, line["sample"]), rtol=1e-4, atol=1e-6)
    assert len(list((tmp_path / "urgent").iterdir())) == SAMPLES


def test_a_run_that_is_resumed_does_what_is_missing_and_failures_are_listed_by_name(plan: Path, tmp_path: Path) -> None:
    frames, results = tmp_path / "frames", tmp_path / "results"
    frames.mkdir()
    for index, name in enumerate("abcd"):
        np.savez(frames / f"{name}.npz", x=X[index], pick=PICK[index])
    (frames / "a.npz").write_bytes((frames / "a.npz").read_bytes().replace(b"NUMPY", b"NUMPI"))
    words = ("run", plan, "--source", f"urgent={frames}", "-o", results)
    finished = planner(*words)
    assert finished.returncode == 1, finished.stderr
    assert "urgent, a: " in finished.stdout
    listed = lines((results / "urgent.jsonl").read_text())
    assert [(line["name"], line["sample"]) for line in listed] == [("a", 0), ("b", 1), ("c", 2), ("d", 3)]
    assert "not an .npz file" in listed.pop(0)["error"]
    assert [line["file"] for line in listed] == ["urgent/b.npz", "urgent/c.npz", "urgent/d.npz"]
    assert all((results / line["file"]).is_file() for line in listed)

    np.savez(frames / "a.npz", x=X[0], pick=PICK[0])
    resumed = planner(*words, "--resume", "--json")
    assert resumed.returncode == 0, resumed.stderr
    assert [(line["name"], line["sample"]) for line in lines(resumed.stdout)] == [("a", 0)]
    with np.load(results / "urgent" / "a.npz") as archive:
        np.testing.assert_allclose(archive["y"], expected(plan, 0), rtol=1e-4, atol=1e-6)
    assert [line["name"] for line in lines((results / "urgent.jsonl").read_text())] == ["b", "c", "d", "a"]


def test_a_source_whose_worker_comes_later_waits_for_it(plan: Path, tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    options = ("--cache", str(tmp_path / "blocks"))
    words = ("run", plan, "--source", f"urgent={plan.parent / 'samples.npz'}", "--connect", address, "--later", "a")
    with agent_process("b", "--listen", address, *options), ThreadPoolExecutor() as pool:
        running = pool.submit(planner_process, *words, "--json")
        with agent_process("a", "--connect", address, *options):
            finished = running.result()
    assert finished.returncode == 0, finished.stderr
    assert [line["sample"] for line in lines(finished.stdout)] == list(range(SAMPLES))


def test_a_worker_that_is_away_at_the_end_is_named_with_what_helps(plan: Path, tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    with agent_process("a", "--listen", address, "--cache", str(tmp_path)):
        finished = planner(
            "run", plan, "--source", f"urgent={plan.parent / 'samples.npz'}", "--connect", address, "--later", "b"
        )
    assert finished.returncode == 0, finished.stderr
    assert "b was not in the run at its end" in finished.stderr
    assert "--later b starts without it" in finished.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--source", "urgent"], "--source: not a source's samples; found 'urgent'; expected NAME=PLACE"),
        (["--source", "urgent=a", "--source", "urgent=b"], "--source: a source is named twice"),
        (["--source", "gate=."], "source: no such source; found 'gate'; expected one of urgent, other"),
        (["--source", "urgent=/no/such.npz"], "source: no samples found; found '/no/such.npz'"),
        (["--source", "urgent=.", "--later", "c", "--connect", "localhost:1"], "later: unknown worker; found 'c'"),
        (["--source", "urgent=.", "--later", "a"], "later: only running agents can connect later; found 'a'"),
        (["--source", "urgent=.", "--resume"], "--resume: nothing to resume; expected --output FOLDER"),
    ],
)
def test_bad_options_end_with_one_message(plan: Path, options: list[str], message: str) -> None:
    finished = planner("run", plan, *options)
    assert finished.returncode == 2
    assert finished.stdout == ""
    assert finished.stderr.startswith(f"planner: error: {message}")
    assert len(finished.stderr.splitlines()) == 1


def test_a_sample_that_does_not_fit_ends_the_run_with_one_message(plan: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "wide.npz", x=np.zeros((2, WIDTH + 1), np.float32), pick=np.zeros(2, np.int64))
    finished = planner("run", plan, "--source", f"other={tmp_path / 'wide.npz'}")
    assert finished.returncode == 2
    assert f"wide.npz, sample 0, input x: wrong shape; found [{WIDTH + 1}]; expected [1, {WIDTH}]" in finished.stderr
    assert "Traceback" not in finished.stderr
