"""A generated text as it grows, and its documents in OpenAI's protocol: of a completion, or of a chat."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from planner.execution.session.generation import Generation
from planner.execution.session.text import TextCodec, whole_characters

Finish = Literal["stop", "length"]
Document = dict[str, Any]


@dataclass
class Completion:
    """The text after a prompt.

    Parameters
    ----------
    stops
        Texts before which it ends.
    with_usage
        Whether its stream ends with the numbers of tokens.
    """

    PREFIX: ClassVar[str] = "cmpl"

    generation: Generation
    codec: TextCodec
    stops: list[str]
    with_usage: bool = False
    text: str = ""
    finish: Finish | None = None
    id: str = field(init=False)
    created: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        self.id = f"{self.PREFIX}-{uuid.uuid4().hex}"

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

    async def events(self) -> AsyncIterator[Document]:
        """Yield the documents of a stream."""
        for document in self._opening():
            yield document
        async for piece in self.pieces():
            yield self._event(piece, None)
        yield self._event("", self.finish)
        if self.with_usage:
            yield {**self._event("", None), "choices": [], "usage": self.usage}

    def document(self) -> Document:
        """Return the document of the whole text."""
        return {**self._event(self.text, self.finish), "usage": self.usage}

    def _opening(self) -> list[Document]:
        return []

    def _event(self, text: str, finish: Finish | None) -> Document:
        return self._described("text_completion", {"text": text, "logprobs": None, "finish_reason": finish})

    def _described(self, kind: str, choice: Document) -> Document:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.generation.source.name,
            "choices": [{"index": 0, **choice}],
        }

    @property
    def usage(self) -> dict[str, int]:
        """Numbers of tokens."""
        prompt, made = len(self.generation.prompt), len(self.generation.tokens)
        return {"prompt_tokens": prompt, "completion_tokens": made, "total_tokens": prompt + made}


class ChatCompletion(Completion):
    """The next message of a conversation."""

    PREFIX = "chatcmpl"

    def document(self) -> Document:
        """Return the document of the whole message."""
        message = {"role": "assistant", "content": self.text, "refusal": None}
        choice = {"message": message, "logprobs": None, "finish_reason": self.finish}
        return {**self._described("chat.completion", choice), "usage": self.usage}

    def _opening(self) -> list[Document]:
        return [self._delta({"role": "assistant", "content": ""}, None)]

    def _event(self, text: str, finish: Finish | None) -> Document:
        return self._delta({"content": text} if text else {}, finish)

    def _delta(self, delta: Document, finish: Finish | None) -> Document:
        choice = {"delta": delta, "logprobs": None, "finish_reason": finish}
        return self._described("chat.completion.chunk", choice)


def _begun(text: str, stop: str) -> int:
    """Return how many characters at the end of a text may be the beginning of a stop."""
    return next((size for size in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:size])), 0)
