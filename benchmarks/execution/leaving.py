"""Starts and ends of agents: how many end by a signal, such as an abort at exit, rather than with exit code 0."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from planner.errors import ExecuteError
from planner.execution.coordinator.coordinator import Coordinator
from planner.execution.coordinator.run_result import Observer
from planner.execution.wire.frames import Tensors
from planner.execution.wire.messages import COORDINATOR
from planner.execution.wire.zenoh import free_port, zenoh_connect
from planner.trace.records import SampleRecord
from tests.execution.fleet import deployment_for
from tests.execution.rig import small_instance

MOMENTS: Final = ("starting", "idle", "preparing", "running", "after a run")
WAYS: Final = ("SIGTERM", "SIGINT", "stdin closes")
_PATIENCE_S: Final = 60.0
_LONGEST_START_S: Final = 2.0
_LONGEST_PREPARATION_S: Final = 0.3


class _Group:
    """Agents of one round, and how they end."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self.instance = small_instance(samples=60, rate_per_s=100.0)
        self._rng = rng
        self._agents = []
        for name in self.instance.workers:
            command = [sys.executable, "-m", "planner", "agent", "--name", name, "--connect", self.address]
            command += ["--cache", str(folder / name), "--until-stdin-closes", "--log-level", "info"]
            pipe = subprocess.PIPE
            self._agents.append(subprocess.Popen(command, stdin=pipe, stderr=pipe, text=True, bufsize=1))

    def end(self) -> None:
        """Make all agents leave, each in a way drawn at random."""
        for agent in self._agents:
            way = self._rng.choice(WAYS)
            if way.startswith("SIG"):
                agent.send_signal(signal.Signals[way])
            elif agent.stdin is not None:
                agent.stdin.close()

    def await_started(self) -> None:
        """Wait until each agent handles signals."""
        for agent in self._agents:
            if agent.stderr is not None:
                agent.stderr.readline()

    def exits(self) -> list[str]:
        """Return how each agent has ended."""
        found = []
        for agent in self._agents:
            try:
                agent.wait(_PATIENCE_S)
            except subprocess.TimeoutExpired:
                agent.kill()
                agent.wait()
                found.append("hangs")
            else:
                code = agent.returncode
                found.append(signal.Signals(-code).name if code < 0 else f"exit code {code}")
            for pipe in (agent.stdin, agent.stderr):
                if pipe is not None:
                    with suppress(OSError):
                        pipe.close()
        return found


class _Ends(Observer):
    """Ends the agents once some samples have ended."""

    def __init__(self, end: Callable[[], None], samples: int) -> None:
        self._end = end
        self._left = samples

    def on_ended(self, sample: SampleRecord, outputs: Tensors) -> None:  # noqa: ARG002
        self._left -= 1
        if self._left == 0:
            self._end()


def leaving(agents: int = 45, seed: int = 0) -> None:
    """Start agents and make them leave at all kinds of moments, and print how they ended."""
    rng = random.Random(seed)  # noqa: S311 - moments, not secrets
    ends: Counter[str] = Counter()
    moments: Counter[str] = Counter()
    while ends.total() < agents:
        moment = MOMENTS[sum(moments.values()) // len(small_instance().workers) % len(MOMENTS)]
        with tempfile.TemporaryDirectory() as folder:
            exits = _round(Path(folder), moment, rng)
        ends.update(exits)
        moments[moment] += len(exits)
    aborted = sum(count for end, count in ends.items() if end.startswith("SIG"))
    when = ", ".join(f"{count} {moment}" for moment, count in moments.items())
    how = ", ".join(f"{count} {end}" for end, count in ends.most_common())
    print(f"{ends.total()} agents started and ended ({when}): {how}; ended by a signal: {aborted} (goal 0)")


def _round(folder: Path, moment: str, rng: random.Random) -> list[str]:
    group = _Group(folder, rng)
    if moment == "starting":
        group.await_started()
        threading.Event().wait(rng.uniform(0, _LONGEST_START_S) ** 2 / _LONGEST_START_S)
        group.end()
        return group.exits()
    with Coordinator(zenoh_connect(COORDINATOR, listen=group.address, connect=[])) as coordinator:
        coordinator.await_agents(group.instance.workers, _PATIENCE_S)
        if moment != "idle":
            observer = _Ends(group.end, rng.randint(1, 100)) if moment == "running" else None
            timer = threading.Timer(rng.uniform(0, _LONGEST_PREPARATION_S), group.end)
            if moment == "preparing":
                timer.start()
            with suppress(ExecuteError):  # the workers have left
                coordinator.run(deployment_for(group.instance), ready_timeout_s=_PATIENCE_S, observer=observer)
            if moment == "preparing":
                timer.join()
        if moment in ("idle", "after a run"):
            group.end()
        return group.exits()


if __name__ == "__main__":
    leaving(*map(int, sys.argv[1:]))
