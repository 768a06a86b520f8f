"""Exit codes and messages that all commands share."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
from importlib.metadata import version
from pathlib import Path

import pytest

from planner.cli import COMMANDS, main, names
from planner.cli.examples import EXAMPLES
from planner.errors import PlannerError
from planner.policy.registry import POLICIES
from planner.solvers.solve import METHODS
from tests.cli.command import parse, planner


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    assert end.value.code == 0
    told = capsys.readouterr().out
    assert f"Usage: planner {name}" in told
    assert all(f"\n  {line}\n" in told for line in ("Examples:", *(f"  {example}" for example in EXAMPLES[name])))


def test_commands_are_listed_in_the_order_of_the_work(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    told = capsys.readouterr().out
    _, _, listed = told.partition("\nCommands:")
    assert re.findall(r"^  ([\w-]+)  ", listed, flags=re.MULTILINE) == list(COMMANDS)
    assert "..." not in listed


@pytest.mark.parametrize("line", [line for lines in EXAMPLES.values() for line in lines])
def test_examples_are_read_as_they_stand(line: str) -> None:
    assert parse(line) == 0


@pytest.mark.parametrize("line", ["planner solve", "planner solve a.yaml --nonsense", "planner profile diff a.json"])
def test_what_is_no_command_line_is_not_read(line: str) -> None:
    assert parse(line) == 2


def test_help_names_all_methods_and_policies() -> None:
    methods = names.METHODS_HELP.partition(": ")[2].removesuffix(".").replace("; or a baseline: ", ", ")
    assert sorted(methods.split(", ")) == sorted(["auto", *METHODS])
    assert sorted(names.POLICIES.split(", ")) == sorted(POLICIES)


@pytest.mark.parametrize("words", [["-h"], ["solve", "-h"], ["profile", "-h"], ["profile", "show", "-h"]])
def test_the_short_form_of_help(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith("Usage: planner ")


def test_the_version_is_that_of_the_distribution(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"planner {version('mdi-planner')}\n"


@pytest.fixture
def checkout(tmp_path: Path) -> dict[str, str]:
    """Variables of a process that has all libraries and the checkout on its path, but no distribution of planner."""
    for site in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for entry in Path(site).iterdir():
            if not entry.name.startswith("mdi_planner") and not (tmp_path / entry.name).exists():
                (tmp_path / entry.name).symlink_to(entry)
    root = Path(__file__).parents[2]
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(tmp_path)])}


@pytest.mark.parametrize(
    "words",
    [
        ["-m", "planner", "--version"],
        ["-c", "from planner.execution.agent.link_probe import about_host; print('planner', about_host()['version'])"],
    ],
    ids=["command", "agent"],
)
def test_the_version_is_unknown_in_a_checkout_that_is_not_installed(words: list[str], checkout: dict[str, str]) -> None:
    command = [sys.executable, "-S", *words]  # without site, the environment's own packages are not looked for
    finished = subprocess.run(command, capture_output=True, text=True, check=False, env=checkout)
    assert (finished.stdout, finished.returncode) == ("planner unknown\n", 0), finished.stderr


def test_bad_usage_ends_with_2() -> None:
    assert planner("solve").returncode == 2
    assert planner("nonsense").returncode == 2
    assert planner("solve", "x.yaml", "--nonsense").returncode == 2


# Where, what was found and what is expected; how it is worded is up to Typer.
MISUSED = [
    ("solve x.yaml --gap -1", ("planner solve: ", "'--gap'", "-1", "0")),
    ("simulate x.yaml --repeat 0", ("planner simulate: ", "'--repeat'", "0", "1")),
    ("simulate x.yaml --seed x", ("planner simulate: ", "'--seed'", "'x'")),
    ("simulate x.yaml --seed", ("planner simulate: ", "'--seed'", "`planner simulate -h`")),
    ("solve x.yaml --rout", ("planner solve: ", "--rout", "--routes")),
    ("solve", ("planner solve: ", "'scenario'", "`planner solve -h`")),
    (
        "solv x.yaml",
        (
            "planner: ",
            "'solv'",
        ),
    ),
    (
        "models buil",
        (
            "planner models: ",
            "'buil'",
        ),
    ),
    ("--nonsense", ("planner: ", "--nonsense", "`planner -h`")),
]


@pytest.mark.parametrize(("line", "named"), MISUSED, ids=[line for line, _ in MISUSED])
def test_a_command_line_that_cannot_be_read_is_one_message_as_all_others(
    line: str, named: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(line.split())
    assert end.value.code == 2
    out, told = capsys.readouterr()
    assert out == ""
    assert told.startswith("planner: error: ")
    assert told.count("\n") == 1
    assert all(words in told.replace("'SCENARIO'", "'scenario'") for words in named)


@pytest.mark.parametrize("line", ["", "profile", "models"])
def test_a_command_of_commands_alone_shows_its_help(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(line.split())
    assert "".join(capsys.readouterr()).startswith("Usage: planner ")


BAD = [
    (("inspect", "missing.onnx"), "missing.onnx"),
    (("profile", "measure", "missing.onnx", "--device-class", "here", "-o", "p.json"), "missing.onnx"),
    (("split", "missing.onnx", "--cuts", "1", "-o", "parts"), "missing.onnx"),
    (("models", "build", "alexnet"), "alexnet"),
    (("solve", "missing.yaml", "-o", "plan.json"), "missing.yaml"),
    (("export", "missing.json", "--annotate", "m.onnx"), "missing.json"),
    (("simulate", "missing.yaml"), "missing.yaml"),
    (("validate", "missing.json", "--local"), "missing.json"),
    (("validate", "missing.json"), "--local"),
    (("agent", "--name", "a", "--connect", "nowhere"), "nowhere"),
]


@pytest.mark.parametrize(("words", "named"), BAD, ids=lambda value: " ".join(value) if isinstance(value, tuple) else "")
def test_bad_input_is_one_message_with_what_is_wrong_and_2(words: tuple[str, ...], named: str, tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-m", "planner", *words], capture_output=True, text=True, check=False, cwd=tmp_path, timeout=60
    )
    assert found.returncode == 2
    assert found.stdout == ""
    assert found.stderr.count("planner: error:") == 1
    assert named in found.stderr
    assert "Traceback" not in found.stderr
    assert list(tmp_path.iterdir()) == []


ELSEWHERE = [
    ("solve", "missing.yaml", "-o", "a-file/plan.json"),
    ("solve", "missing.yaml", "-o", "a-folder"),
    ("compare", "missing.yaml", "-o", "compared.gif"),
    ("pareto", "missing.yaml", "-o", "a-folder"),
    ("export", "missing.json", "--annotate", "a-folder"),
    ("simulate", "missing.yaml", "-o", "a-file"),
    ("split", "missing.onnx", "--cuts", "1", "-o", "a-file/parts"),
    ("profile", "measure", "missing.onnx", "--device-class", "here", "-o", "a-folder"),
    ("inspect", "missing.onnx", "--picture", "chain.jpg"),
    ("models", "build", "mobilenetv2", "-o", "a-folder"),
    ("validate", "missing.json", "--local", "-o", "a-file"),
    ("run", "missing.json", "--source", "a=b", "-o", "a-file"),
    ("demo", "-o", "a-file"),
]


@pytest.mark.parametrize("words", ELSEWHERE, ids=" ".join)
def test_no_work_is_begun_whose_results_have_no_place(words: tuple[str, ...], tmp_path: Path) -> None:
    """The place is looked at before anything else: the input is not even there."""
    (tmp_path / "a-file").write_text("kept")
    (tmp_path / "a-folder").mkdir()
    found = subprocess.run(
        [sys.executable, "-m", "planner", *words], capture_output=True, text=True, check=False, cwd=tmp_path, timeout=60
    )
    assert found.returncode == 2
    assert found.stdout == ""
    assert found.stderr.startswith("planner: error: ")
    assert found.stderr.count("\n") == 1
    assert words[-1] in found.stderr
    assert (tmp_path / "a-file").read_text() == "kept"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a-file", "a-folder"]


def test_a_file_that_cannot_be_written_after_all_is_one_message_and_2(capsys: pytest.CaptureFixture[str]) -> None:
    """No process may write there, whatever its permissions say."""
    with pytest.raises(SystemExit) as end:
        main(["models", "build", "resnet56", "-o", "/proc/model.onnx"])
    assert end.value.code == 2
    assert capsys.readouterr().err == "planner: error: /proc/model.onnx: no such file or directory\n"


def test_debug_shows_the_traceback() -> None:
    with pytest.raises(PlannerError):
        main(["--debug", "solve", "missing.yaml"])


SCENARIO = """
schema: planner/scenario/v1
models: {m: {profile: m}}
workers:
  a: {device_class: here, memory: 1 GiB}
networks:
  lan: {kind: shared, members: [a, b], bandwidth: 54, latency: 3 ms}
sources:
  camera: {worker: c, models: [m], rate: -5 /s}
"""


def test_all_faults_of_a_scenario_are_reported_at_once(tmp_path: Path) -> None:
    path = tmp_path / "scenario.yaml"
    path.write_text(SCENARIO)
    found = planner("solve", path)
    assert found.returncode == 2
    lines = found.stderr.splitlines()
    assert len(lines) == 4
    for line, words in zip(
        sorted(lines),
        [("7", "lan.bandwidth", "54 Mbit/s"), ("7", "lan.members", "'b'"), ("9", "rate", "-5"), ("9", "worker", "'c'")],
        strict=True,
    ):
        assert all(word in line for word in words), line
