"""Malformed documents: real ones with a few entries deleted, repeated, moved, or replaced by odd values.

A document changed in its structure passes the first checks far more often than random bytes do, and so reaches the
later ones.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from hypothesis import strategies as st

Draw: TypeAlias = st.DrawFn
Place: TypeAlias = tuple[str | int, ...]

ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 7, 64, 65, 2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63), 10**6, 10**12,
    10**15, 10**18, 10**30, 10**305, 0.5, -0.5, 1.0, 1e-12, 1e6, 1e9, 1e18, 1e300, 1.7e308, 5e-324, -1e308,
    "", " ", "x", "0", "1", "-1", "1e999", "true", "..", "../../..", "/", "/dev/null", "a\nb", "é", "x" * 5000,
    "3 ms", "1e300 s", "4 GiB", "0 B", "54 Mbit/s", "10 /s", "-1 /s", "1e-300 /s", "100 %", "2 J",
    [], [[]], [None], [0], ["x"], {}, {"": 0}, {"x": {}}, [0] * 300, ["x"] * 300, {str(key): 0 for key in range(300)},
)  # fmt: skip
"""Values of every type, at and beyond the ends of their ranges."""

RAW_JSON: tuple[str, ...] = (
    "NaN", "-Infinity", "1e999", "-0.0", "9" * 400, "9" * 5000, "[" * 100_000, "[" * 300 + "]" * 300,
    '{"a":' * 100 + "1" + "}" * 100, '"\\ud800"', '"\\u0000"', '"\\u001b[2J"', "01", "1.", "tru", "", "/**/1", "'x'",
    "1 1", '"a": 1',
)  # fmt: skip
"""Pieces of text in place of a value that a JSON writer would not write."""

RAW_YAML: tuple[str, ...] = (
    "2001-02-30", "2001-02-03", "2001-12-14t21:59:43.10+99:00", "!!int x", "!!int ''", "!!bool x", "!!float .",
    "!!float ''", "!!binary aGk=", "!!binary a", "!!set {a, b}", "!!omap [a: 1]", "!!pairs [a: 1]", "!!null x", "!x y",
    "!!python/object:a.B {}", "!!map []", "!!seq {}", "!!str [a]", "&a [*a]", "*nothing", "&a x", "{<<: 3}",
    "{<<: {a: 1}, <<: {b: 1}}", "{<<: [{a: 1}, 3]}", "{? [a] : b}", "{? {a: b} : c}", "{1: 2}", "{null: 1}",
    "{a: 1, a: 2}", "{2001-02-03: 1}", '"\\ud800"', '{"\\ud800": 1}', '"\\0"', '{"\\0": 1}', '"\\e[2J"', ".inf", ".nan",
    "-.inf", "0x", "0o9", "0b2", "1_000", "_", "1e999", "9" * 400, "9" * 5000, "0x" + "f" * 5000, "[" * 2000,
    "[" * 150 + "]" * 150, "{a: " * 150 + "1" + "}" * 150, "|", "> x", "'", '"', "%", "@", "`", "- a", "=", "~", "? ",
    "&a [x, x, x, x, x, x, x, x, x], b: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a], c: &c [*b, *b, *b, *b, *b, *b, *b, *b]"
    ", d: &d [*c, *c, *c, *c, *c, *c, *c, *c], e: &e [*d, *d, *d, *d, *d, *d, *d, *d], f: [*e, *e, *e, *e, *e, *e, *e]",
    "---", "...", "%YAML 1.1", "\t", "\x07", "\ufeff", "\u2028",
)  # fmt: skip
"""The same for YAML, where a scalar may also state its type, and an alias may stand for any value."""

_MARK = "\ue000raw{}\ue000"
_MARKED = re.compile(r'"\\ue000raw(\d+)\\ue000"')


def places(value: Any, place: Place = ()) -> Iterator[Place]:
    """Yield the places of all values in a document, outer ones first."""
    yield place
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from places(inner, (*place, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from places(inner, (*place, index))


def at(document: Any, place: Place) -> Any:
    """Return the value at a place."""
    for key in place:
        document = document[key]
    return document


@st.composite
def mutated(draw: Draw, documents: Sequence[Any], raw: Sequence[str] = RAW_JSON) -> str:
    """Return a JSON text of one of the documents after one to three changes.

    JSON is YAML, too. ``raw`` are the texts that may stand in place of a value.
    """
    document = copy.deepcopy(draw(st.sampled_from(documents)))
    for _ in range(draw(st.integers(1, 3))):
        document = _change(draw, document, len(raw))
    text = json.dumps(document)
    return _MARKED.sub(lambda found: raw[int(found[1])], text)


def _change(draw: Draw, document: Any, raw: int) -> Any:
    all_places = list(places(document))
    # Outer entries are few, and changes of them end at the first check: half of all changes are at the ends.
    place = draw(st.sampled_from(all_places[1:] or all_places))
    *outer, key = place or ("",)
    entry = at(document, tuple(outer)) if place else {"": document}
    match draw(st.integers(0, 9)):
        case 0:
            entry.pop(key)
        case 1:
            _add(entry, key, copy.deepcopy(entry[key]))
        case 2:
            entry[key] = copy.deepcopy(at(document, draw(st.sampled_from(all_places))))
        case 3:
            entry[key] = _MARK.format(draw(st.integers(0, raw - 1)))
        case 4 if isinstance(entry, dict):
            entry[str(draw(st.sampled_from(ODD)))[:200]] = entry.pop(key)
        case 5 if isinstance(entry[key], int | float):
            entry[key] = draw(st.sampled_from([-1, 0, 2, 10, 1e-9, 1e-3, 1e3, 1e9, 1e15])) * entry[key]
        case _:
            entry[key] = copy.deepcopy(draw(st.sampled_from(ODD)))
    return entry[""] if not place and "" in entry else document


def _add(entry: Any, key: str | int, value: Any) -> None:
    if isinstance(entry, list) and isinstance(key, int):
        entry.insert(key, value)
    else:
        entry[f"{key}-2"] = value


@st.composite
def damaged(draw: Draw, files: Sequence[bytes]) -> bytes:
    """Return one of the files after one to four changes of its bytes: flipped, cut off, removed, repeated, replaced."""
    data = bytearray(draw(st.sampled_from(files)))
    for _ in range(draw(st.integers(1, 4))):
        if not data:
            break
        at_byte = draw(st.integers(0, len(data) - 1))
        end = at_byte + draw(st.sampled_from([1, 1, 2, 4, 8, 64]))
        match draw(st.integers(0, 6)):
            case 0:
                del data[at_byte:]
            case 1:
                del data[at_byte:end]
            case 2:
                data[end:end] = data[at_byte:end]
            case 3:
                data[at_byte:end] = draw(
                    st.sampled_from([b"\0", b"\xff", b"\x80\x80\x80\x80\x01", b"\xff" * 9 + b"\x01"])
                )
            case 4:
                data[at_byte] = draw(st.integers(0, 255))
            case _:
                data[at_byte] ^= 1 << draw(st.integers(0, 7))
    return bytes(data)


def text_or_bytes(text: st.SearchStrategy[str]) -> st.SearchStrategy[bytes]:
    """Return texts as bytes; one of eight is damaged once more."""
    whole = text.map(lambda one: one.encode("utf-8", "surrogatepass"))
    return st.integers(0, 7).flatmap(lambda kind: whole if kind else whole.flatmap(lambda one: damaged([one])))
