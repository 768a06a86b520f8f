"""``python -m benchmarks soak --minutes 30``: a long run in which an agent is killed every 20 s.

Samples go through a session, as a user's do. Prints the slopes of the resident memory, the file descriptors and the
threads of the coordinator, of the agent that is never killed (the home of both sources), and of those that are killed,
each over the lives it had; and which samples were lost or ended twice. The first minutes are left out: caches fill, and
memory allocators settle.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
import threading
import time
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from planner.execution.coordinator.completions import NumberSet
from planner.execution.coordinator.coordinator import Coordinator
from planner.execution.session.session import LiveSession
from planner.execution.session.source import Result, SampleError
from planner.execution.wire.messages import COORDINATOR
from planner.execution.wire.zenoh import zenoh_connect
from planner.runtime.input_pool import input_pool
from tests.execution.fleet import deployment_for
from tests.execution.processes import Processes
from tests.execution.rig import MODEL, small_instance

KILL_EVERY_S: Final = 20.0
AWAY_S: Final = 2.0
"""From the death of an agent until it is started again."""
LOOK_EVERY_S: Final = 2.0
IN_FLIGHT: Final = 8
GOAL_MB_PER_MIN: Final = 0.1
SETTLES: Final = 0.2
"""Share of the time that is left out of the slopes."""
_PATIENCE_S: Final = 120.0
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


class Look(NamedTuple):
    """What a process had at a time."""

    at_s: float
    rss_mb: float
    descriptors: int
    threads: int


class _Tally:
    """What became of the samples; its memory does not grow with their number, for it is measured, too."""

    def __init__(self) -> None:
        self.handed_in = 0
        self.ended = NumberSet()
        self.twice = 0
        self.failed: Counter[str] = Counter()

    def add(self, future: Future[Result]) -> None:
        """Count an end; called in the coordinator's thread."""
        error = future.exception()
        if error is None:
            self.twice += not self.ended.add(future.result().sample)
        elif isinstance(error, SampleError):
            self.twice += not self.ended.add(error.sample)
            self.failed[error.reason] += 1


class _Disturber(threading.Thread):
    """Kills the agents "b" and "c" by turns, and looks at all processes."""

    def __init__(self, agents: Processes, seconds: float) -> None:
        super().__init__()
        self._agents, self._seconds = agents, seconds
        self.kills = 0
        self.looks: dict[str, list[Look]] = {}

    def run(self) -> None:
        start_s = time.monotonic()
        kill_s, back_s, away = start_s + KILL_EVERY_S, 0.0, ""
        while (now_s := time.monotonic()) < start_s + self._seconds:
            if away and now_s >= back_s:
                self._agents.start(away)
                away = ""
            elif not away and now_s >= kill_s:
                away = "bc"[self.kills % 2]
                self._agents.kill(away)
                self.kills += 1
                kill_s, back_s = kill_s + KILL_EVERY_S, now_s + AWAY_S
            self._look("coordinator", os.getpid(), now_s - start_s)
            for name, process in self._agents.running.items():
                life = name if name == "a" else f"{name}, life {(self.kills + (name == 'b')) // 2}"
                self._look(life, process.pid, now_s - start_s)
            time.sleep(LOOK_EVERY_S)
        if away:
            self._agents.start(away)

    def _look(self, name: str, process: int, at_s: float) -> None:
        look_at(self.looks.setdefault(name, []), process, at_s)


def look_at(looks: list[Look], process: int, at_s: float) -> None:
    """Add what a process has now, unless it has ended."""
    folder = Path("/proc") / str(process)
    try:
        resident = int((folder / "statm").read_text(encoding="ascii").split()[1]) * _PAGE / 2**20
        looks.append(Look(at_s, resident, _entries(folder / "fd"), _entries(folder / "task")))
    except OSError:
        return


def _entries(folder: Path) -> int:
    return sum(1 for _ in folder.iterdir())


def soak(minutes: float) -> None:
    """Run for some minutes, and print what became more."""
    with tempfile.TemporaryDirectory() as folder:
        instance = small_instance()
        agents = Processes(instance.workers, Path(folder))
        agents.complete()
        tally = _Tally()
        inputs = input_pool(MODEL.chain.cuts[0].tensors, seed=3, source_index=0, samples=1)[0]
        deployment = dataclasses.replace(deployment_for(instance, live=True), paced=True)
        try:
            with Coordinator(zenoh_connect(COORDINATOR, listen=agents.address, connect=[])) as coordinator:
                coordinator.await_agents(instance.workers, _PATIENCE_S)
                disturber = _Disturber(agents, 60 * minutes)
                session = LiveSession(
                    deployment, nullcontext(coordinator), limit=IN_FLIGHT, ready_timeout_s=_PATIENCE_S
                )
                with session:
                    disturber.start()
                    while disturber.is_alive():
                        session.source("urgent").submit(inputs).add_done_callback(tally.add)
                        tally.handed_in += 1
                disturber.join()
        finally:
            agents.close()
    lost = tally.handed_in - len(tally.ended)
    print(
        f"{minutes:g} minutes, {disturber.kills} kills: {tally.handed_in} samples, {lost} lost, "
        f"{tally.twice} ended twice, {tally.failed.total()} failed {dict(tally.failed) or ''}"
    )
    for name in ("coordinator", "a"):
        report(name, disturber.looks[name], skip_s=60 * minutes * SETTLES)
    lives = {name: looks for name, looks in disturber.looks.items() if "life" in name}
    if lives:
        ends = [max(look.rss_mb for look in looks) for looks in lives.values()]
        print(f"agents that are killed: {len(ends)} lives, at most {min(ends):.1f} to {max(ends):.1f} MB each")


def report(name: str, looks: Sequence[Look], skip_s: float) -> None:
    """Print how fast the memory of a process grows, and what else it had.

    A change of plans or a killed agent costs memory for a moment. So the growth is the median of that between all two
    looks (Theil and Sen), which such peaks hardly move; they are printed beside it.
    """
    kept = [look for look in looks if look.at_s >= skip_s]
    at_min = np.array([look.at_s for look in kept]) / 60
    rss_mb = np.array([look.rss_mb for look in kept])
    earlier, later = np.triu_indices(len(kept), 1)
    slope = float(np.median((rss_mb[later] - rss_mb[earlier]) / (at_min[later] - at_min[earlier])))
    first, last = kept[0], kept[-1]
    print(
        f"{name}: {slope:+.3f} MB/min (goal < {GOAL_MB_PER_MIN}), {first.rss_mb:.1f} to {last.rss_mb:.1f} MB "
        f"(at most {rss_mb.max():.1f}), "
        f"descriptors {first.descriptors} to {last.descriptors} (at most {max(look.descriptors for look in kept)}), "
        f"threads {first.threads} to {last.threads} (at most {max(look.threads for look in kept)})"
    )


def main(words: Sequence[str]) -> None:
    """Read the options, and run."""
    parser = ArgumentParser(prog="python -m benchmarks soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="how long (30)")
    soak(parser.parse_args(words).minutes)
