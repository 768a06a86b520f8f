"""Strict JSON."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any, Final

from planner.formats.limits import MAX_DEPTH, text_fault

_MAYBE_STRANGE_TEXT: Final = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")


def parse_json(data: str | bytes) -> Any:
    """Return the value of a JSON text.

    Raises
    ------
    ValueError
        If the text is not JSON, is nested more than :data:`MAX_DEPTH` levels deep, or has a number that is not finite
        (Python's reader accepts ``NaN``, ``Infinity`` and ``1e999``) or text that is not Unicode or has a zero byte.
        The message says where it is, as in ``[3].dur``.
    """
    strange: list[str] = []

    def number(text: str) -> float:
        value = float(text)
        if not math.isfinite(value):
            strange.append(text if len(text) < 30 else f"a number of {len(text)} characters")
        return value

    try:
        text = data if isinstance(data, str) else data.decode(json.detect_encoding(data))
        huge = re.search(r"\d{300}", text)  # integers are not read by a function otherwise, which would be slow
        document = json.loads(text, parse_float=number, parse_constant=number, parse_int=number if huge else None)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if text.count("[") + text.count("{") > MAX_DEPTH and _is_deep(document):
        raise ValueError(f"nested too deeply: more than {MAX_DEPTH} levels")
    if strange:
        place = next(_strange_numbers(document), "a repeated key")
        raise ValueError(f"{place}: a number must be finite; found {strange[0]}")
    if _MAYBE_STRANGE_TEXT.search(text) and (found := next(_strange_texts(document), None)):
        place, fault = found
        raise ValueError(f"{place}: {fault}")
    return json.loads(text) if huge else document


def _is_deep(document: object) -> bool:
    """Return whether there is an array or object more than the allowed number of levels deep."""
    level = [document] if isinstance(document, dict | list) else []
    for _ in range(MAX_DEPTH):
        inner = (value for outer in level for value in (outer.values() if isinstance(outer, dict) else outer))
        level = [value for value in inner if isinstance(value, dict | list)]
    return bool(level)


def _places(value: object, place: str = "") -> Iterator[tuple[str, object]]:
    """Yield every key and every value that is no object and no array, with its place."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield f"{place}.{key}".removeprefix("."), key
            yield from _places(inner, f"{place}.{key}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _places(inner, f"{place}[{index}]")
    else:
        yield place.removeprefix(".") or "top level", value


def _strange_numbers(document: object) -> Iterator[str]:
    for place, value in _places(document):
        if isinstance(value, float) and not math.isfinite(value):
            yield place


def _strange_texts(document: object) -> Iterator[tuple[str, str]]:
    for place, value in _places(document):
        if isinstance(value, str) and (fault := text_fault(value)):
            yield place.encode(errors="replace").decode(), fault
