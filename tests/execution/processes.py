"""Agent processes to be killed and stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from planner.execution.wire.zenoh import free_port


def cmdline(pid: int) -> bytes:
    return (Path("/proc") / str(pid) / "cmdline").read_bytes()


def agents() -> set[int]:
    """Agents that this process started."""
    own = str(os.getpid())
    children = (Path("/proc") / own / "task" / own / "children").read_text().split()
    return {int(pid) for pid in children if b"\0agent\0" in cmdline(int(pid))}


class Processes:
    """Agent processes of this machine that find each other by the coordinator's address."""

    def __init__(self, names: Sequence[str], folder: Path) -> None:
        self.names = names
        self.address = f"127.0.0.1:{free_port()}"
        self._folder = folder
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *before: str, cache: str = "blocks") -> None:
        command = [sys.executable, "-m", "planner", "agent", "--name", name, "--connect", self.address]
        command += ["--cache", str(self._folder / cache), "--until-stdin-closes"]
        self.running[name] = subprocess.Popen([*before, *command], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)

    def complete(self) -> None:
        """Start those that are not there."""
        for name in set(self.names) - set(self.running):
            self.start(name)

    def kill(self, name: str) -> None:
        process = self.running.pop(name)
        process.kill()
        process.communicate()

    def close(self) -> None:
        for process in self.running.values():
            process.send_signal(signal.SIGCONT)
            if process.stdin is not None:
                process.stdin.close()
        for process in self.running.values():
            process.wait(20.0)
        assert all(process.returncode == 0 for process in self.running.values())
