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

    def infer(self) -> Any:
        """Send a sample and return its output, in the thread that calls."""
        ...

    def submit(self, done: Done) -> None:
        """Send a sample, once fewer than ``LIMIT`` are in flight; ``done`` is called in any thread with the output."""
        ...

    def close(self) -> None:
        """Release what the client holds."""
        ...


class SessionClient:
    """Submits to a session in this process."""

    def __init__(self, session: planner.Session) -> None:
        self._source = session.source(SOURCE)
        self._inputs = {"x": sample()}

    def infer(self) -> Any:
        """Send a sample and return its output."""
        return self._source.submit(self._inputs).result().outputs["y"]

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
        self._own = _HttpConnection(address)
        self._work: queue.Queue[Done | None] = queue.Queue(1)
        self._threads = [threading.Thread(target=self._serve, daemon=True) for _ in range(LIMIT)]
        for thread in self._threads:
            thread.start()

    def infer(self) -> Any:
        """Send a sample and return its output; only in the thread that made this client."""
        return self._own.infer()

    def submit(self, done: Done) -> None:
        """Send a sample."""
        self._work.put(done)

    def close(self) -> None:
        """End the threads."""
        for _ in self._threads:
            self._work.put(None)
        for thread in self._threads:
            thread.join()
        self._own.close()

    def _serve(self) -> None:
        connection = _HttpConnection(self._address)
        while (done := self._work.get()) is not None:
            try:
                done(connection.infer())
            except Exception as error:  # noqa: BLE001 - the caller raises it
                done(error)
        connection.close()


class _HttpConnection:
    """A connection, which belongs to the thread that makes it."""

    def __init__(self, address: str) -> None:
        self._client = tritonclient.http.InferenceServerClient(address)
        self._tensor = tritonclient.http.InferInput("x", list(sample().shape), "FP32")
        self._tensor.set_data_from_numpy(sample())
        self.close = self._client.close

    def infer(self) -> Any:
        return self._client.infer(SOURCE, [self._tensor]).as_numpy("y")


class GrpcClient:
    """Sends by tritonclient over gRPC, on one connection."""

    def __init__(self, address: str) -> None:
        self._client = tritonclient.grpc.InferenceServerClient(address)
        self._tensor = tritonclient.grpc.InferInput("x", list(sample().shape), "FP32")
        self._tensor.set_data_from_numpy(sample())
        self._slots = threading.Semaphore(LIMIT)

    def infer(self) -> Any:
        """Send a sample and return its output."""
        return self._client.infer(SOURCE, [self._tensor]).as_numpy("y")

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
