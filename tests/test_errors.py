"""What an error tells of itself: its type, its message and what caused it, on one line."""

from __future__ import annotations

import io

import pytest

from planner.errors import ExecuteError, Fault, explain, printable
from planner.tables import Table, make_console, print_content


def raised(call: str) -> BaseException:
    """Run a few lines and give what they raise."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - any
        exec(call, {"ExecuteError": ExecuteError})  # noqa: S102 - lines of this file
    return caught.value


def test_a_message_alone_would_not_say_what_it_is() -> None:
    assert explain(KeyError("t3")) == "KeyError: 't3'"
    assert explain(TimeoutError()) == "TimeoutError"
    assert explain(ValueError("one\n  two\n")) == "ValueError: one; two"


def test_an_error_of_a_users_input_is_its_message() -> None:
    assert explain(ExecuteError("no way", where="a", value=3)) == "a: no way; found 3"
    assert explain(ExecuteError([Fault("first"), Fault("second")])) == "first; second"


def test_causes_follow() -> None:
    first = "try:\n    {}['t3']\nexcept KeyError as error:\n    raise "
    assert explain(raised(first + "ExecuteError('no tensor') from error")) == "no tensor, caused by KeyError: 't3'"
    assert explain(raised(first + "OSError('full')")) == "OSError: full, raised while handling KeyError: 't3'"
    assert explain(raised(first + "OSError('full') from None")) == "OSError: full"
    repeated = explain(raised(first + "ExecuteError(f'no tensor {error}') from error"))
    assert repeated == "no tensor 't3'"


def test_an_error_that_is_its_own_cause_has_an_end() -> None:
    error, other = KeyError("t3"), ValueError("x")
    error.__cause__, other.__cause__ = other, error
    assert explain(error).startswith("KeyError: 't3', caused by ValueError: x")


def test_long_values_and_many_faults_are_shortened() -> None:
    value = {"key": ["x" * 100] * 10_000}
    told = str(ExecuteError("w" * 10_000, where="h" * 10_000, value=value, expected="e" * 10_000))
    assert len(told) < 3000
    assert told.count("…") == 4
    assert "a number of" in str(ExecuteError("no", value=10**5000))
    many = str(ExecuteError(Fault("wrong", f"line {line}", "x" * 100) for line in range(10_000)))
    assert len(many) < 20_000
    assert many.endswith("more errors")


@pytest.mark.parametrize("control", ["\x1b[2J", "\x9b2J", "\x07", "\r", "\x7f", "\u202e", "\x00"])
def test_no_text_controls_a_terminal(control: str) -> None:
    text = f"one {control}two\n\tthree – “é”"
    assert control[0] not in printable(text)
    assert printable(text).replace(ascii(control[0])[1:-1], control[0]) == text
    assert control[0] not in str(ExecuteError(text, where=text, value=text, expected=text))
    file = io.StringIO()
    print_content(Table("t", ["a"], [[text]]), make_console(file, width=80))
    print_content(text, make_console(file, width=80))
    assert control[0] not in file.getvalue()
