"""``python -m benchmarks serve-soak --minutes 30``: LoadGen against a service whose plan changes and whose agents die.

The scenario Server of MLPerf LoadGen sends requests over HTTP. Each minute the service follows another plan, by turns
of two; each two minutes the agent of the worker that is no source's home is killed and started again. Prints how many
requests were lost, LoadGen's summary, and the slopes of the memory, descriptors and threads of the service and of the
agent that lives on.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import threading
import time
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import planner
from benchmarks.serve.case import SOURCE, serving, write_case
from benchmarks.serve.clients import HttpClient
from benchmarks.soak import LOOK_EVERY_S, SETTLES, Look, look_at, report
from planner.api.applying import apply_at
from planner.errors import PlannerError
from planner.execution.wire.zenoh import free_port

RATE_PER_S: Final = 5.0
CHANGE_EVERY_S: Final = 60.0
KILL_EVERY_S: Final = 120.0
_AWAY_S: Final = 2.0
_TWO_WORKERS: Final = """\
schema: planner/scenario/v1
profiles: [profiles]
models:
  layers: {path: layers.onnx, max_blocks: 2}
workers:
  box: {device_class: here, memory: 4 GiB}
  spare: {device_class: here, memory: 4 GiB}
networks:
  lan: {kind: shared, members: [box, spare], bandwidth: 1 Gbit/s, latency: 1 ms}
sources:
  camera: {worker: box, models: [layers], rate: 1 /s, priority: 1}
"""


class _Agents:
    """The agents of both workers."""

    def __init__(self, folder: Path) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self._folder = folder
        self.running = {"box": self._start("box", "--listen"), "spare": self._start("spare", "--connect")}

    def _start(self, name: str, way: str) -> subprocess.Popen[bytes]:
        command = [
            sys.executable,
            "-m",
            "planner",
            "agent",
            "--name",
            name,
            way,
            self.address,
            "--cache",
            str(self._folder / "cache"),
        ]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def restart_spare(self) -> None:
        """Kill an agent, and start another one in its place."""
        self.running["spare"].kill()
        self.running["spare"].wait()
        time.sleep(_AWAY_S)
        self.running["spare"] = self._start("spare", "--connect")

    def close(self) -> None:
        """End both."""
        for process in self.running.values():
            process.send_signal(signal.SIGTERM)
            process.wait()


def _plans(folder: Path) -> list[planner.Plan]:
    """Return a plan that computes all at home, and one that computes half elsewhere."""
    (folder / "two.yaml").write_text(_TWO_WORKERS, encoding="utf-8")
    places = (("box", "box"), ("box", "spare"))
    return [planner.solve(folder / "two.yaml", pins={SOURCE: dict(enumerate(pins))}, progress=None) for pins in places]


def soak(minutes: float, change_every_s: float, kill_every_s: float) -> None:
    """Run for some minutes, and print what was lost and what became more."""
    from benchmarks.serve import loadgen

    seconds = 60 * minutes
    over = threading.Event()
    looks: dict[str, list[Look]] = {"service": [], "agent": []}
    done: dict[str, int] = {"changes": 0, "refused changes": 0, "kills": 0}
    with tempfile.TemporaryDirectory(prefix="planner-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        write_case(folder)
        plans = _plans(folder)
        plans[0].save(folder / "home.json")
        agents = _Agents(folder)
        stack.callback(agents.close)
        options = ("--connect", agents.address, "--home-timeout", "2 min")
        http, _, process = stack.enter_context(serving(folder / "home.json", *options))

        def change() -> None:
            try:
                apply_at(f"http://{http}", plans[(done["changes"] + 1) % 2])
                done["changes"] += 1
            except PlannerError:  # such as while an agent is away
                done["refused changes"] += 1

        def kill() -> None:
            agents.restart_spare()
            done["kills"] += 1

        def look() -> None:
            at_s = time.monotonic() - began_s
            look_at(looks["service"], process, at_s)
            look_at(looks["agent"], agents.running["box"].pid, at_s)

        client = HttpClient(http)
        stack.callback(client.close)
        client.infer()
        began_s = time.monotonic()
        tasks = ((change, change_every_s), (kill, kill_every_s), (look, LOOK_EVERY_S))
        threads = [threading.Thread(target=_repeat, args=(*task, over), daemon=True) for task in tasks]
        for thread in threads:
            thread.start()
        try:
            theirs, ours = loadgen.run(
                client, "Server", delay_s=1.0, rate_per_s=RATE_PER_S / loadgen.SERVER_SHARE, duration_s=seconds
            )
        finally:
            over.set()
            for thread in threads:
                thread.join()
    print(
        f"{minutes:g} minutes: {', '.join(f'{count} {what}' for what, count in done.items())}; ours: {ours}; none lost"
    )
    print("\n".join(f"    {line}" for line in theirs))
    for what, found in looks.items():
        report(what, found, skip_s=seconds * SETTLES)


def _repeat(task: Callable[[], None], every_s: float, over: threading.Event) -> None:
    while not over.wait(every_s):
        task()


def main(words: Sequence[str]) -> None:
    """Read the options, and run."""
    parser = ArgumentParser(prog="python -m benchmarks serve-soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="how long (30)")
    parser.add_argument("--change-every", type=float, default=CHANGE_EVERY_S, help="seconds between plans (60)")
    parser.add_argument("--kill-every", type=float, default=KILL_EVERY_S, help="seconds between kills (120)")
    given = parser.parse_args(words)
    soak(given.minutes, given.change_every, given.kill_every)
