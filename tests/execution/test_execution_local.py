"""Agent processes of this machine: those that do not come, and where they compute."""

from __future__ import annotations

import itertools
import os
import queue
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from planner.errors import ExecuteError
from planner.execution.agent.executor import BlockJob, Executor
from planner.execution.launch import local
from planner.execution.launch.scratch import scratch_folder
from planner.policy.types import SampleKey
from planner.runtime.processors import available_processors
from planner.worker.events import RunBlock


def test_an_agent_that_ends_is_reported_with_its_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = {"a": [sys.executable, "-c", "raise SystemExit('no such wheel')"]}
    monkeypatch.setattr(local, "_agents", lambda *_: commands)
    with pytest.raises(ExecuteError, match=r"an agent ended; found 'a: no such wheel'"), local.local_agents(["a"]):
        pass


def own_processors(*names: str) -> list[set[str]]:
    found = []
    for command in local._agents(names, "127.0.0.1:7447", Path("blocks")).values():
        told = dict(itertools.pairwise(command))
        found.append({one for one in told.get("--processors", "").split(",") if one})
    return found


def test_agents_of_one_machine_compute_on_processors_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "available_processors", lambda: (0, 2, 3, 5, 6))
    assert own_processors("a") == [{"0", "2", "3", "5", "6"}]
    assert own_processors("a", "b") == [{"0", "2"}, {"3", "5"}]
    assert own_processors(*"abcdef") == [set()] * 6
    monkeypatch.setattr(local, "available_processors", tuple)
    assert own_processors("a") == [set()]


@pytest.mark.skipif(not available_processors(), reason="this system does not let a process choose its processors")
def test_blocks_are_computed_on_the_processors_that_were_named() -> None:
    own, found = available_processors()[-1:], queue.SimpleQueue[set[int]]()
    failures: list[Exception] = []
    compute = Executor({}, lambda _outcome: found.put(os.sched_getaffinity(0)), failures.append, own)
    compute.submit(BlockJob(RunBlock(SampleKey("s", 0, 0), "none", 0, begins_stage=True), ({},), 0.0, None))
    assert found.get(timeout=30.0) == set(own)
    compute.close()
    compute.join()
    assert os.sched_getaffinity(0) == set(available_processors())


OWNER = """
import sys
import tempfile
import time
from planner.execution.launch.local import local_agents
with local_agents(["a"]):
    print("up", flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_process_leaves_is_removed_once_its_agents_have_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"up\n"
        (left,) = tmp_path.glob("planner-*")
        with scratch_folder() as own:
            assert set(tmp_path.glob("planner-*")) == {left, own.path}
        owner.kill()
    deadline_s = time.monotonic() + 30.0
    while left.exists() and time.monotonic() < deadline_s:
        with scratch_folder():
            pass
        time.sleep(0.05)
    assert list(tmp_path.iterdir()) == []
    assert not [path for path in Path("/proc").glob("[0-9]*/cmdline") if str(left) in read(path)]


def read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:  # it has ended
        return ""
