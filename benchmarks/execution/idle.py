"""Cost of an idle agent: resident memory, and the time from its start to its first message."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from planner.execution.coordinator.coordinator import Coordinator
from planner.execution.wire.messages import COORDINATOR
from planner.execution.wire.zenoh import free_port, zenoh_connect

_STARTS: Final = 7


def measure_idle() -> None:
    """Start an agent several times; print its resident memory and the time until it joined."""
    address = f"127.0.0.1:{free_port()}"
    took_s, memory_bytes = [], []
    with (
        tempfile.TemporaryDirectory() as cache,
        Coordinator(zenoh_connect(COORDINATOR, listen=address, connect=[])) as coordinator,
    ):
        for number in range(_STARTS):
            name = f"agent-{number}"
            command = [sys.executable, "-m", "planner", "agent", "--name", name, "--connect", address]
            command += ["--cache", cache, "--until-stdin-closes"]
            start_s = time.monotonic()
            with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
                coordinator.await_agents([name], 30.0)
                took_s.append(time.monotonic() - start_s)
                time.sleep(0.5)
                status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
                memory_bytes.append(1024 * int(status.partition("VmRSS:")[2].split()[0]))
                if process.stdin is not None:
                    process.stdin.close()
    print(f"idle agent: {statistics.median(memory_bytes) / 1e6:.0f} MB resident (goal < 80)")
    print(f"agent start to first message: {statistics.median(took_s):.2f} s (goal <= 0.7)")
