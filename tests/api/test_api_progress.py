"""The default progress: a bar on a terminal, nothing elsewhere."""

from __future__ import annotations

import pytest

from planner.api.progress import TerminalProgress, reporting


def test_on_a_terminal_it_is_a_bar_that_disappears(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    shown = TerminalProgress()
    with reporting(shown, "measuring [red]") as report:
        report(1, 2)
        assert shown._bar is not None
    assert shown._bar is None
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "measuring [red]" in printed.err


def test_after_an_error_the_bar_is_gone_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    shown = TerminalProgress()
    with pytest.raises(ZeroDivisionError), reporting(shown, "dividing"):
        _ = 1 / 0
    assert shown._bar is None


def test_in_a_pipe_it_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with reporting(TerminalProgress(), "measuring") as report:
        report(1, 2)
    with reporting(None, "measuring") as report:
        report(1, 2)
    assert capsys.readouterr() == ("", "")
