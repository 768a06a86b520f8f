"""Text generation by OpenAI's protocol: ``/v1/models`` and ``/v1/completions``, also streamed as server-sent events.

A source whose model keeps state is a model here. Prompts are texts, or lists of tokens. Tokens are drawn at a
``temperature``; 0 takes the likeliest. Where a request does not say how it is to be completed, ``decode:`` of the
source in the scenario does, and otherwise that protocol's defaults: 16 tokens at temperature 1.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from planner.errors import PlannerError
from planner.execution.session.generation import Generation
from planner.execution.session.source import SourceHandle
from planner.execution.session.text import BytesCodec, TextCodec, whole_characters
from planner.model.chain import SEQUENCE
from planner.schemas import schema_faults
from planner.serve.gateway import Gateway

MOST_BYTES: Final = 2**22
"""Largest request."""

MAX_TOKENS: Final = 16
TEMPERATURE: Final = 1.0

Finish = Literal["stop", "length"]


class CompletionRequest(BaseModel):
    """What is asked for; other fields than these are refused, except those that change nothing here."""

    model_config = ConfigDict(extra="forbid")

    model: str
    prompt: str | list[int]
    max_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2, allow_inf_nan=False)
    seed: int = Field(default=0, ge=0)
    stop: str | list[str] | None = None
    stream: bool = False
    n: Literal[1] = 1
    echo: Literal[False] = False
    best_of: Literal[1] = 1
    logprobs: None = None
    suffix: None = None
    user: str | None = None

    @property
    def stops(self) -> list[str]:
        """Texts at which the completion ends."""
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return [text for text in given if text]


@dataclass
class _RefusedError(Exception):
    """A request that is not carried out."""

    status: int
    message: str
    code: str | None = None


@dataclass
class _Completion:
    """A text as it grows."""

    generation: Generation
    codec: TextCodec
    stops: list[str]
    text: str = ""
    finish: Finish | None = None
    id: str = field(default_factory=lambda: f"cmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    async def pieces(self) -> AsyncIterator[str]:
        """Yield what each token adds to the text, once no stop can begin in it."""
        shown = 0
        async for token in self.generation:
            if token in self.generation.stop:
                self.text, self.finish = self.codec.decode(self.generation.tokens[:-1]), "stop"
                break
            whole = whole_characters(self.codec.decode(self.generation.tokens))
            ends = [at for stop in self.stops if (at := whole.find(stop)) >= 0]
            if ends:
                self.text, self.finish = whole[: min(ends)], "stop"
                break
            self.text = whole
            held = max((_begun(whole, stop) for stop in self.stops), default=0)
            if len(whole) - held > shown:
                yield whole[shown : len(whole) - held]
                shown = len(whole) - held
        if self.finish is None:
            self.text = self.codec.decode(self.generation.tokens)
            self.finish = "length"
        if len(self.text) > shown:
            yield self.text[shown:]

    def document(self, text: str, finish: Finish | None) -> dict[str, Any]:
        """Return a response, or an event of one."""
        return {
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.generation.source.name,
            "choices": [{"index": 0, "text": text, "logprobs": None, "finish_reason": finish}],
        }

    @property
    def usage(self) -> dict[str, int]:
        """Numbers of tokens."""
        prompt, made = len(self.generation.prompt), len(self.generation.tokens)
        return {"prompt_tokens": prompt, "completion_tokens": made, "total_tokens": prompt + made}


def _begun(text: str, stop: str) -> int:
    """Return how many characters at the end of a text may be the beginning of a stop."""
    return next((size for size in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:size])), 0)


class CompletionService:
    """Endpoints of the protocol.

    Parameters
    ----------
    codecs
        How sources turn text into tokens; by bytes where none is given.
    """

    def __init__(self, gateway: Gateway, codecs: Mapping[str, TextCodec]) -> None:
        self._gateway = gateway
        self._codecs = codecs

    def routes(self) -> list[Route]:
        """Return the endpoints."""
        return [
            Route("/v1/models", self.models),
            Route("/v1/completions", self.complete, methods=["POST"]),
            Route("/v1/chat/completions", _refuse_chat, methods=["POST"]),
        ]

    def _handles(self) -> dict[str, SourceHandle]:
        """Return the sources that generate."""
        served = self._gateway.models.items()
        return {name: model.handle for name, model in served if SEQUENCE in model.inputs}

    async def models(self, _request: Request) -> Response:
        """List the sources that generate."""
        created = int(self._gateway.watch.started_unix_s)
        entries = [
            {"id": name, "object": "model", "created": created, "owned_by": "planner"} for name in self._handles()
        ]
        return JSONResponse({"object": "list", "data": entries})

    async def complete(self, request: Request) -> Response:
        """Complete a prompt."""
        try:
            asked = await _read(request)
            completion = self._begun(asked)
            if asked.stream:
                return StreamingResponse(self._events(completion), media_type="text/event-stream")
            with self._gateway.request():
                async for _ in completion.pieces():
                    pass
        except _RefusedError as error:
            return _error(error.status, error.message, error.code)
        except PlannerError as error:
            return _error(500, str(error))
        return JSONResponse({**completion.document(completion.text, completion.finish), "usage": completion.usage})

    def _begun(self, asked: CompletionRequest) -> _Completion:
        if self._gateway.closing or self._gateway.watch.error is not None:
            raise _RefusedError(503, "the service takes no more requests")
        if asked.model not in (handles := self._handles()):
            known = ", ".join(handles) or "none: no model of this service keeps state"
            what = f"no such model; found {asked.model!r}; expected one of {known}"
            raise _RefusedError(404, what, "model_not_found")
        codec = self._codecs.get(asked.model, BytesCodec())
        prompt = codec.encode(asked.prompt) if isinstance(asked.prompt, str) else asked.prompt
        handle = handles[asked.model]
        max_new, temperature = asked.max_tokens, asked.temperature
        if handle.decode is None:
            max_new = MAX_TOKENS if max_new is None else max_new
            temperature = TEMPERATURE if temperature is None else temperature
        try:
            generation = handle.generate(prompt, max_new=max_new, temperature=temperature, seed=asked.seed)
        except PlannerError as error:
            raise _RefusedError(400, str(error)) from error
        return _Completion(generation, codec, asked.stops)

    async def _events(self, completion: _Completion) -> AsyncIterator[str]:
        """Yield the events of a streamed completion; an error is the last one."""
        try:
            with self._gateway.request():
                async for piece in completion.pieces():
                    yield _event(completion.document(piece, None))
            yield _event(completion.document("", completion.finish))
        except PlannerError as error:
            yield _event({"error": {"message": str(error), "type": "server_error", "param": None, "code": None}})
        yield "data: [DONE]\n\n"


def _event(document: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(document)}\n\n"


async def _read(request: Request) -> CompletionRequest:
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MOST_BYTES:
            raise _RefusedError(413, f"the request has more than {MOST_BYTES} bytes")
    try:
        return CompletionRequest.model_validate_json(body)
    except ValidationError as error:
        faults = schema_faults(error, CompletionRequest, "request")
        raise _RefusedError(400, "; ".join(map(str, faults))) from error


async def _refuse_chat(_request: Request) -> Response:
    return _error(501, "chats are not offered, since a model's file has no template for them; use /v1/completions")


def _error(status: int, message: str, code: str | None = None) -> Response:
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return JSONResponse({"error": {"message": message, "type": kind, "param": None, "code": code}}, status)
