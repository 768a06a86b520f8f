"""Limits of what is read from outside, whatever its format."""

from __future__ import annotations

from typing import Final

MAX_DEPTH: Final = 64
"""Levels of nested lists and mappings; no format of this project needs ten."""


def text_fault(text: str) -> str | None:
    """Return why a text of a file can be no name and no path, and cannot be printed; None if it can."""
    if "\0" in text:
        return "text with a zero byte"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "text that is not Unicode"
    return None
