"""Tables stay readable on narrow terminals."""

from __future__ import annotations

import re

import pytest

from planner.cli.output import print_table

COLUMNS = ("source", "route", ">mean predicted", ">measured", ">error")
ROWS = [
    ("gate-camera", "camera-box: blocks 0-1, then office: blocks 2-7", "96.6 ms", "1099.0 ms", "+2.4%"),
    ("yard-camera", "camera-box: block 0", "128.9 ms", "130.9 ms", "+1.6%"),
]


@pytest.mark.parametrize("width", [20, 50, 80, 200])
def test_names_and_numbers_are_whole_whatever_the_width(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    print_table("Delays", COLUMNS, ROWS)
    printed = re.sub(r"\x1b\[\d+m", "", capsys.readouterr().out)
    for name, _, *numbers in ROWS:
        assert any(all(cell in line for cell in (name, *numbers)) for line in printed.splitlines()), printed
    for title in ("source", "predicted", "measured", "error"):
        assert title in printed
    assert width < 80 or max(map(len, printed.splitlines())) <= width


def test_in_a_pipe_a_table_is_wide(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("Delays", COLUMNS, ROWS)
    assert f"│ {ROWS[0][1]} │" in capsys.readouterr().out
