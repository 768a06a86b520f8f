"""The HTTP side of the service: the REST protocol, health, metrics, and the state for a live page."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from planner.report.html.page import live_page
from planner.serve import rest
from planner.serve.about import EXTENSIONS, PLATFORM, SERVER, metadata_version
from planner.serve.appliers import refusal
from planner.serve.completions import CompletionService
from planner.serve.gateway import VERSION, Gateway
from planner.serve.refusals import Reason, RefusalError
from planner.serve.state import service_state
from planner.serve.tensors import largest_text_bytes
from planner.serve.traffic import Traffic

Apply: TypeAlias = Callable[[bytes], tuple[int, dict[str, Any]]]
"""Applies the plan or scenario of a request's body; returns status and document of the response."""

MOST_APPLIED_BYTES: Final = 2**24
"""Largest request that applies a plan."""

Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]

_LARGE_BYTES: Final = 2**20
"""Bodies from this size on are read and written in another thread, so that no other request waits for that."""

_HEADER_BYTES: Final = 2**16
"""Room for all that is not numbers in a request."""

_NOT_OFFERED: Final = {
    "systemsharedmemory": "shared memory is not offered; send and receive the data itself",
    "cudasharedmemory": "shared memory is not offered; send and receive the data itself",
    "repository/models": "models are those of the plan; they are not loaded or unloaded by clients",
}


