"""Text as tokens: by the bytes of UTF-8, or by a tokenizer's file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

from planner.errors import UsageError


class TextCodec(Protocol):
    """Turns text into tokens, and tokens into text."""

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens; what is cut off in the middle of a character ends with U+FFFD."""
        ...


class BytesCodec(TextCodec):
    """Each byte of UTF-8 is a token."""

    def encode(self, text: str) -> list[int]:
        """Return the bytes of a text."""
        return list(text.encode())

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of those tokens that are bytes."""
        return bytes(token for token in tokens if 0 <= token < 256).decode(errors="replace")


class TokenizerCodec(TextCodec):
    """A ``tokenizer.json`` of the package ``tokenizers``.

    Raises
    ------
    UsageError
        If that package is not installed, or the file cannot be read.
    """

    def __init__(self, path: Path, where: str) -> None:
        try:
            from tokenizers import Tokenizer
        except ImportError:
            raise UsageError(
                "the package tokenizers is not installed",
                where=where,
                value=str(path),
                expected="`pip install tokenizers`, or a prompt of tokens",
            ) from None
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises no other class
            what = f"cannot be read ({error})"
            raise UsageError(what, where=where, value=str(path), expected="a tokenizer.json") from error

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Return the tokens of a text, with those that the tokenizer adds, unless the text has these itself."""
        return [int(token) for token in self._tokenizer.encode(text, add_special_tokens=special).ids]

    def token(self, text: str | None) -> int | None:
        """Return the token that stands for a text as a whole, such as that of an end; None without one."""
        found = None if text is None else self._tokenizer.token_to_id(text)
        return None if found is None else int(found)

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens, without special ones."""
        return str(self._tokenizer.decode(list(tokens)))


UNFINISHED: Final = "�"
"""What stands at the end of a text for a character of which a part is missing."""


def whole_characters(text: str) -> str:
    """Return a text without a character at its end of which a part is missing."""
    return text.rstrip(UNFINISHED)
