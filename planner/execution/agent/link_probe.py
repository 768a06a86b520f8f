"""What an agent does outside of runs: tell about itself, and measure its ways to others for the coordinator.

Round trips are measured by the clock of the agent that asks, bandwidth by the clock of the one that receives: no clocks
need agree. A flood is a few chunks on their way at a time, each followed by another when it has come. A receiver that
has to wait for a processor finds several chunks at once, later than they came; so a rate is taken between those two
chunks, one of the early and one of the last ones, that came soonest for their place in the flow.
"""

from __future__ import annotations

import os
import platform
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from planner.errors import RuntimeSessionError
from planner.execution.wire.diagnostics import Chunk, Echo, Flood, Flooded, Ping, Pinged
from planner.execution.wire.frames import Frame
from planner.execution.wire.lanes import Lanes
from planner.execution.wire.messages import COORDINATOR
from planner.execution.wire.transport import CONTROL, LEVELS
from planner.profiling.environment import device_environment
from planner.runtime.providers import PROVIDERS, import_onnxruntime
from planner.version import installed_version

CHUNK_BYTES: Final = 2**16
_AT_A_TIME: Final = 8
_CHUNK: Final = {"bytes": np.zeros(CHUNK_BYTES, np.uint8)}

SETTLED: Final = 0.25
"""Share of a flood after which its rate counts: from the second such share of its chunks to the last one."""

_ROUNDS: Final = 4
"""The chunks that count hang on the rate, and the rate on them: after so many rounds neither changes."""


@cache
def about_host() -> dict[str, Any]:
    """Describe this host as :class:`~planner.execution.wire.diagnostics.About` has it, whatever does not change."""
    return {
        "version": installed_version("mdi-planner"),
        "python": platform.python_version(),
        "device": {key: str(value) for key, value in device_environment().items()},
        "zenoh": installed_version("eclipse-zenoh"),
        "onnxruntime": _onnxruntime(),
        "providers": _providers(),
    }


def resident_bytes() -> int:
    """Give the resident memory of this process."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # no Linux
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def _onnxruntime() -> str | None:
    try:
        return str(import_onnxruntime().__version__)
    except RuntimeSessionError:
        return None


def _providers() -> tuple[str, ...]:
    try:
        offered = import_onnxruntime().get_available_providers()
    except RuntimeSessionError:
        return ()
    return tuple(name for name, provider in PROVIDERS.items() if provider.execution_providers[0] in offered)


@dataclass(slots=True)
class _Pings:
    """Round trips that are being measured."""

    times: int
    sent_s: float = 0.0
    round_trip_s: list[float] = field(default_factory=list)


@dataclass(slots=True)
class _Outflow:
    """A flood on its way out."""

    to: str
    until_s: float
    flying: int = 0


class LinkProbe:
    """Answers pings and floods of one agent; called in the agent's thread, but for what its sender calls back."""

    def __init__(self, name: str, sender: Lanes) -> None:
        self._name = name
        self._sender = sender
        self._pings: dict[str, _Pings] = {}
        self._arrivals: dict[str, list[tuple[float, int]]] = {}
        self._lock = threading.Lock()

    def take(self, frame: Frame) -> None:
        """Do what is asked."""
        body = frame.body
        if isinstance(body, Ping):
            self._pings[body.to] = _Pings(body.times)
            self._next_ping(body.to)
        elif isinstance(body, Echo) and not body.back:
            self._sender.send(frame.sender, Frame(Echo(number=body.number, back=True, unix_s=time.time())), CONTROL)
        elif isinstance(body, Echo):
            self._pinged(frame.sender, body.number)
        elif isinstance(body, Flood):
            self._flood(body)
        elif isinstance(body, Chunk):
            self._on_chunk(body, frame)

    def _next_ping(self, to: str) -> None:
        pings = self._pings[to]
        pings.sent_s = time.monotonic()
        self._sender.send(to, Frame(Echo(number=len(pings.round_trip_s))), CONTROL)

    def _pinged(self, to: str, number: int) -> None:
        pings = self._pings.get(to)
        if pings is None or number != len(pings.round_trip_s):
            return  # of an earlier measurement
        pings.round_trip_s.append(time.monotonic() - pings.sent_s)
        if len(pings.round_trip_s) < pings.times:
            self._next_ping(to)
            return
        del self._pings[to]
        told = Pinged(worker=self._name, to=to, round_trip_s=tuple(pings.round_trip_s))
        self._sender.send(COORDINATOR, Frame(told), CONTROL)

    def _flood(self, flood: Flood) -> None:
        flow = _Outflow(flood.to, time.monotonic() + flood.duration_s, _AT_A_TIME)

        def came() -> None:
            with self._lock:
                if time.monotonic() >= flow.until_s:
                    flow.flying -= 1
                    if flow.flying == 0:
                        self._sender.send(flow.to, Frame(Chunk(flood=flood.flood, last=True)), LEVELS)
                    return
            self._sender.send(flow.to, Frame(Chunk(flood=flood.flood), _CHUNK), LEVELS, came)

        for _ in range(_AT_A_TIME):
            self._sender.send(flow.to, Frame(Chunk(flood=flood.flood), _CHUNK), LEVELS, came)

    def _on_chunk(self, chunk: Chunk, frame: Frame) -> None:
        arrivals = self._arrivals.setdefault(chunk.flood, [])
        if not chunk.last:
            size_bytes = sum(tensor.nbytes for tensor in frame.tensors.values())
            arrivals.append((frame.came_s, size_bytes))
            return
        del self._arrivals[chunk.flood]
        size_bytes, took_s = settled(arrivals)
        told = Flooded(worker=self._name, flood=chunk.flood, size_bytes=size_bytes, took_s=took_s)
        self._sender.send(COORDINATOR, Frame(told), CONTROL)


def settled(arrivals: Sequence[tuple[float, int]]) -> tuple[int, float]:
    """Give how much came in which time, in seconds, once the flow had settled; zeros where that was nothing.

    Among the early chunks, and among the last ones, that one counts which is furthest ahead of a steady flow of the
    rate found: it waited least on this host.

    Parameters
    ----------
    arrivals
        Time and size of each chunk, in order.
    """
    count = len(arrivals)
    if count < 2:
        return 0, 0.0
    at_s = np.array([time_s for time_s, _ in arrivals])
    came_bytes = np.cumsum([size_bytes for _, size_bytes in arrivals])
    share = int(SETTLED * count)
    early, late = slice(share, max(2 * share, 1)), slice(-max(share, 1), None)
    begin, end = share, count - 1
    for _ in range(_ROUNDS):
        rate = (came_bytes[end] - came_bytes[begin]) / max(at_s[end] - at_s[begin], 1e-9)
        ahead_bytes = came_bytes - rate * at_s
        begin = share + int(np.argmax(ahead_bytes[early]))
        end = count - max(share, 1) + int(np.argmax(ahead_bytes[late]))
    return int(came_bytes[end] - came_bytes[begin]), float(at_s[end] - at_s[begin])
