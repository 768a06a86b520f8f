"""What the product leaves on a device besides its results, and whom it talks to: nothing and nobody unasked."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from planner.execution.wire.messages import COORDINATOR
from planner.execution.wire.zenoh import free_port
from tests.execution.case import write_case
from tests.execution.raw import agent_process, raw_member

SWITCH = "ORT_DISABLE_TELEMETRY"


def bare(home: Path, **more: str) -> Mapping[str, str]:
    """Return an environment with an empty home, and none of the variables that this process has set."""
    home.mkdir()
    return {"HOME": str(home), "PATH": os.environ["PATH"], "TMPDIR": str(home.parent), **more}


def printed(code: str, environment: Mapping[str, str]) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=True, timeout=120.0).stdout


def test_commands_and_their_agents_leave_nothing_in_an_empty_home(tmp_path: Path) -> None:
    plan, model = write_case(tmp_path), str(tmp_path / "small.onnx")
    commands = [
        ["split", model, "--cuts", "1", "-o", str(tmp_path / "parts")],
        ["profile", "measure", model, "--device-class", "d", "-o", str(tmp_path / "p.json"), "--budget", "0.2s"],
        ["validate", str(plan), "--local", "--duration", "0.1s"],
    ]
    code = f"""
from planner.cli import main
for command in {commands}:
    try:
        main(command)
    except SystemExit as end:
        assert end.code in (None, 0, 1), end.code  # 1: on a busy machine, delays differ from the predicted ones
"""
    assert "outputs equal" in printed(code, bare(tmp_path / "home"))
    assert list((tmp_path / "home").rglob("*")) == []


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="this system does not list a process's threads")
def test_onnxruntime_starts_no_thread_of_its_own_when_imported_after_the_product(tmp_path: Path) -> None:
    code = """
import os, numpy
before = set(os.listdir("/proc/self/task"))
import planner
from planner.runtime.providers import import_onnxruntime
import_onnxruntime()
print(len(set(os.listdir("/proc/self/task")) - before))
"""
    assert printed(code, bare(tmp_path / "home")) == "0\n"
    assert list((tmp_path / "home").rglob("*")) == []


@pytest.mark.parametrize(
    "module", ["planner", "planner.cli", "planner.runtime.session", "planner.execution.agent.agent"]
)
def test_every_way_in_switches_telemetry_off_unless_the_user_has_decided(tmp_path: Path, module: str) -> None:
    code = f"import {module}, os, sys; print(os.environ[{SWITCH!r}])"
    home = tmp_path / "home"
    assert printed(code, bare(home)) == "1\n"
    home.rmdir()
    assert printed(code, bare(home, **{SWITCH: "0"})) == "0\n"


@pytest.mark.skipif(not Path("/proc/net/udp").exists(), reason="this system does not list its sockets")
def test_an_agent_listens_on_its_address_alone(tmp_path: Path) -> None:
    port = free_port()
    with (
        raw_member(COORDINATOR, connect=f"127.0.0.1:{port}") as coordinator,
        agent_process("a", "--listen", f"127.0.0.1:{port}", "--cache", str(tmp_path)) as agent,
    ):
        coordinator.wait_for("a")
        assert coordinator.alive("a").worker == "a"  # it has imported onnxruntime by then
        time.sleep(0.2)
        assert sockets_of(agent.pid, "udp", "udp6", "raw", "raw6") == []
        listening = [local for local, state in sockets_of(agent.pid, "tcp", "tcp6") if state == "0A"]
    assert listening == [f"0100007F:{port:04X}"]


def sockets_of(process: int, *tables: str) -> list[tuple[str, str]]:
    """Return local address and state of a process's sockets in some tables of the system."""
    own = {str(path.readlink()) for path in Path(f"/proc/{process}/fd").iterdir()}
    lines = [line.split() for table in tables for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]]
    return [(words[1], words[3]) for words in lines if f"socket:[{words[9]}]" in own]
