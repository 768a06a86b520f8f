"""Files of other projects, converted, planned for and written back on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from planner.cli import main
from planner.cli.names import FORMATS_READ, FORMATS_WRITTEN
from planner.interchange.formats import READERS, WRITERS
from tests.interchange.test_pipeedge import documents, read_schedule, write

Printed = pytest.CaptureFixture[str]


def planner(printed: Printed, *words: str | Path) -> tuple[int, str, str]:
    """Run ``planner`` in this process and give exit code, stdout and stderr."""
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    return (end.value.code if isinstance(end.value.code, int) else 0, *printed.readouterr())


def test_the_way_in_and_out(tmp_path: Path, capsys: Printed) -> None:
    files = write(tmp_path / "in", *documents())
    code, _, told = planner(
        capsys, "convert", "--from", "pipeedge", *files, "--set", "batch_size=4", "-o", tmp_path / "out"
    )
    assert code == 0, told
    assert "note: PipeEdge gives each device one stage" in told
    scenario, plan, schedule = tmp_path / "out/scenario.yaml", tmp_path / "plan.json", tmp_path / "schedule.yml"
    assert planner(capsys, "solve", scenario, "--max-visits", "1", "-o", plan)[0] == 0
    assert planner(capsys, "export", plan, "--as", "pipeedge", "-o", schedule)[0] == 0
    stages = read_schedule(schedule.read_text())
    assert (stages[0][1], stages[-1][2]) == (1, 5)
    assert planner(capsys, "export", plan, "--as", "pipeedge")[1] == schedule.read_text()


def test_json_tells_the_scenario_and_the_notes(tmp_path: Path, capsys: Printed) -> None:
    files = write(tmp_path, *documents())
    _, printed, _ = planner(capsys, "convert", "--from", "pipeedge", *files, "-o", tmp_path / "out", "--json")
    told = json.loads(printed)
    assert told["scenario"] == str(tmp_path / "out/scenario.yaml")
    assert any("--max-visits 1" in note for note in told["notes"])


def test_wrong_use_is_named(tmp_path: Path, capsys: Printed) -> None:
    files, out = write(tmp_path, *documents()), tmp_path / "out"
    wrong: list[tuple[tuple[str | Path, ...], str]] = [
        (("convert", "--from", "json", *files, "-o", out), "--from"),
        (("convert", "--from", "pipeedge", *files, "--set", "4", "-o", out), "--set"),
        (("convert", "--from", "pipeedge", *files[:2], "-o", out), "FILE"),
        (("convert", "--from", "saga", tmp_path / "none.json", "-o", out), "none.json"),
        (("export", tmp_path / "plan.json"), "planner export"),
        (("export", tmp_path / "plan.json", "--as", "saga", "--annotate", tmp_path / "m.onnx"), "planner export"),
    ]
    for words, place in wrong:
        code, _, told = planner(capsys, *words)
        assert code == 2
        assert place in told
        assert told.count("\n") == 1
    assert not out.exists()


def test_help_names_every_format() -> None:
    assert FORMATS_READ.split(", ") == list(READERS)
    assert FORMATS_WRITTEN.split(" or ") == list(WRITERS)
