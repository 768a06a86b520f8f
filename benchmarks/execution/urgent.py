"""Delay of urgent data on a link saturated by other data, relative to an idle link."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

import numpy as np

from planner.execution.launch.netns import network_namespaces, unavailable
from planner.execution.wire.diagnostics import Chunk
from planner.execution.wire.frames import Frame
from planner.execution.wire.lanes import Lanes
from planner.execution.wire.messages import COORDINATOR, Stop
from planner.execution.wire.transport import LEVELS
from planner.execution.wire.zenoh import zenoh_connect
from planner.scenario.types import NetworkSpec
from tests.instances import make_instance

_RATE_BYTES_PER_S: Final = 50e6 / 8
_SIZES: Final = (100_000, 400_000, 1_000_000)
_BULK_BYTES: Final = 400_000
_SAMPLES: Final = 15


def measure_urgent() -> None:
    """Print the ratio for several sizes, on a link of 50 Mbit/s idle and then saturated with the least urgent data."""
    if reason := unavailable():
        print(f"urgent data on a saturated link: skipped, {reason}")
        return
    line = NetworkSpec(kind="point-to-point", links=(("a", "b"),), bandwidth_bytes_per_s=_RATE_BYTES_PER_S)
    instance = make_instance(workers={"a": 1.0, "b": 1.0}, networks={"line": line})
    with network_namespaces(instance) as layout, ExitStack() as stack:
        ends = []
        for worker, other in (("b", "a"), ("a", "b")):
            arguments = [worker, f"{layout.addresses[worker]}:7447", f"{layout.addresses[other]}:7447"]
            command = [*layout.command(worker), sys.executable, "-m", "benchmarks.execution.urgent", *arguments]
            ends.append(stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True)))
        printed = ends[1].communicate(timeout=180)[0]
    for size_bytes, idle_s, loaded_s, bulk_bytes_per_s in json.loads(printed):
        print(
            f"urgent data of {size_bytes:>9,} B on 50 Mbit/s: {idle_s * 1e3:.1f} ms idle, {loaded_s * 1e3:.1f} ms "
            f"under a load of {bulk_bytes_per_s * 8 / 1e6:.0f} Mbit/s, ratio {loaded_s / idle_s:.2f} "
            f"(goal <= 1.3, + one block), {1e3 * (loaded_s - idle_s):.1f} ms more"
        )


class _Sends:
    """The sending end: measures until a whole frame is acknowledged."""

    def __init__(self, sender: Lanes, to: str) -> None:
        self._sender = sender
        self._to = to
        self._over = False
        self.bulk_bytes = 0

    def urgent_s(self, size_bytes: int) -> float:
        came = threading.Event()
        start_s = time.monotonic()
        self._send(size_bytes, 3, came.set)
        came.wait(30)
        return time.monotonic() - start_s

    def saturate(self) -> None:
        """Keep two frames of bulk data queued at any time."""

        def again() -> None:
            self.bulk_bytes += _BULK_BYTES
            if not self._over:
                self._send(_BULK_BYTES, LEVELS, again)

        for _ in range(3):
            self._send(_BULK_BYTES, LEVELS, again)

    def stop(self) -> None:
        self._over = True

    def _send(self, size_bytes: int, level: int, sent: Callable[[], None]) -> None:
        frame = Frame(Chunk(flood="f"), {"bytes": np.zeros(size_bytes, np.uint8)})
        self._sender.send(self._to, frame, level, sent)


def _end(name: str, listen: str, connect: str) -> None:
    there, over = threading.Event(), threading.Event()

    def take(frame: Frame) -> None:
        if isinstance(frame.body, Stop):
            over.set()

    # The sender takes the coordinator's name, because only the coordinator may send Stop.
    member, other = (COORDINATOR, "b") if name == "a" else ("b", COORDINATOR)
    transport = zenoh_connect(member, listen=listen, connect=[connect], insecure=True)(
        take, lambda _member, present: there.set() if present else over.set()
    )
    transport.limit(max(_SIZES))
    sender = Lanes(transport)
    there.wait(30)
    if name == "a":
        time.sleep(0.5)
        sends = _Sends(sender, other)
        idle_s = {size: statistics.median(sends.urgent_s(size) for _ in range(_SAMPLES)) for size in _SIZES}
        sends.saturate()
        time.sleep(2.0)
        figures = []
        for size in _SIZES:
            start_s, start_bytes, loaded_s = time.monotonic(), sends.bulk_bytes, []
            for _ in range(_SAMPLES):
                time.sleep(0.25)
                loaded_s.append(sends.urgent_s(size))
            rate = (sends.bulk_bytes - start_bytes) / (time.monotonic() - start_s)
            figures.append((size, idle_s[size], statistics.median(loaded_s), rate))
        sends.stop()
        print(json.dumps(figures))
        came = threading.Event()
        sender.send(other, Frame(Stop(run="r")), LEVELS, came.set)
        came.wait(30)
    else:
        over.wait(170)
    sender.close()
    transport.close()


if __name__ == "__main__":
    _end(*sys.argv[1:])
