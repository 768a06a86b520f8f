"""JSON from outside: finite numbers, Unicode text, few levels."""

from __future__ import annotations

import pytest

from planner.formats.json import parse_json
from planner.formats.limits import MAX_DEPTH


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "9" * 400, "-" + "9" * 5000])
def test_numbers_that_are_not_finite_are_refused_with_their_place(number: str) -> None:
    with pytest.raises(ValueError, match=r"^\[1\]\.deep\.times\[0\]: a number must be finite; found "):
        parse_json(f'[{{"NaN": "Infinity"}}, {{"deep": {{"times": [{number}, 1.5]}}}}]')
    with pytest.raises(ValueError, match=r"^key: a number must be finite"):
        parse_json(f'{{"key": {number}}}'.encode("utf-16"))
    with pytest.raises(ValueError, match=r"^top level: a number must be finite"):
        parse_json(number)
    with pytest.raises(ValueError, match="a number must be finite"):
        parse_json(f'{{"key": {number}, "key": 1}}')


@pytest.mark.parametrize("text", ["", "{", "[1,]", "[" * 100_000, b"\xff\xfe\x00", "1 2", "{'a': 1}"])
def test_what_is_not_json_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_json(text)


def test_other_numbers_keep_their_type_and_value() -> None:
    big = 10**305
    assert parse_json(f'{{"a": [1, 1.0, -0.5e-3, {big}], "b": "{"9" * 400}"}}') == {
        "a": [1, 1.0, -0.5e-3, big],
        "b": "9" * 400,
    }
    assert [type(value) for value in parse_json(f"[1, 1.0, {big}]")] == [int, float, int]


@pytest.mark.parametrize(("begin", "end"), [("[", "]"), ('{"a": ', "}"), ('[{"a": ', "}]")])
def test_levels_are_bounded(begin: str, end: str) -> None:
    times = MAX_DEPTH // (1 + (len(begin) > 6))
    assert parse_json(begin * times + "1" + end * times)
    for too_many in (times + 1, 20 * times, 1000 * times):
        with pytest.raises(ValueError, match="nested too deeply"):
            parse_json(begin * too_many + "1" + end * too_many)
    assert len(parse_json("[" + "[],{}," * 10_000 + "1]")) == 20_001


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (r'{"a": ["\ud800"]}', r"a\[0\]: text that is not Unicode"),
        (r'{"\udfff": 1}', "text that is not Unicode"),
        (r'["a\u0000b"]', r"\[0\]: text with a zero byte"),
    ],
)
def test_text_that_can_be_no_name_is_refused_with_its_place(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        parse_json(text)
    assert parse_json(r'["\ud83d\ude00", "\\\\u0000", "\u0001"]') == ["😀", r"\\u0000", "\x01"]
