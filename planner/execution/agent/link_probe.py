"""Diagnostics of an agent: a description of its host, and measurements of its links to other agents.

Round trips are measured by the sender's clock, bandwidth by the receiver's: the clocks need not agree. A flood keeps a
few chunks in flight; the arrival of each triggers another. A receiver that has to wait for a processor sees several
chunks at once, later than they arrived. The rate is therefore measured between two chunks, one of the early and one of
the last ones, each the one that arrived earliest for its position in the flow.
"""

from __future__ import annotations

import os
import platform
import sys
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from planner.errors import RuntimeSessionError
from planner.execution.wire.diagnostics import Chunk, Echo, Flood, Flooded, Ping, Pinged
from planner.execution.wire.dispatch import Dispatch
from planner.execution.wire.frames import Frame
from planner.execution.wire.lanes import Lanes
from planner.execution.wire.transport import CONTROL, LEVELS
from planner.profiling.environment import device_environment
from planner.runtime.providers import import_onnxruntime, usable_providers
from planner.version import installed_version

CHUNK_BYTES: Final = 2**16
_IN_FLIGHT: Final = 8
_CHUNK: Final = {"bytes": np.zeros(CHUNK_BYTES, np.uint8)}

_FLOODS: Final = 64
"""Largest number of floods received at once; of more, the oldest is given up."""

_CHUNKS: Final = 2**18
"""Largest number of chunks of a flood that count."""

SETTLED: Final = 0.25
"""The rate of a flood is measured between chunks of its second and of its last such share."""

_ROUNDS: Final = 4
"""The choice of chunks depends on the rate and vice versa; after this many iterations neither changes."""


@cache
def about_host() -> dict[str, Any]:
    """Return the fields of :class:`~planner.execution.wire.diagnostics.About` that do not change on this host."""
    return {
        "version": installed_version("mdi-planner"),
        "python": platform.python_version(),
        "device": {key: str(value) for key, value in device_environment().items()},
        "zenoh": installed_version("eclipse-zenoh"),
        "onnxruntime": _onnxruntime(),
        "providers": _providers(),
    }


def resident_bytes() -> int:
    """Return the resident memory of this process."""
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
        return usable_providers()
    except RuntimeSessionError:
        return ()


@dataclass(slots=True)
class _Pings:
    """Round trips under measurement."""

    times: int
    measurement: str
    """Identifies the measurement in its messages."""
    sent_s: float = 0.0
    round_trip_s: list[float] = field(default_factory=list)


@dataclass(slots=True)
class _Outflow:
    """A flood that this agent sends."""

    to: str
    until_s: float
    in_flight: int


class LinkProbe:
    """Measures the links of one agent; called in the agent's thread, except for the callbacks of its lanes.

    Parameters
    ----------
    report
        Sends a measurement to the coordinator that asked for it.
    """

    def __init__(self, name: str, lanes: Lanes, report: Callable[[Frame], None]) -> None:
        self._name = name
        self._lanes = lanes
        self._report = report
        self._pings: dict[str, _Pings] = {}
        self._arrivals: dict[str, list[tuple[float, int]]] = {}
        self._lock = threading.Lock()

    def handle(self, frame: Frame) -> None:
        """Handle a diagnostic message."""
        self._HANDLERS.handle(self, frame)

    def _on_ping(self, ping: Ping, _frame: Frame) -> None:
        self._pings[ping.to] = _Pings(ping.times, uuid.uuid4().hex)
        self._send_echo(ping.to)

    def _send_echo(self, to: str) -> None:
        pings = self._pings[to]
        pings.sent_s = time.monotonic()
        self._lanes.send(to, Frame(Echo(run=pings.measurement, number=len(pings.round_trip_s))), CONTROL)

    def _on_echo(self, echo: Echo, frame: Frame) -> None:
        if echo.back:
            self._end_round_trip(frame.sender, echo)
        else:
            answer = echo.model_copy(update={"back": True, "unix_s": time.time()})
            self._lanes.send(frame.origin, Frame(answer), CONTROL)

    def _end_round_trip(self, to: str, echo: Echo) -> None:
        pings = self._pings.get(to)
        if pings is None or (echo.run, echo.number) != (pings.measurement, len(pings.round_trip_s)):
            return  # of an earlier measurement
        pings.round_trip_s.append(time.monotonic() - pings.sent_s)
        if len(pings.round_trip_s) < pings.times:
            self._send_echo(to)
            return
        del self._pings[to]
        self._report(Frame(Pinged(worker=self._name, to=to, round_trip_s=tuple(pings.round_trip_s))))

    def _on_flood(self, flood: Flood, _frame: Frame) -> None:
        flow = _Outflow(flood.to, time.monotonic() + flood.duration_s, _IN_FLIGHT)

        def on_arrival() -> None:
            with self._lock:
                if time.monotonic() >= flow.until_s:
                    flow.in_flight -= 1
                    if flow.in_flight == 0:
                        self._lanes.send(flow.to, Frame(Chunk(flood=flood.flood, last=True)), LEVELS)
                    return
            self._lanes.send(flow.to, Frame(Chunk(flood=flood.flood), _CHUNK), LEVELS, on_arrival)

        for _ in range(_IN_FLIGHT):
            self._lanes.send(flow.to, Frame(Chunk(flood=flood.flood), _CHUNK), LEVELS, on_arrival)

    def _on_chunk(self, chunk: Chunk, frame: Frame) -> None:
        if len(self._arrivals) == _FLOODS and chunk.flood not in self._arrivals:
            del self._arrivals[next(iter(self._arrivals))]
        arrivals = self._arrivals.setdefault(chunk.flood, [])
        if not chunk.last:
            size_bytes = sum(tensor.nbytes for tensor in frame.tensors.values())
            if len(arrivals) < _CHUNKS:
                arrivals.append((frame.arrived_s, size_bytes))
            return
        del self._arrivals[chunk.flood]
        size_bytes, took_s = settled(arrivals)
        self._report(Frame(Flooded(worker=self._name, flood=chunk.flood, size_bytes=size_bytes, took_s=took_s)))

    _HANDLERS = Dispatch["LinkProbe", None]({
        Ping: _on_ping,
        Echo: _on_echo,
        Flood: _on_flood,
        Chunk: _on_chunk,
    })  # fmt: skip


def settled(arrivals: Sequence[tuple[float, int]]) -> tuple[int, float]:
    """Return how many bytes arrived in how many seconds once the flow had settled; zeros for fewer than two chunks.

    Among the early chunks, and among the last ones, the chunk furthest ahead of a steady flow of the measured rate
    counts: it waited least on this host.

    Parameters
    ----------
    arrivals
        Time and size of each chunk, in order.
    """
    count = len(arrivals)
    if count < 2:
        return 0, 0.0
    at_s = np.array([time_s for time_s, _ in arrivals])
    arrived_bytes = np.cumsum([size_bytes for _, size_bytes in arrivals])
    share = int(SETTLED * count)
    early, late = slice(share, max(2 * share, 1)), slice(-max(share, 1), None)
    begin, end = share, count - 1
    for _ in range(_ROUNDS):
        rate = (arrived_bytes[end] - arrived_bytes[begin]) / max(at_s[end] - at_s[begin], 1e-9)
        ahead_bytes = arrived_bytes - rate * at_s
        begin = share + int(np.argmax(ahead_bytes[early]))
        end = count - max(share, 1) + int(np.argmax(ahead_bytes[late]))
    return int(arrived_bytes[end] - arrived_bytes[begin]), float(at_s[end] - at_s[begin])
