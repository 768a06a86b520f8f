from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from planner.api.new import EXAMPLE_NAMES
from tests.api.test_api_schemas import check
from tests.cli.command import parse, planner


@pytest.mark.parametrize("example", EXAMPLE_NAMES)
def test_a_new_scenario_fits_its_schema_and_can_be_planned(tmp_path: Path, example: str) -> None:
    made = planner("new", tmp_path / "mine", "--from", example)
    assert made.returncode == 0, made.stderr
    scenario = tmp_path / "mine/scenario.yaml"
    first, *_ = scenario.read_text(encoding="utf-8").splitlines()
    assert first == "# yaml-language-server: $schema=scenario.schema.json"
    assert (scenario.parent / "scenario.schema.json").is_file()
    assert check("scenario", scenario).exit_code == 0
    steps = [line.strip() for line in made.stdout.partition("next:")[2].splitlines() if line.strip()]
    assert steps[0] == f"cd {scenario.parent}"
    assert all(parse(step) == 0 for step in steps[1:])


@pytest.mark.nightly
def test_the_steps_lead_to_a_simulated_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = planner("new", tmp_path, "--from", "jetsons")
    monkeypatch.chdir(tmp_path)
    for line in made.stdout.partition("next:")[2].split("\n  planner ")[1:]:
        finished = planner(*line.split())
        assert finished.returncode == 0, finished.stderr
    assert (tmp_path / "plan.json").is_file()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    refused = planner("new", tmp_path)
    assert refused.returncode == 2
    assert "exists already; expected a new or an empty folder" in refused.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_an_unknown_example_is_refused(tmp_path: Path) -> None:
    refused = planner("new", tmp_path / "mine", "--from", "three-cameras")
    assert refused.returncode == 2
    assert (
        "no such example; found 'three-cameras'; expected one of two-cameras, jetsons, tokens, exits" in refused.stderr
    )
    assert not (tmp_path / "mine").exists()


COMPLETION = {
    "bash": lambda line: {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)},
    "zsh": lambda line: {"_TYPER_COMPLETE_ARGS": line},
    "fish": lambda line: {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
}


@pytest.mark.parametrize("shell", COMPLETION)
@pytest.mark.parametrize(
    ("line", "word"),
    [("planner val", "validate"), ("planner profile me", "measure"), ("planner solve --pri", "--prices")],
)
def test_shells_complete_commands_and_options(
    shell: str, line: str, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"_PLANNER_COMPLETE": f"complete_{shell}", **COMPLETION[shell](line)}
    for name, text in asked.items():
        monkeypatch.setenv(name, text)
    answer = planner()
    assert word in answer.stdout
    assert answer.stderr == ""


BASH = shutil.which("bash") or ""


@pytest.mark.skipif(not BASH, reason="bash is not installed")
@pytest.mark.slow
def test_bash_completes_by_the_script_that_is_shown() -> None:
    # The shell that asks is recognised by its process.
    ask = (
        'source <("$0" --show-completion; :); COMP_WORDS=(planner stat); COMP_CWORD=1; _planner_completion "$0"; '
        'echo "${COMPREPLY[@]}"'
    )
    command = [BASH, "-c", ask, str(Path(sys.executable).parent / "planner")]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.stdout.split() == ["status"], answer.stderr
