"""What may be asked for by OpenAI's protocol; other fields are refused, except those that change nothing here."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

MAX_TOKENS: Final = 16
"""Largest number of tokens of a completion that states none."""

TEMPERATURE: Final = 1.0


class StreamOptions(BaseModel):
    """What a stream has besides its text."""

    model_config = ConfigDict(extra="forbid")

    include_usage: bool = False


class GenerationRequest(BaseModel):
    """What completions and chats have in common."""

    model_config = ConfigDict(extra="forbid")

    model: str
    temperature: float | None = Field(default=None, ge=0, le=2, allow_inf_nan=False)
    seed: int = Field(default=0, ge=0)
    stop: str | list[str] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    top_p: Literal[1] | None = None
    frequency_penalty: Literal[0] | None = None
    presence_penalty: Literal[0] | None = None
    n: Literal[1] = 1
    user: str | None = None

    @property
    def stops(self) -> list[str]:
        """Texts at which the text ends."""
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return [text for text in given if text]

    @property
    def with_usage(self) -> bool:
        """Whether a stream ends with the numbers of tokens."""
        return self.stream_options is not None and self.stream_options.include_usage


class CompletionRequest(GenerationRequest):
    """A prompt to be completed."""

    prompt: str | list[int]
    max_tokens: int | None = Field(default=None, ge=1)
    echo: Literal[False] = False
    best_of: Literal[1] = 1
    logprobs: None = None
    suffix: None = None


class TextPart(BaseModel):
    """A part of a message."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["text"]
    text: str


class Message(BaseModel):
    """A message of a conversation."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    name: str | None = None
    refusal: None = None
    tool_calls: None = None

    def for_template(self) -> dict[str, Any]:
        """Return the message as templates know it, with one text."""
        content = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        named = {} if self.name is None else {"name": self.name}
        return {"role": self.role, "content": content, **named}


class ChatRequest(GenerationRequest):
    """A conversation whose next message is asked for."""

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    max_tokens: int | None = Field(default=None, ge=1)
    """The older name of ``max_completion_tokens``."""
    logprobs: Literal[False] | None = None
    tools: None = None

    @property
    def most_tokens(self) -> int | None:
        """Largest number of tokens of the answer."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens
