"""What a run looks like while it goes on."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from planner.cli import live
from planner.cli.live import RunView
from planner.execution.wire.messages import Load
from planner.trace.records import SampleRecord


def tell(view: RunView) -> None:
    view.on_started(None)
    view.on_ended(SampleRecord("gate", 0, 1.0, 1.25, "completed"), {})
    view.on_ended(SampleRecord("gate", 1, 1.0, 1.35, "completed"), {})
    view.on_ended(SampleRecord("yard", 0, 1.0, 2.0, "failed", "office left"), {})
    view.on_load(Load(run="r", worker="office", at_s=1.0, queued=1, busy_s=0.2))
    view.on_left("cabinet")
    view.on_load(Load(run="r", worker="attic", at_s=2.0, queued=0, busy_s=0.0, carried_s={"lan": 0.1}))
    view.on_load(Load(run="r", worker="office", at_s=2.0, queued=3, busy_s=0.7, carried_s={"lan": 0.4}))


def test_in_a_pipe_it_is_a_line_now_and_then_on_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(live, "LINE_PERIOD_S", 0.0)
    with RunView({"gate": 80, "yard": None}) as view:
        tell(view)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines()[-1] == (
        "2 s: gate 2 of 80, mean 300.0 ms; yard 0, 1 failed | attic 0%, 0 waiting; cabinet disconnected; "
        "office 50%, 3 waiting | lan 25%"
    )


def test_in_a_pipe_a_short_run_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with RunView({"gate": 80, "yard": None}) as view:
        view.say("starting agents")
        tell(view)
    assert capsys.readouterr() == ("", "")


def test_a_long_command_may_announce_its_steps_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    with RunView(announce=True) as view:
        view.say("building mobilenetv2")
    assert capsys.readouterr() == ("", "building mobilenetv2\n")


def test_on_a_terminal_it_is_tables_while_the_run_is_on(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(live, "Console", lambda **_: Console(file=screen, force_terminal=True, width=100))
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with RunView({"gate": 80, "yard": None}) as view:
        advance = view.say("running the whole models")
        advance(1, 2)
        tell(view)
        seen = io.StringIO()
        Console(file=seen, width=100).print(view._render())
        view.say("comparing outputs")
        after = io.StringIO()
        Console(file=after, width=100).print(view._render())
    assert "running the whole models" in seen.getvalue()
    for words in (
        ("gate", "2 of 80", "0", "300.0 ms"),
        ("yard", "0", "1", "–"),
        ("office", "50%", "3"),
        ("cabinet", "disconnected"),
        ("lan", "25%"),
    ):
        assert any(all(word in line for word in words) for line in seen.getvalue().splitlines()), words
    assert "office" not in after.getvalue()
