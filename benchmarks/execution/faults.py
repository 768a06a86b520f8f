"""How soon the others see that an agent is gone, and what a hundred deaths in a row cost."""

from __future__ import annotations

import dataclasses
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from planner.execution.coordinator.coordinator import Coordinator
from planner.execution.wire.frames import Tensors
from planner.execution.wire.messages import COORDINATOR
from planner.execution.wire.zenoh import zenoh_connect
from planner.trace.records import SampleRecord
from planner.worker.events import Left
from tests.execution.fleet import After, Live, deployment_for
from tests.execution.processes import Processes
from tests.execution.rig import small_instance

KILLS: Final = 100
_BETWEEN: Final = 10
"""Samples that end between a return and the next death."""
_IN_FLIGHT: Final = 8
_PATIENCE_S: Final = 60.0
_ROUNDS: Final = 5


class _Deaths(Live):
    """Kills one of two workers again and again, each as soon as the last is back."""

    def __init__(self, coordinator: Coordinator, agents: Processes, kills: int) -> None:
        super().__init__(coordinator, stop_after=_BETWEEN, in_flight=_IN_FLIGHT)
        self._agents = agents
        self._kills = kills
        self._since = 0
        self._dead_s = 0.0
        self._all_there = True
        self.seen_s: list[float] = []

    def on_ended(self, sample: SampleRecord, outputs: Tensors) -> None:
        self._since += 1
        if self._all_there and self._since >= _BETWEEN and len(self.seen_s) < self._kills:
            self._all_there = False
            self._dead_s = time.monotonic()
            self._agents.kill("bc"[len(self.seen_s) % 2])
        super().on_ended(sample, outputs)

    def on_left(self, worker: str) -> None:
        self.seen_s.append(time.monotonic() - self._dead_s)
        self._agents.start(worker)

    def on_joined(self, worker: str) -> None:
        self._all_there, self._since = True, 0
        if len(self.seen_s) == self._kills:
            super().on_joined(worker)


def kills() -> None:
    """Kill an agent a hundred times in one run."""
    with tempfile.TemporaryDirectory() as folder:
        instance = small_instance()
        agents = Processes(instance.workers, Path(folder))
        agents.complete()
        try:
            with Coordinator(zenoh_connect(COORDINATOR, listen=agents.address, connect=[])) as coordinator:
                coordinator.await_agents(instance.workers, _PATIENCE_S)
                deaths = _Deaths(coordinator, agents, KILLS)
                deployment = dataclasses.replace(deployment_for(instance, live=True), paced=True)
                coordinator.run(deployment, ready_timeout_s=_PATIENCE_S, observer=deaths)
        finally:
            agents.close()
    seen_ms = sorted(1e3 * seen_s for seen_s in deaths.seen_s)
    print(
        f"kill -9, {len(seen_ms)} in a row: seen after {statistics.median(seen_ms):.1f} ms, at most "
        f"{seen_ms[-1]:.0f} ms (goal 100 ms); {deaths.handed_in} samples, each ended once: "
        f"{deaths.ended_once()}; processes left over: {_left_over(agents.address)}"
    )


def _left_over(address: str) -> int:
    commands = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            commands.append((process / "cmdline").read_bytes())
        except OSError:  # it has ended meanwhile
            continue
    return sum(address.encode() in command for command in commands)


def silence() -> None:
    """Stop an agent: its links fall silent, and nothing says that it is gone."""
    seen_ms = [1e3 * _seen_s(lambda process: os.kill(process, signal.SIGSTOP)) for _ in range(_ROUNDS)]
    print(
        f"a silent link seen after {statistics.median(seen_ms):.0f} ms, at most {max(seen_ms):.0f} ms, "
        f"by the slowest of the others (goal 1000 ms)"
    )


def _seen_s(disturb: Callable[[int], None]) -> float:
    """Give the time until all others have seen that an agent is gone, in seconds."""
    instance = small_instance(samples=120)
    disturbed_s: list[float] = []

    def do() -> None:
        disturbed_s.append(time.time())
        disturb(agents.running["c"].pid)

    with tempfile.TemporaryDirectory() as folder:
        agents = Processes(instance.workers, Path(folder))
        agents.complete()
        try:
            with Coordinator(zenoh_connect(COORDINATOR, listen=agents.address, connect=[])) as coordinator:
                coordinator.await_agents(instance.workers, _PATIENCE_S)
                after = After((20, do))
                measured = coordinator.run(deployment_for(instance), ready_timeout_s=_PATIENCE_S, observer=after)
        finally:
            agents.close()
    left_s = [
        step.now_s
        for steps in measured.steps.values()
        for step in steps
        if isinstance(step.event, Left) and step.event.worker == "c"
    ]
    return max(left_s) - (disturbed_s[0] - measured.start_unix_s)