class HttpService:
    """Endpoints of one service."""

    def __init__(
        self,
        gateway: Gateway,
        traffic: Traffic,
        registry: CollectorRegistry,
        name: str,
        *,
        completions: CompletionService,
        apply: Apply,
        appliers: str,
    ) -> None:
        self._gateway = gateway
        self._traffic = traffic
        self._registry = registry
        self._name = name
        self._completions = completions
        self._apply = apply
        self._appliers = appliers
        self._page = live_page()

    def application(self) -> Starlette:
        """Return the ASGI application."""
        model = "/v2/models/{model}"
        version = model + "/versions/{version}"
        routes = [
            # First, and without what Starlette does around functions: the others are not asked for often.
            *(Route(f"{path}/infer", _Asgi(self.infer), methods=["POST"]) for path in (model, version)),
            Route("/", self.page),
            Route("/metrics", self.metrics),
            Route("/state", self.state),
            Route("/v2", self.server),
            Route("/v2/health/live", self.live),
            Route("/v2/health/ready", self.ready),
            Route("/v2/repository/index", self.index, methods=["POST"]),
            *(Route(path, self.model) for path in (model, version)),
            *self._completions.routes(),
            Route("/apply", self.apply, methods=["POST"]),
            *(Route(f"{path}/ready", self.model_ready) for path in (model, version)),
            *(
                Route(f"/v2/{path}/{{rest:path}}", _refuser(message), methods=["GET", "POST"])
                for path, message in _NOT_OFFERED.items()
            ),
        ]
        return Starlette(routes=routes, exception_handlers={HTTPException: _on_http, RefusalError: _on_refusal})

    # ---- the protocol -----------------------------------------------------------------------------------------------

    async def server(self, _request: Request) -> Response:
        """Describe the server."""
        return JSONResponse({"name": SERVER, "version": metadata_version(), "extensions": list(EXTENSIONS)})

    async def live(self, _request: Request) -> Response:
        """Tell that the process runs."""
        return Response()

    async def ready(self, _request: Request) -> Response:
        """Tell whether requests are taken, for one model at least."""
        return Response(status_code=200 if self._gateway.ready else Reason.UNAVAILABLE.http)

    async def index(self, _request: Request) -> Response:
        """List the models."""
        states = {True: ("READY", ""), False: ("UNAVAILABLE", "the worker of the source is absent")}
        entries = []
        for name in self._gateway.models:
            state, reason = states[self._gateway.is_ready(name)]
            entries.append({"name": name, "version": VERSION, "state": state, "reason": reason})
        return JSONResponse(entries)

    async def model(self, request: Request) -> Response:
        """Describe a model."""
        name = request.path_params["model"]
        served = self._gateway.model(name, request.path_params.get("version", ""))
        inputs, outputs = rest.tensors_document(served.inputs), rest.tensors_document(served.outputs)
        document = {"name": name, "versions": [VERSION], "platform": PLATFORM, "inputs": inputs, "outputs": outputs}
        return JSONResponse(document)

    async def model_ready(self, request: Request) -> Response:
        """Tell whether a model takes requests."""
        name = request.path_params["model"]
        self._gateway.model(name, request.path_params.get("version", ""))
        return Response(status_code=200 if self._gateway.is_ready(name) else Reason.UNAVAILABLE.http)

    async def infer(self, request: Request) -> Response:
        """Run a model."""
        name = request.path_params["model"]
        with self._traffic.request(name, "http"):
            served = self._gateway.model(name)  # before a body is read that may be for no model
            limit_bytes = _HEADER_BYTES + largest_text_bytes(served.inputs)
            received_s = time.monotonic()
            body = await _body(request, limit_bytes)

            def read() -> rest.ReadRequest:
                encoding = request.headers.get("content-encoding", "").strip().lower()
                plain = rest.decompressed(body, encoding, limit_bytes)
                version = request.path_params.get("version", "")
                return rest.read_request(name, version, plain, request.headers.get(rest.HEADER_LENGTH), received_s)

            asked = await _here_or_aside(read, len(body))
            outputs = await self._gateway.infer(asked.request)

            def write() -> rest.Response:
                return rest.compressed(rest.write_response(asked, outputs), request.headers.get("accept-encoding", ""))

            answer = await _here_or_aside(write, sum(array.nbytes for array in outputs.values()))
        return Response(answer.body, headers=dict(answer.headers))

    # ---- what is seen -----------------------------------------------------------------------------------------------

    async def metrics(self, request: Request) -> Response:
        """Return all metrics in the format of Prometheus, or of OpenMetrics for a client that accepts it."""
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(self._registry), headers={"Content-Type": content_type})

    async def state(self, _request: Request) -> Response:
        """Return the state of the service."""
        state = service_state(self._name, self._gateway)
        return Response(state.model_dump_json(by_alias=True), media_type="application/json")

    async def page(self, _request: Request) -> Response:
        """Return the live page."""
        return Response(self._page, media_type="text/html")

    # ---- what is changed --------------------------------------------------------------------------------------------

    async def apply(self, request: Request) -> Response:
        """Have the session follow another plan or scenario."""
        refused = refusal(request, self._appliers)
        if refused is not None:
            return _error(*refused)
        status, document = await asyncio.to_thread(self._apply, await _body(request, MOST_APPLIED_BYTES))
        return JSONResponse(document, status)


class _Asgi:
    """An endpoint as an ASGI application, called as such."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._endpoint(Request(scope, receive))
        await response(scope, receive, send)


async def _here_or_aside(work: Callable[[], Any], size_bytes: int) -> Any:
    return work() if size_bytes < _LARGE_BYTES else await asyncio.to_thread(work)


async def _body(request: Request, limit_bytes: int) -> bytes:
    """Return the body of a request, of which no more is received than any request of the model needs."""
    pieces, total = [], 0
    async for piece in request.stream():
        total += len(piece)
        if total > limit_bytes:
            raise rest.too_large(limit_bytes)
        pieces.append(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _refuser(message: str) -> Endpoint:
    async def refuse(_request: Request) -> Response:
        raise RefusalError(Reason.UNSUPPORTED, message)

    return refuse


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": message}, status, headers)


async def _on_refusal(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusalError)  # noqa: S101 - what the handler is registered for
    headers = {"Retry-After": str(error.retry_after_s)} if error.retry_after_s is not None else None
    return _error(error.reason.http, error.message, headers)


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - what the handler is registered for
    what = "no such address" if error.status_code == 404 else error.detail
    return _error(error.status_code, f"{what}: {request.method} {request.url.path}", dict(error.headers or {}))
