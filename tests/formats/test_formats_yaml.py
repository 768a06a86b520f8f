"""YAML from outside: plain values with their lines, and a message for everything else."""

from __future__ import annotations

import pytest

from planner.formats.limits import MAX_DEPTH
from planner.formats.yaml import MAX_ALIASED, YamlError, parse_yaml

TEXT = b"""\
a: &a {b: 1, c: [2.5, x, true, ~, 0x1f, 2001-02-03]}
d: *a
e:
  <<: [*a, {b: 3, f: 4}]
  g: 5
"""


def test_values_are_plain_and_have_lines() -> None:
    read = parse_yaml(TEXT)
    a = {"b": 1, "c": [2.5, "x", True, None, 31, "2001-02-03"]}
    assert read.value == {"a": a, "d": a, "e": {**a, "f": 4, "g": 5}}
    assert read.value["a"] is not read.value["d"]
    assert [type(value) for value in (read.value, *read.value["a"]["c"])] == [
        dict,
        float,
        str,
        bool,
        type(None),
        int,
        str,
    ]
    assert {place: read.lines[place] for place in [("a",), ("d",), ("d", "b"), ("e",), ("e", "g")]} == {
        ("a",): 1, ("d",): 2, ("d", "b"): 1, ("e",): 3, ("e", "g"): 5,
    }  # fmt: skip
    assert ("e", "f") not in read.lines
    assert parse_yaml(b"").value is None
    assert parse_yaml(b"%YAML 1.1\n---\na: yes\nb: &b 1\nc: &b 2\nd: *b").value == {"a": True, "b": 1, "c": 2, "d": 2}


STRANGE = {
    "!!int x": "not of the type !!int",
    "!!int ''": "not of the type !!int",
    "!!bool x": "not of the type !!bool",
    "!!float .": "not of the type !!float",
    "9" * 5000: "not of the type !!int",
    "!!binary aGk=": "type is not supported; found '!!binary'",
    "!!set {a, b}": "type is not supported; found '!!set'",
    "!!omap [a: 1]": "type is not supported; found '!!omap'",
    "!!python/object:os.system {}": "type is not supported",
    "!own 3": "type is not supported; found '!own'",
    "{1: 2}": "a key must be text; found 1",
    "{[a]: b}": "a key must be text",
    "{<<: 3}": "<< must be a mapping",
    "{<<: [{a: 1}, 3]}": "<< must be a mapping",
    '"\\ud800"': "text that is not Unicode",
    '{"\\ud800": 1}': "text that is not Unicode",
    '"\\0"': "text with a zero byte",
    "&x [*x]": r"an alias \(\*\) inside of what it stands for",
    "&x {<<: *x}": r"an alias \(\*\) inside of what it stands for",
    "*nothing": "undefined alias",
    "{a: 1, a: 2}": "duplicate key",
    "[" * 5000: "nested too deeply",
    "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1): "nested too deeply",
    "\x07": "not valid YAML",
}


@pytest.mark.parametrize("text", STRANGE, ids=lambda text: text[:30].encode("unicode_escape").decode())
def test_what_is_no_plain_value_is_one_error_with_its_line(text: str) -> None:
    with pytest.raises(YamlError, match=STRANGE[text]) as refused:
        parse_yaml(f"first: 1\nhere: {text}\n".encode())
    assert {line for line, _, _ in refused.value.faults} <= {2, 0}


def test_all_such_errors_are_told() -> None:
    with pytest.raises(YamlError) as refused:
        parse_yaml(b"a: !!int x\nb: {1: !!set {c}}\n")
    assert [(line, place) for line, place, _ in refused.value.faults] == [(1, ("a",)), (2, ("b", 1)), (2, ("b", "1"))]


def test_values_by_aliases_are_bounded() -> None:
    """Seven lines would be ten million values."""
    text = "x0: &x0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
    text += "".join(f"x{level}: &x{level} [{', '.join([f'*x{level - 1}'] * 10)}]\n" for level in range(1, 7))
    with pytest.raises(YamlError, match=f"more than {MAX_ALIASED} values by aliases"):
        parse_yaml(text.encode())
    assert len(parse_yaml(f"a: &a 1\nb: [{'*a, ' * 1000}]".encode()).value["b"]) == 1000
