"""Emulation of a scenario's network on this host, by the simulator's network model in real time.

Agents send their tensors at once over the loopback interface, and this network decides when the receiver may use them.
The model knows when a transfer will end as soon as its last fragment begins. So it informs the receiver in advance, and
the host's own delays do not affect the measurement. Unlike pacing of each sender, this covers media that several
processes share.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from math import isfinite

from planner.errors import ExecuteError
from planner.execution.wire.messages import Transmit
from planner.execution.wire.threads import start_thread
from planner.policy.types import RUN_STRIDE
from planner.scenario.instance import Instance
from planner.simulation.event_heap import EventHeap
from planner.simulation.network import Leg, NetworkModel, legs
from planner.trace.records import TransferRecord


class EmulatedNetwork:
    """Processes :class:`~planner.execution.wire.messages.Transmit` requests in real time, in a separate thread."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._heap = EventHeap()
        self._network = NetworkModel(self._heap, instance.resources, self._deliver, self._record)
        self._changed = threading.Condition()
        self._requests: list[Transmit] = []
        self._stopping = False
        self._start_s = 0.0
        self._admit: Callable[[str, str, float], None] | None = None
        self._sink: Callable[[TransferRecord], None] | None = None
        self._thread: threading.Thread | None = None

    def start(
        self,
        start_unix_s: float,
        admit: Callable[[str, str, float], None],
        sink: Callable[[TransferRecord], None],
        on_failure: Callable[[Exception], None],
    ) -> None:
        """Start; the run's clock reads 0 at ``start_unix_s``."""
        self._start_s = time.monotonic() + (start_unix_s - time.time())
        self._admit, self._sink = admit, sink
        self._thread = start_thread("network", self._work, on_failure)

    def transmit(self, request: Transmit) -> None:
        """Accept a request; may be called in any thread.

        Raises
        ------
        ExecuteError
            If the scenario has no such path, or a number is invalid.
        """
        if request.to not in self._instance.paths.get(request.sender, {}):
            raise ExecuteError("no such path", where="transmit", value=f"{request.sender} > {request.to}")
        if not isfinite(request.at_s) or not isfinite(request.priority) or request.size_bytes < 0:
            raise ExecuteError("not a valid transfer", where=f"transmit from {request.sender}", value=str(request))
        with self._changed:
            self._requests.append(request)
            self._changed.notify()

    def stop(self) -> None:
        """Stop, and wait for the thread to end."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                if not self._requests and not self._stopping:
                    wait_s = self._heap.next_s - self._now_s()
                    if wait_s > 0:
                        self._changed.wait(min(wait_s, 3600.0))
                if self._stopping:
                    return
                requests, self._requests = self._requests, []
            for request in requests:
                self._heap.at(request.at_s, self._submit, request)
            while self._heap.next_s <= self._now_s():
                self._heap.run_next()

    def _now_s(self) -> float:
        return time.monotonic() - self._start_s

    def _submit(self, request: Transmit) -> None:
        path = legs(self._instance.paths[request.sender][request.to])
        self._network.submit(path, request.size_bytes, request.priority, request)

    def _deliver(self, request: Transmit, at_s: float) -> None:
        if self._admit is not None:
            self._admit(request.to, request.transfer, at_s)

    def _record(self, request: Transmit, hop: Leg, start_s: float, end_s: float) -> None:
        source, sample, _ = request.key
        record = TransferRecord(
            hop.resource,
            hop.sender,
            hop.receiver,
            source,
            sample % RUN_STRIDE,
            request.cut,
            request.size_bytes,
            start_s,
            end_s,
        )
        if self._sink is not None:
            self._sink(record)
