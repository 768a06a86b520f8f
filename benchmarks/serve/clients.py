"""Three ways to the same model, each with up to ``LIMIT`` samples in flight: a session, HTTP and gRPC."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

import tritonclient.grpc
import tritonclient.http

import planner
from benchmarks.serve.case import LIMIT, SOURCE, sample

Done = Callable[[Any], None]


class Client(Protocol):
    """A way to the model."""

    def submit(self, done: Done) -> None:
        """Send a sample, once fewer than ``LIMIT`` are in flight; ``done`` is called in any thread with the output."""
        ...

    def close(self) -> None:
        """Release what the client holds."""
        ...


def wait(client: Client) -> Any:
    """Send a sample and return its output."""
    box: queue.SimpleQueue[Any] = queue.SimpleQueue()
    client.submit(box.put)
    output = box.get(timeout=60)
    if isinstance(output, Exception):
        raise output
    return output


class SessionClient:
    """Submits to a session in this process."""

    def __init__(self, session: planner.Session) -> None:
        self._source = session.source(SOURCE)
        self._inputs = {"x": sample()}

    def submit(self, done: Done) -> None:
        """Send a sample."""
        future = self._source.submit(self._inputs)
        future.add_done_callback(lambda ended: done(ended.exception() or ended.result().outputs["y"]))

    def close(self) -> None:
        """Leave the session to its owner."""


class HttpClient:
    """Sends by tritonclient over HTTP, a connection and a thread for each sample in flight."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._work: queue.Queue[Done | None] = queue.Queue(1)
        self._threads = [threading.Thread(target=self._serve, daemon=True) for _ in range(LIMIT)]
        for thread in self._threads:
            thread.start()

    def submit(self, done: Done) -> None:
        """Send a sample."""
        self._work.put(done)

    def close(self) -> None:
        """End the threads."""
        for _ in self._threads:
            self._work.put(None)
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        client = tritonclient.http.InferenceServerClient(self._address)
        tensor = tritonclient.http.InferInput("x", list(sample().shape), "FP32")
        tensor.set_data_from_numpy(sample())
        while (done := self._work.get()) is not None:
            try:
                done(client.infer(SOURCE, [tensor]).as_numpy("y"))
            except Exception as error:  # noqa: BLE001 - the caller raises it
                done(error)
        client.close()


class GrpcClient:
    """Sends by tritonclient over gRPC, on one connection."""

    def __init__(self, address: str) -> None:
        self._client = tritonclient.grpc.InferenceServerClient(address)
        self._tensor = tritonclient.grpc.InferInput("x", list(sample().shape), "FP32")
        self._tensor.set_data_from_numpy(sample())
        self._slots = threading.Semaphore(LIMIT)

    def submit(self, done: Done) -> None:
        """Send a sample."""
        self._slots.acquire()
        self._client.async_infer(SOURCE, [self._tensor], partial(self._end, done))

    def _end(self, done: Done, result: Any, error: Exception | None) -> None:
        self._slots.release()
        done(error or result.as_numpy("y"))

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


def clients(session: planner.Session, http: str, grpc: str) -> Mapping[str, Client]:
    """Return the three."""
    return {"session": SessionClient(session), "HTTP": HttpClient(http), "gRPC": GrpcClient(grpc)}
