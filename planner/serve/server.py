"""The servers of a service, HTTP and gRPC, on one event loop in a thread of their own.

1. Addresses are bound before the session opens, so that one in use is told at once; connections are accepted once it
   is open.
2. Results come from the session's thread to the event loop as futures; no request has a thread of its own.
3. To end, new requests are refused, those in flight are answered, within a time that is given; then connections close.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from types import TracebackType
from typing import Final

import grpc.aio
import uvicorn
import uvloop

from planner.errors import ExecuteError
from planner.execution.wire.threads import start_thread
from planner.serve.addresses import Address
from planner.serve.chat_template import Tokenizer
from planner.serve.completions import CompletionService
from planner.serve.gateway import Gateway
from planner.serve.http import Apply, HttpService
from planner.serve.metrics import registry_of
from planner.serve.rpc import GrpcService
from planner.serve.traffic import Traffic

_LOG = logging.getLogger(__name__)

_KEEP_ALIVE_S: Final = 75
"""How long an idle connection stays open; longer than the pools of most clients keep one."""

_LAST_ANSWERS_S: Final = 2
"""How long responses that have been computed may take to be sent at the end."""


class Server(AbstractContextManager["Server"]):
    """HTTP and gRPC servers; use it as a context manager, inside that of the session.

    Parameters
    ----------
    name
        Name of the service, shown in its state.
    http
        A bound socket, which the server closes.
    grpc_address
        None for no gRPC.
    grace_s
        Time in seconds for requests in flight at the end.
    tokenizers
        Those of sources that generate; the bytes of a text are its tokens where none is given.
    apply, appliers
        Applies another plan; and who may have it do so.

    Raises
    ------
    ExecuteError
        On entry, if a server does not start.
    """

    def __init__(
        self,
        name: str,
        gateway: Gateway,
        http: socket.socket,
        grpc_address: Address | None,
        *,
        grace_s: float,
        access_log: bool = False,
        tokenizers: Mapping[str, Tokenizer],
        apply: Apply,
        appliers: str,
    ) -> None:
        self._gateway = gateway
        self._http = http
        self._grpc_address = grpc_address
        self._grace_s = grace_s
        traffic = Traffic(access_log=access_log)
        completions = CompletionService(gateway, tokenizers)
        registry = registry_of(gateway, traffic)
        endpoints = HttpService(
            gateway, traffic, registry, name, completions=completions, apply=apply, appliers=appliers
        )
        config = uvicorn.Config(
            endpoints.application(),
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ws="none",
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=_LAST_ANSWERS_S,
        )
        self._uvicorn = uvicorn.Server(config)
        self._grpc_service = GrpcService(gateway, traffic)
        self._started = threading.Event()
        self._error: Exception | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread: threading.Thread | None = None
        self.grpc_port: int | None = None
        """Port of the gRPC server, once it listens."""

    def __enter__(self) -> Server:
        self._thread = start_thread("serve", self._run, self._fail)
        self._started.wait()
        if self._error is not None:
            self._thread.join()
            raise ExecuteError(f"the servers cannot start: {self._error}", where="serve") from self._error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        loop, stop = self._loop, self._stop
        if loop is not None and stop is not None:
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(stop.set)
        if self._thread is not None:
            self._thread.join()

    def _fail(self, error: Exception) -> None:
        self._error = error
        self._gateway.watch.on_closed(ExecuteError(f"the servers failed: {error}", where="serve"))
        self._started.set()

    def _run(self) -> None:
        try:
            uvloop.run(self._serve())
        finally:
            self._http.close()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        rpc = await self._start_grpc()
        http = asyncio.create_task(self._uvicorn.serve(sockets=[self._http]))
        try:
            while not self._uvicorn.started and not http.done():
                await asyncio.sleep(0.005)
            if http.done():
                http.result()
            self._started.set()
            await self._stop.wait()
            self._gateway.closing = True
            await self._drain()
        finally:
            if rpc is not None:
                await rpc.stop(_LAST_ANSWERS_S)
            self._uvicorn.should_exit = True
            await http

    async def _start_grpc(self) -> grpc.aio.Server | None:
        if self._grpc_address is None:
            return None
        options = [
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", self._grpc_service.largest_request_bytes),
            ("grpc.max_send_message_length", -1),
        ]
        rpc = grpc.aio.server(options=options)
        rpc.add_generic_rpc_handlers((self._grpc_service,))
        try:
            self.grpc_port = rpc.add_insecure_port(str(self._grpc_address))
        except RuntimeError as error:
            raise ExecuteError("cannot listen", where="--grpc-listen", value=str(self._grpc_address)) from error
        await rpc.start()
        return rpc

    async def _drain(self) -> None:
        """Wait for requests in flight."""
        try:
            await asyncio.wait_for(self._gateway.idle(), self._grace_s)
        except asyncio.TimeoutError:
            _LOG.warning("requests were in flight for %g s after the end was asked for; they fail", self._grace_s)
