"""Text generation by OpenAI's protocol: ``/v1/models``, ``/v1/completions`` and ``/v1/chat/completions``.

A source whose model keeps state is a model here. Prompts are texts, lists of tokens, or conversations where the
source's tokenizer has a chat template. Answers come whole, or streamed as server-sent events. Tokens are drawn at a
``temperature``; 0 takes the likeliest. Where a request does not say how it is to be completed, ``decode:`` of the
source in the scenario does, and otherwise that protocol's defaults: temperature 1, and 16 tokens after a prompt. A chat
has 256, or as many as the model can take.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from planner.errors import PlannerError
from planner.execution.session.source import SourceHandle
from planner.execution.session.text import BytesCodec, TextCodec
from planner.model.chain import SEQUENCE
from planner.schemas import schema_faults
from planner.serve.chat_template import ChatError, Tokenizer
from planner.serve.completion_requests import (
    MAX_TOKENS,
    TEMPERATURE,
    ChatRequest,
    CompletionRequest,
    GenerationRequest,
)
from planner.serve.completion_text import ChatCompletion, Completion
from planner.serve.gateway import Gateway

MOST_BYTES: Final = 2**22
"""Largest request."""

_NO_TEMPLATE: Final = (
    "has no chat template; use /v1/completions, or give --tokenizer a tokenizer.json beside which there is "
    "chat_template.jinja, or tokenizer_config.json with a template"
)
_R = TypeVar("_R", bound=GenerationRequest)


@dataclass
class _RefusedError(Exception):
    """A request that is not carried out."""

    status: int
    message: str
    code: str | None = None


class CompletionService:
    """Endpoints of the protocol.

    Parameters
    ----------
    tokenizers
        Those of sources; the bytes of a text are its tokens where none is given.
    """

    def __init__(self, gateway: Gateway, tokenizers: Mapping[str, Tokenizer]) -> None:
        self._gateway = gateway
        self._tokenizers = tokenizers

    def routes(self) -> list[Route]:
        """Return the endpoints."""
        return [
            Route("/v1/models", self.models),
            Route("/v1/completions", self.complete, methods=["POST"]),
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
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
        return await self._answered(request, CompletionRequest, self._completion)

    async def chat(self, request: Request) -> Response:
        """Answer a conversation."""
        return await self._answered(request, ChatRequest, self._chat_completion)

    async def _answered(self, request: Request, kind: type[_R], begin: Callable[[_R], Completion]) -> Response:
        try:
            asked = await _read(request, kind)
            completion = begin(asked)
            if asked.stream:
                return StreamingResponse(self._events(completion), media_type="text/event-stream")
            with self._gateway.request():
                async for _ in completion.pieces():
                    pass
        except _RefusedError as error:
            return _error(error.status, error.message, error.code)
        except PlannerError as error:
            return _error(500, str(error))
        return JSONResponse(completion.document())

    def _completion(self, asked: CompletionRequest) -> Completion:
        handle, tokenizer = self._found(asked.model)
        codec: TextCodec = BytesCodec() if tokenizer is None else tokenizer.codec
        prompt = codec.encode(asked.prompt) if isinstance(asked.prompt, str) else asked.prompt
        max_new = MAX_TOKENS if asked.max_tokens is None and handle.decode is None else asked.max_tokens
        with _refusing():
            generation = handle.generate(
                prompt, max_new=max_new, temperature=_temperature(asked, handle), seed=asked.seed
            )
        return Completion(generation, codec, asked.stops, asked.with_usage)

    def _chat_completion(self, asked: ChatRequest) -> Completion:
        handle, tokenizer = self._found(asked.model)
        if tokenizer is None or tokenizer.template is None:
            raise _RefusedError(501, f"{asked.model} {_NO_TEMPLATE}")
        try:
            text = tokenizer.template.prompt([message.for_template() for message in asked.messages])
        except ChatError as error:
            raise _RefusedError(400, str(error)) from error
        end = tokenizer.codec.token(tokenizer.template.end)
        stop = {*(handle.decode.stop if handle.decode is not None else ()), *([] if end is None else [end])}
        with _refusing():
            generation = handle.generate(
                tokenizer.codec.encode(text, special=False),
                max_new=asked.most_tokens,
                stop=stop,
                temperature=_temperature(asked, handle),
                seed=asked.seed,
            )
        return ChatCompletion(generation, tokenizer.codec, asked.stops, asked.with_usage)

    def _found(self, name: str) -> tuple[SourceHandle, Tokenizer | None]:
        """Return the source of a model, and its tokenizer if it has one."""
        if self._gateway.closing or self._gateway.watch.error is not None:
            raise _RefusedError(503, "the service takes no more requests")
        if name not in (handles := self._handles()):
            known = ", ".join(handles) or "none: no model of this service keeps state"
            what = f"no such model; found {name!r}; expected one of {known}"
            raise _RefusedError(404, what, "model_not_found")
        return handles[name], self._tokenizers.get(name)

    async def _events(self, completion: Completion) -> AsyncIterator[str]:
        """Yield the events of a streamed text; an error is the last one."""
        try:
            with self._gateway.request():
                async for document in completion.events():
                    yield _event(document)
        except PlannerError as error:
            yield _event({"error": {"message": str(error), "type": "server_error", "param": None, "code": None}})
        yield "data: [DONE]\n\n"


@contextmanager
def _refusing() -> Iterator[None]:
    """Refuse what cannot be generated."""
    try:
        yield
    except PlannerError as error:
        raise _RefusedError(400, str(error)) from error


def _temperature(asked: GenerationRequest, handle: SourceHandle) -> float | None:
    return TEMPERATURE if asked.temperature is None and handle.decode is None else asked.temperature


def _event(document: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(document)}\n\n"


async def _read(request: Request, kind: type[_R]) -> _R:
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MOST_BYTES:
            raise _RefusedError(413, f"the request has more than {MOST_BYTES} bytes")
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        faults = schema_faults(error, kind, "request")
        raise _RefusedError(400, "; ".join(map(str, faults))) from error


def _error(status: int, message: str, code: str | None = None) -> Response:
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return JSONResponse({"error": {"message": message, "type": kind, "param": None, "code": code}}, status)
